// Command flotilla is every program of the project in one binary: a link name or
// the first argument picks one.
package main

import (
	"slices"

	"flotilla/cmd/flotilla/early"
	"flotilla/cmd/flotilla/early/agent"
	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/kv/discovery"
	"flotilla/internal/kv/etcdcmd"
	"flotilla/internal/kv/etcdctl"
	"flotilla/internal/lab"
	"flotilla/internal/supervisor"
	"flotilla/internal/up"
)

// programs are all there is; two have been run by now if they are called for.
var programs = slices.Concat(
	applet.Table{up.Applet(), lab.Applet(), etcdcmd.Applet(), etcdctl.Applet(), discovery.Applet()},
	agent.Programs, early.Programs,
	applet.Table{cli.Completion(), supervisor.Applet()},
)

func main() { programs.Exec() }
