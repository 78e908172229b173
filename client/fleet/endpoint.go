package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"
	"time"
)

// DefaultEndpoint is where the fleet daemon of this machine listens.
const DefaultEndpoint = "unix:///run/fleet.sock"

// target is an endpoint taken apart: how to dial, and what requests begin with.
type target struct {
	name   string // the endpoint as given, for messages
	base   string // scheme://host/path without a slash at the end
	socket string // path of a unix socket, "" for TCP
}

// parseEndpoint accepts the schemes http, https, unix and file; the last two mean
// a unix socket and have no host part.
func parseEndpoint(endpoint string) (target, error) {
	if endpoint == "" {
		endpoint = DefaultEndpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return target{}, fmt.Errorf("endpoint %q: %w", endpoint, err)
	}
	t := target{name: endpoint}
	switch u.Scheme {
	case "":
		return target{}, fmt.Errorf("endpoint %q: URL scheme undefined", endpoint)
	case "unix", "file":
		return t.unix(u)
	case "http", "https":
		if u.Host == "" {
			return target{}, fmt.Errorf("endpoint %q: no host", endpoint)
		}
		t.base = u.Scheme + "://" + u.Host + strings.TrimRight(u.Path, "/")
		return t, nil
	}
	return target{}, fmt.Errorf("endpoint %q: scheme %q is not one of http, https, unix, file", endpoint, u.Scheme)
}

func (t target) unix(u *url.URL) (target, error) {
	if u.Host != "" {
		return target{}, fmt.Errorf("endpoint %q: unable to connect to host %q with scheme %q", t.name, u.Host, u.Scheme)
	}
	if !path.IsAbs(u.Path) {
		return target{}, fmt.Errorf("endpoint %q: the socket's path must be absolute", t.name)
	}
	// The host is never looked up; a server sees it in the Host header only.
	t.base, t.socket = "http://fleet.sock", u.Path
	return t, nil
}

// dial connects to the socket, or over TCP to the address that net/http worked
// out from the URL; by way of from, if that is given.
func (t target) dial(from func(context.Context, string, string) (net.Conn, error), timeout time.Duration) func(context.Context, string, string) (net.Conn, error) {
	if from == nil {
		from = (&net.Dialer{Timeout: timeout}).DialContext
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if t.socket != "" {
			network, addr = "unix", t.socket
		}
		return from(ctx, network, addr)
	}
}

// errWait is the cause that ends a request which took longer than allowed.
var errWait = errors.New("no answer in time")
