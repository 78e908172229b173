package source

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"flotilla/internal/fault"
)

// URL is a document at an address of the web. It is available once a GET of it works.
func URL(address string, f Fetcher) Source {
	f.Proxied = true
	return remote{address, f}
}

type remote struct {
	address string
	fetch   Fetcher
}

func (r remote) Name() string { return shown(r.address) }
func (r remote) Type() string { return "url" }

func (r remote) Available(ctx context.Context) error {
	if err := checkURL(r.address); err != nil {
		return never{err}
	}
	_, err := r.fetch.Once(ctx, r.address, nil)
	var final errFinal
	if errors.As(err, &final) {
		return never{err}
	}
	return err
}

func (r remote) UserData(ctx context.Context) ([]byte, error) {
	if err := checkURL(r.address); err != nil {
		return nil, err
	}
	return r.fetch.Get(ctx, r.address, nil)
}

func (r remote) Metadata(context.Context) (Metadata, error) { return Metadata{}, nil }

// checkURL says what keeps a text from being the address of a document.
func checkURL(address string) error {
	u, err := url.Parse(address)
	var parse *url.Error
	switch {
	case errors.As(err, &parse):
		return fmt.Errorf("%q is no URL: %w", address, parse.Err)
	case u.Scheme == "file":
		return fault.Hint(fmt.Errorf("%s: only http and https are fetched", u.Redacted()), "to read a file use -from-file=%s", u.Path)
	case u.Scheme != "http" && u.Scheme != "https":
		return fault.Hint(fmt.Errorf("%q is no http or https URL", address), "write it as http://HOST/PATH or https://HOST/PATH")
	case u.Host == "":
		return fmt.Errorf("%q names no host", address)
	}
	return nil
}
