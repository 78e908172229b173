// Package etcdctl is the program "etcdctl": the v2 command line, with the flags,
// output forms and exit codes of the classic one, which scripts depend on.
//
// What is better than the classic one: endpoints may do without a scheme, global
// flags may also follow the command, an unknown command names the nearest, and a
// store that is away is reported with what was tried and for how long.
package etcdctl
