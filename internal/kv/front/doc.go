// Package front is the client side of a port of the store: it listens, does TLS,
// and tells the v2 API (HTTP/1) from the v3 API (gRPC) on one and the same address.
//
// Each connection that arrives is looked at once: one that opens with the HTTP/2
// preface is handed to the gRPC server, any other to the HTTP server, as the same
// connection; no byte is copied between sockets. With TLS the same happens after
// the handshake. The engine's own multiplexer is not used because it redirects
// paths that the v2 API has to see as they are.
//
// It knows nothing of members: a machine that only forwards uses it too.
package front
