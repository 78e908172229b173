// Package fleetctl is the command line of fleet.
//
// What a command prints on standard output, its tables and its sentences, are
// those of fleet 1.0; so are the names of flags and variables. Three things are
// not: usage errors exit 2, "start" waits for the unit itself and says why it does
// not come, and every listing can be had as JSON.
//
// How a command that acts is put together:
//
//	args.go     arguments: command prefixes, braces, globs
//	find.go     where a unit's text comes from, and what is wrong with it
//	picture.go  what the cluster looks like, kept by watching (observe.go)
//	judge.go    pure: is this unit where it was asked to be, or will it never be
//	wait.go     the loop around judge, and what it says meanwhile
//	act.go      start, stop and their like
//
// Beside it: bundle.go reads files with their drop-ins for apply.go, which follows
// what it has asked for as act.go does; rolls.go and history.go look at changes,
// operate.go moves units and machines, streams.go and live.go print what goes on,
// doctor.go judges the whole. tunnel.go, ssh.go and byssh.go reach machines by SSH.
package fleetctl
