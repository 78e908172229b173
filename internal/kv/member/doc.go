// Package member is one member of the store: the etcd 3.7 engine in this process,
// and in front of it listeners of our own on which the v3 gRPC API and the v2 HTTP
// API share each port.
//
// The engine is started without client listeners: its clients come in through
// package front.
//
// Order of a start: check everything that can be checked without a change, bind
// the client addresses, start the engine, start the v2 gateway, serve. Order of a
// stop: refuse new connections, end watches, let what runs finish, stop the
// gateway, stop the engine.
package member
