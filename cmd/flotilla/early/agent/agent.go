// Package agent runs fleetd before the store that the same binary holds has been
// initialised; package early says how.
package agent

import (
	"flotilla/internal/applet"
	"flotilla/internal/fleet/fleetd"
)

// Programs are those that are run early. The table of all programs has them too.
var Programs = applet.Table{fleetd.Applet()}

func init() { Programs.ExecNamed() }
