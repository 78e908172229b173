// Command flotilla is every program of the project in one binary: a link name or
// the first argument picks one.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"flotilla/internal/applet"
	"flotilla/internal/fleet/fleetctl"
	"flotilla/internal/fleet/fleetd"
	"flotilla/internal/kv/discovery"
	"flotilla/internal/kv/etcdcmd"
	"flotilla/internal/kv/etcdctl"
	"flotilla/internal/lab"
	"flotilla/internal/supervisor"
	"flotilla/internal/up"
)

var programs = applet.Table{
	up.Applet(),
	lab.Applet(),
	etcdcmd.Applet(),
	etcdctl.Applet(),
	discovery.Applet(),
	fleetd.Applet(),
	fleetctl.Applet(),
	supervisor.Applet(),
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process the hard way.
	context.AfterFunc(ctx, stop)
	os.Exit(programs.Main(ctx, os.Args[0], applet.Env{
		Args:      os.Args[1:],
		Stdin:     os.Stdin,
		Stdout:    os.Stdout,
		Stderr:    os.Stderr,
		LookupEnv: os.LookupEnv,
	}))
}
