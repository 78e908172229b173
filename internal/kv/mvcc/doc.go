// Package mvcc is a gateway from the v2 keys API to an etcd v3 store: it keeps
// the v2 tree in memory, fed by one watch, and carries out what package v2 has planned
// as guarded transactions.
//
// Any number of gateways may work on one store, inside its members or beside them.
// Each answers a write after it has seen the write's own revision come back on its
// watch, so that a client which stays with one gateway reads what it wrote. An
// error, and a read with quorum=true, is answered after the gateway has caught up with
// the revision that a quorum of the store's members confirms.
package mvcc
