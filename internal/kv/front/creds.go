package front

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// finished is gRPC's side of a TLS handshake that the front has done: it tells the
// gRPC server who the client is, which the engine's authentication by certificate
// asks for.
type finished struct{}

// Credentials are what a gRPC server behind a front is given with grpc.Creds.
func Credentials() credentials.TransportCredentials { return finished{} }

var _ credentials.TransportCredentials = finished{}

// ServerHandshake returns the connection as it is, with what TLS knows about it.
func (finished) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	inner := conn
	if r, ok := conn.(*replay); ok {
		inner = r.Conn
	}
	if c, ok := inner.(*tls.Conn); ok {
		return conn, credentials.TLSInfo{
			State:          c.ConnectionState(),
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}, nil
	}
	return conn, nil, nil
}

// ClientHandshake fails: these are a server's credentials.
func (finished) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("credentials of a server")
}

func (finished) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "front"}
}

func (finished) Clone() credentials.TransportCredentials { return finished{} }

func (finished) OverrideServerName(string) error { return nil }
