package front

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
)

// connKey is where a request's context keeps what TLS knows about its client.
type connKey struct{}

// ConnContext is what an HTTP server behind a front is given as its ConnContext,
// for ShowTLS.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	r, ok := conn.(*replay)
	if !ok {
		return ctx
	}
	secure, ok := r.Conn.(*tls.Conn)
	if !ok {
		return ctx
	}
	state := secure.ConnectionState()
	return context.WithValue(ctx, connKey{}, &state)
}

// ShowTLS puts into each request what TLS knows about its client. The HTTP server
// cannot: the front has done the handshake.
func ShowTLS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(connKey{}).(*tls.ConnectionState); ok {
			r.TLS = state
		}
		next.ServeHTTP(w, r)
	})
}

// Plain reports whether a connection that a front has handed over is one without TLS.
func Plain(conn net.Conn) bool {
	r, ok := conn.(*replay)
	if !ok {
		return false
	}
	_, secure := r.Conn.(*tls.Conn)
	return !secure
}
