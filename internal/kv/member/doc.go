// Package member is one member of the store: the etcd 3.7 engine in this process,
// and in front of it listeners of our own on which the v3 gRPC API and the v2 HTTP
// API share each port.
//
// The engine is started without client listeners. Each connection that arrives is
// looked at once: one that opens with the HTTP/2 preface is handed to the gRPC
// server, any other to the HTTP server, as the same connection; no byte is copied
// between sockets. With TLS the same happens after the handshake. The engine's own
// HTTP front is not used because its multiplexer redirects paths that the v2 API
// has to see as they are.
//
// Order of a start: check everything that can be checked without a change, bind
// the client addresses, start the engine, start the v2 gateway, serve. Order of a
// stop: refuse new connections, end watches, let what runs finish, stop the
// gateway, stop the engine.
package member
