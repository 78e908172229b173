// Package proxy serves the store's API on a machine that is no member.
//
// Reads and watches of the v2 API are answered by a gateway of its own (package
// mvcc), which follows the members: they cost a member nothing, and go on, with
// what is known, while no member can be reached. Everything else is passed on to a
// member that answers: writes, reads with quorum=true, members, statistics,
// health, users. After a write the gateway waits until it has seen it, so that a client
// of the proxy reads what it wrote. v3 calls are passed on one by one, over
// connections that the proxy holds to all members, and only to those whose health
// check says that they serve.
//
// The proxy asks the members now and then who they are, and whenever one fails,
// and keeps the peer URLs in DATA/proxy/cluster, where a later start finds them
// before it looks at flags.
//
// While users and passwords count (/v2/auth/enable), a proxy with a user of its own,
// which has the role root, judges the credentials of reads as a member does; a
// client's certificate counts for nothing here. Without one, members answer all reads,
// too: credentials are passed on as they come. That the switch is turned on it hears by a
// watch, and then ends its own watches; that it is turned off by asking a member every
// second. v3 calls carry their own credentials.
//
// Towards members the proxy shows the certificate that it shows its clients, or the
// one for peers if it has no other, as etcd's proxy did.
//
// What happens when a member dies: reads and watches go on. A write that had been
// sent to that member fails with 502, since it may have been done; later ones go to
// other members. A member that says nothing (frozen, or cut off) costs a read half a
// second, after which another is asked as well, and a write a second: a member that
// has been quiet is asked whether it is there before it gets one. A v3 call that had begun there fails with Unavailable, which
// clients answer by doing it again, where that is harmless.
package proxy
