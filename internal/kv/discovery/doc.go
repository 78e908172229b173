// Package discovery is the service at which the members of a new cluster find each
// other, and its program "discovery".
//
// A token is a directory below /_etcd/registry in an etcd v2 key space. Under
// _config/size it says how many members the cluster is to have; each member adds
// an entry, its id and its peer URLs, and waits until there are enough. The
// service makes tokens (/new) and passes what members do with them on to the key
// space, as the public service for etcd did, so that etcd 2.x and 3.x members can
// use it as well as ours:
//
//	any  /new[?size=N]         200, the token's URL, without a newline
//	     /TOKEN                GET, PUT    the directory
//	     /TOKEN/ID             GET, PUT, DELETE    a member's entry
//	     /TOKEN/_config/size   GET
//	any  /health               OK, after making and removing a token
//
// Whoever knows a token's URL may read and change it. Whoever reaches the service
// may make tokens, and Limits keeps that from filling a disk.
package discovery
