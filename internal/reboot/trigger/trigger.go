// Package trigger finds out whether the machine wants to reboot, and why: what is
// known (Facts) and what follows of it (Decide) are pure, Watcher is where it is learned.
//
//	who says so              how
//	update engine            D-Bus: its status, and its StatusUpdate signal
//	/run/reboot-required     Debian's packages touch it and name themselves in .pkgs
//	needs-restarting -r      Fedora's dnf compares what is installed with what runs
//	locksmithctl             send-need-reboot, in the update engine's name; kept in a file
package trigger

import (
	"fmt"
	"slices"
	"strings"

	"flotilla/internal/systemd/updateengine"
)

// Need is the wish to reboot. The zero value is none.
type Need struct {
	Source Source
	Why    string // for people, one line; never empty in a wish
}

// Wanted says whether it is a wish.
func (n Need) Wanted() bool { return n.Source != "" }

// Source is who says that a reboot is needed.
type Source string

// The sources, those that know most first.
const (
	Asked    Source = "locksmithctl"
	Engine   Source = "update engine"
	Required Source = "reboot-required"
	Restart  Source = "needs-restarting"
)

// Facts is what the sources say. The zero value says nothing.
type Facts struct {
	// Asked is whether somebody has asked with locksmithctl, AskedWhy the words.
	Asked    bool
	AskedWhy string
	Engine   updateengine.Status // as it was last heard
	// Required is whether the file is there, Packages who wants it.
	Required bool
	Packages []string
	// Restart is whether needs-restarting says so, Updated what it names.
	Restart bool
	Updated []string
}

// Decide says whether a reboot is needed. Of several reasons the first source's counts.
func Decide(f Facts) Need {
	switch {
	case f.Asked:
		return Need{Asked, orElse(f.AskedWhy, "somebody has asked for it with locksmithctl")}
	case f.Engine.Operation == updateengine.NeedReboot:
		return Need{Engine, strings.TrimSpace("the update engine has installed " + orElse(f.Engine.NewVersion, "an update"))}
	case f.Required:
		return Need{Required, updated(f.Packages)}
	case f.Restart:
		return Need{Restart, updated(f.Updated)}
	}
	return Need{}
}

func orElse(s, otherwise string) string {
	if s = strings.Join(strings.Fields(s), " "); s != "" {
		return s
	}
	return otherwise
}

// named is how many packages are named in a reason.
const named = 5

// updated says that these packages have been updated.
func updated(packages []string) string {
	if len(packages) == 0 {
		return "updated packages need it"
	}
	list := packages
	more := ""
	if len(list) > named {
		list, more = list[:named], fmt.Sprintf(" and %d more", len(list)-named)
	}
	return "updated: " + strings.Join(list, ", ") + more
}

// parsePackages reads reboot-required.pkgs: a name a line, and often one of them
// several times.
func parsePackages(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if name := strings.TrimSpace(line); name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// parseNeedsRestarting reads what "needs-restarting -r" has printed in the C locale
// and its exit status: 1 is "reboot", and also what a dnf says that does not know the
// command, so that the words have to say it too.
func parseNeedsRestarting(exit int, out string) (need bool, packages []string, err error) {
	switch {
	case exit == 0:
		return false, nil, nil
	case exit == 1 && strings.Contains(out, "Reboot is required"):
		for line := range strings.Lines(out) {
			if rest, ok := strings.CutPrefix(line, "  "); ok {
				name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(rest), "* "), " ")
				packages = append(packages, name)
			}
		}
		return true, slices.DeleteFunc(packages, func(s string) bool { return s == "" }), nil
	}
	first, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return false, nil, fmt.Errorf("it ended with status %d: %s", exit, orElse(first, "without a word"))
}
