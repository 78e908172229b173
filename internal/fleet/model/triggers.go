package model

import (
	"cmp"
	"strings"

	"flotilla/internal/unitfile"
)

// triggers says where units of a type name the unit that they start, and of which type
// it is when they do not: systemd.timer(5), systemd.path(5), systemd.socket(5) and
// systemd.automount(5), which names none.
var triggers = map[string]struct{ section, option, startsType string }{
	"timer":     {"Timer", "Unit", "service"},
	"path":      {"Path", "Unit", "service"},
	"socket":    {"Socket", "Service", "service"},
	"automount": {"", "", "mount"},
}

// IsTrigger reports whether a unit of that name is there to start another.
func IsTrigger(name string) bool {
	_, _, typ := unitfile.Split(name)
	_, ok := triggers[typ]
	return ok
}

// Triggered is the unit that the unit of that name is there to start; "" if it starts
// none, as a template: its instances do. A socket with Accept=yes starts instances that have no name yet, of a template
// that no machine can be given.
func Triggered(name string, f unitfile.File) string {
	prefix, _, typ := unitfile.Split(name)
	how, ok := triggers[typ]
	if !ok || prefix == "" || unitfile.IsTemplate(name) {
		return ""
	}
	if accept, _ := f.Get("Socket", "Accept"); typ == "socket" && unitfile.IsTrue(strings.TrimSpace(accept)) {
		return ""
	}
	named, _ := f.Get(how.section, how.option)
	starts := cmp.Or(unitfile.ExpandFleet(strings.TrimSpace(named), name), strings.TrimSuffix(name, typ)+how.startsType)
	if starts == name || unitfile.IsTemplate(starts) {
		return ""
	}
	return starts
}

// impliedPeer is the unit that the unit of that name has to be with because it starts it: an
// init system refuses to start a timer whose service it cannot find. What the unit
// says of its place goes before what follows from its type.
func impliedPeer(name string, f unitfile.File, req Requirements) string {
	starts := Triggered(name, f)
	_, _, conflicts := firstMatch(req.Conflicts, []string{starts})
	_, _, replaces := firstMatch(req.Replaces, []string{starts})
	if req.Global || conflicts || replaces {
		return ""
	}
	return starts
}
