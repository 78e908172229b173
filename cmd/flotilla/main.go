// Command flotilla is every program of the project in one binary: a link name or
// the first argument picks one.
package main

import (
	"flotilla/cmd/flotilla/early"
	"flotilla/internal/applet"
	"flotilla/internal/fleet/fleetd"
	"flotilla/internal/kv/etcdcmd"
	"flotilla/internal/kv/etcdctl"
	"flotilla/internal/lab"
	"flotilla/internal/supervisor"
	"flotilla/internal/up"
)

var programs = append(applet.Table{
	up.Applet(),
	lab.Applet(),
	etcdcmd.Applet(),
	etcdctl.Applet(),
	fleetd.Applet(),
}, append(early.Programs, supervisor.Applet())...)

func main() { programs.Exec() }
