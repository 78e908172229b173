// Package programs is the table of all programs that the binary holds. What describes
// them (manuals, completion, packages) reads the same table.
package programs

import (
	"slices"

	"flotilla/cmd/flotilla/early"
	"flotilla/cmd/flotilla/early/agent"
	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/cloudinit/cloudinitcmd"
	"flotilla/internal/kv/discovery"
	"flotilla/internal/kv/etcdcmd"
	"flotilla/internal/kv/etcdctl"
	"flotilla/internal/lab"
	"flotilla/internal/reboot/locksmithctl"
	"flotilla/internal/reboot/locksmithd"
	"flotilla/internal/supervisor"
	"flotilla/internal/up"
)

// All are all there is, in the order of the overview.
var All = slices.Concat(
	applet.Table{up.Applet(), lab.Applet(), cloudinitcmd.Applet(), locksmithd.Applet(), locksmithctl.Applet(),
		etcdcmd.Applet(), etcdctl.Applet(), discovery.Applet()},
	agent.Programs, early.Programs,
	applet.Table{cli.Completion(), supervisor.Applet()},
)
