// Package bootstrap is a member's side of a discovery token: it turns the token's
// URL into the initial cluster before the engine starts.
//
// A token is a directory of an etcd v2 key space, reached at its URL: directly
// (http://HOST:2379/v2/keys/_etcd/registry/TOKEN) or through a discovery service. A
// member writes an entry there, named by the id that it will have, and waits until
// there are as many entries as _config/size says. The first of them, by the order
// in which they were created, are the cluster; whoever comes later is told that it
// is full.
//
// Decide is the decision in each of these steps; Token does the talking; Join
// leads a new member through.
package bootstrap
