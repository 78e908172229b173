// Package member is one member of the store: the etcd 3.7 engine in this process,
// and in front of it listeners of our own.
//
// The engine is started without any. Its clients come in through package front, on
// ports that the v3 gRPC API and the v2 HTTP API share; its peers through a port on
// which the member also says who and where it is (PeerPath).
//
// Order of a start: check everything that can be checked without a change, bind all
// addresses, answer clients with the reason why there is no store yet, start the
// engine, start the v2 gateway, serve. Order of a stop: refuse new connections, end
// watches, let what runs finish, stop the gateway, stop the engine.
//
// # The engine's lives
//
// The listeners live as long as the member, the engine may be stopped and started
// again behind them. A pause says why, and what is done meanwhile:
//
//   - the disk is nearly full: wait for room (room). An engine that cannot write ends
//     its process, holding locks that only the end of the process frees; so it is
//     stopped before;
//   - there is no leader and others were met at other addresses than on record: write
//     down where they are (scout, package whereabouts);
//   - the machine's own address has changed: advertise the new one;
//   - the cluster was recovered without this member: put the data aside and join anew
//     (Recover, rejoin).
//
// # The engine's file
//
// Compaction makes room in the engine's file, which never gets smaller by itself.
// Unless it is told not to, a member copies it when more than half of it is free and
// nobody will notice (defrag).
//
// What the engine cannot survive in one process it does not try to: the process ends
// with the reason, and the next one waits for the cause to go away before it starts
// an engine.
package member
