package registry

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// byEndpoint speaks TLS to https endpoints and plain text to the others. etcd's
// client does by all as it does by the first: with this machine's own member over
// the loopback first, and the others over https, it would never reach the others.
type byEndpoint struct {
	credentials.TransportCredentials // of the https endpoints
	secure                           map[string]bool
}

func credentialsOf(endpoints []string, cfg *tls.Config) byEndpoint {
	secure := map[string]bool{}
	for _, ep := range endpoints {
		if u, err := url.Parse(ep); err == nil && u.Scheme == "https" {
			secure[u.Host] = true
		}
	}
	return byEndpoint{TransportCredentials: credentials.NewTLS(cfg), secure: secure}
}

// ClientHandshake implements credentials.TransportCredentials. The authority is the
// endpoint's host and port.
func (c byEndpoint) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if !c.secure[authority] {
		return insecure.NewCredentials().ClientHandshake(ctx, authority, conn)
	}
	return c.TransportCredentials.ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (c byEndpoint) Clone() credentials.TransportCredentials {
	return byEndpoint{TransportCredentials: c.TransportCredentials.Clone(), secure: c.secure}
}
