package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"flotilla/internal/fault"
)

// EC2 is Amazon's metadata service, or another one of its form, below base. It is
// asked for a session token first (IMDSv2); a service that gives none is asked
// without.
func EC2(base string, f Fetcher) Source {
	return ec2{newService("ec2-metadata-service", base, ec2Version+"/", f)}
}

type ec2 struct{ service }

// Paths, headers and limits of the instance metadata service, as Amazon documents them.
const (
	ec2Version     = "2009-04-04"
	ec2TokenPath   = "latest/api/token"
	ec2TokenHeader = "X-aws-ec2-metadata-token"
	ec2TTLHeader   = "X-aws-ec2-metadata-token-ttl-seconds"
	ec2TTL         = "300" // seconds; every question here is done by then

	// ec2TokenTry is how long a token is waited for. Where more hops lie between
	// than the service allows, its answer gets lost and there is no refusal.
	ec2TokenTry = 2 * time.Second
)

// session is the service with a token, if it gives one; noToken says why it does not.
func (e ec2) session(ctx context.Context) (s service, noToken error) {
	s = e.service
	f := s.fetch.withDefaults()
	f.Try = min(f.Try, ec2TokenTry)
	token, err := f.once(ctx, http.MethodPut, s.base+ec2TokenPath, http.Header{ec2TTLHeader: {ec2TTL}})
	if err != nil {
		return s, err
	}
	s.header = http.Header{ec2TokenHeader: {strings.TrimSpace(string(token))}}
	return s, nil
}

// wantsToken explains a 401: the service insists on a token that it did not give.
func wantsToken(err, noToken error) error {
	var status errStatus
	if noToken == nil || !errors.As(err, &status) || status.code != http.StatusUnauthorized {
		return err
	}
	return fault.Hint(fmt.Errorf("%w: it wants a session token, and gives none: %w", err, noToken),
		"if a network of containers lies in between, raise the instance's metadata hop limit")
}

func (e ec2) Available(ctx context.Context) error {
	if err := checkURL(e.base); err != nil {
		return never{err}
	}
	s, noToken := e.session(ctx)
	return wantsToken(s.Available(ctx), noToken)
}

func (e ec2) UserData(ctx context.Context) ([]byte, error) {
	s, noToken := e.session(ctx)
	data, err := s.get(ctx, ec2Version+"/user-data")
	return data, wantsToken(err, noToken)
}

func (e ec2) Metadata(ctx context.Context) (Metadata, error) {
	s, noToken := e.session(ctx)
	m, err := ec2Metadata(ctx, s)
	return m, wantsToken(err, noToken)
}

func ec2Metadata(ctx context.Context, s service) (m Metadata, err error) {
	const dir = ec2Version + "/meta-data/"
	if m.SSHKeys, err = ec2Keys(ctx, s, dir+"public-keys"); err != nil {
		return Metadata{}, err
	}
	hostname, err := s.text(ctx, dir+"hostname")
	if err != nil {
		return Metadata{}, err
	}
	if names := strings.Fields(hostname); len(names) > 0 { // with several domains there are several
		m.Hostname = names[0]
	}
	err = fill(ctx, s.address, map[string]*string{
		dir + "local-ipv4":  &m.PrivateIPv4,
		dir + "public-ipv4": &m.PublicIPv4,
	})
	return m, err
}

// ec2Keys reads the list of keys ("0=NAME", one a line) and each key.
func ec2Keys(ctx context.Context, s service, dir string) (map[string]string, error) {
	list, err := s.text(ctx, dir)
	if err != nil || list == "" {
		return nil, err
	}
	keys := make(map[string]string)
	for line := range strings.Lines(list) {
		number, name, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || number == "" || strings.Trim(number, "0123456789") != "" {
			return nil, fmt.Errorf("%s%s: %q is no NUMBER=NAME of a key", s.Name(), dir, shorten(strings.TrimSpace(line)))
		}
		key, err := s.text(ctx, dir+"/"+number+"/openssh-key")
		if err != nil {
			return nil, err
		}
		if key != "" {
			keys[name] = key
		}
	}
	return keys, nil
}
