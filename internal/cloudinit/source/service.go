package source

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// service is what vendors' metadata services have in common: documents below a base
// URL, of which each may be missing.
type service struct {
	kind   string
	base   string
	check  string // the path that answers if the service is there
	fetch  Fetcher
	header http.Header
}

func newService(kind, base, check string, f Fetcher) service {
	f.Proxied = false
	return service{kind: kind, base: strings.TrimRight(base, "/") + "/", check: check, fetch: f}
}

func (s service) Name() string { return shown(s.base) }
func (s service) Type() string { return s.kind }

func (s service) Available(ctx context.Context) error {
	if err := checkURL(s.base); err != nil {
		return never{err}
	}
	_, err := s.fetch.Once(ctx, s.base+s.check, s.header)
	return err
}

// get is a document of the service, nil if it has none of that name.
func (s service) get(ctx context.Context, path string) ([]byte, error) {
	if err := checkURL(s.base); err != nil {
		return nil, err
	}
	data, err := s.fetch.Get(ctx, s.base+path, s.header)
	if missing(err) {
		return nil, nil
	}
	return data, err
}

// text is a document that is a line of text.
func (s service) text(ctx context.Context, path string) (string, error) {
	data, err := s.get(ctx, path)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(data))
	if len(text) > 64<<10 || !utf8.ValidString(text) {
		return "", fmt.Errorf("%s%s: the answer is no line of text", s.Name(), path)
	}
	return text, nil
}

// address is a document that is an IP address.
func (s service) address(ctx context.Context, path string) (string, error) {
	text, err := s.text(ctx, path)
	if err != nil || text == "" {
		return "", err
	}
	return checkAddress(s.Name()+path, text)
}

// json is a document in JSON; it fails if there is none.
func (s service) json(ctx context.Context, path string, to any) ([]byte, error) {
	data, err := s.fetch.Get(ctx, s.base+path, s.header)
	if err != nil {
		return nil, err
	}
	return data, decodeJSON(s.Name()+path, data, to)
}

// fill asks for several lines of text, one after another.
func fill(ctx context.Context, ask func(context.Context, string) (string, error), to map[string]*string) error {
	for path, field := range to {
		text, err := ask(ctx, path)
		if err != nil {
			return err
		}
		*field = text
	}
	return nil
}

// checkAddress refuses what is no IP address: it would end in other programs'
// configuration.
func checkAddress(where, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return "", fmt.Errorf("%s: %q is no IP address", where, shorten(text))
	}
	return a.String(), nil
}

// shorten is a text for an error message.
func shorten(s string) string {
	if len(s) <= 60 {
		return s
	}
	return s[:57] + "..."
}

// numbered names keys that have no names.
func numbered(keys []string) map[string]string {
	var out map[string]string
	for i, k := range keys {
		if k = strings.TrimSpace(k); k != "" {
			if out == nil {
				out = make(map[string]string)
			}
			out[strconv.Itoa(i)] = k
		}
	}
	return out
}
