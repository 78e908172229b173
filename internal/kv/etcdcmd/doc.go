// Package etcdcmd is the program "etcd": a member of the store on the command line,
// with etcd's own flags, environment variables and configuration file, and the
// four flags of etcd 0.4 that cloud-config documents of that time use.
package etcdcmd
