package model

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"flotilla/internal/unitfile"
)

// ParseRequirements reads what the [X-Fleet] section of the unit of that name asks
// for, specifiers expanded from the name. The problems are all that is wrong with
// the section, malformed values first, then combinations that cannot be had; the
// requirements are of use only if there are none. The notices are about what works
// and should be written otherwise.
func ParseRequirements(name string, f unitfile.File) (req Requirements, notices []string, problems []unitfile.Problem) {
	req = requirements(name, f)
	for _, n := range unitfile.Notices(f) {
		notices = append(notices, n.String())
	}
	problems = unitfile.CheckFleet(name, f)
	return req, notices, append(problems, combinations(name, f, req)...)
}

// Check says everything that keeps a unit from being accepted: what unitfile.Check
// finds, then requirements that cannot be had together.
func Check(name string, f unitfile.File) []unitfile.Problem {
	return append(unitfile.Check(name, f), combinations(name, f, requirements(name, f))...)
}

// requirements reads [X-Fleet] as far as it can be read.
func requirements(name string, f unitfile.File) (req Requirements) {
	expanded := func(option string) []string {
		values := f.Fleet(option)
		for i, v := range values {
			values[i] = unitfile.ExpandFleet(v, name)
		}
		return values
	}
	if ids := expanded(unitfile.MachineID); len(ids) > 0 {
		req.MachineID = ids[0]
	}
	req.MachineOf = expanded(unitfile.MachineOf)
	req.Conflicts = expanded(unitfile.Conflicts)
	req.Replaces = expanded(unitfile.Replaces)
	req.Metadata = groupMetadata(expanded(unitfile.MachineMetadata))
	last := func(option string) string {
		if v := expanded(option); len(v) > 0 {
			return v[len(v)-1]
		}
		return ""
	}
	req.Global = unitfile.IsTrue(last(unitfile.Global))
	req.Singleton = unitfile.IsTrue(last(unitfile.Singleton))
	req.Triggers = impliedPeer(name, f, req)
	req.Prefers = expanded(unitfile.Prefers)
	req.SpreadKey = last(unitfile.Spread)
	req.Pack = last(unitfile.Strategy) == "pack"
	req.MoveAfter = moveAfter(last(unitfile.MoveAfter))
	req.MaxRunning, _ = unitfile.ParseCount(last(unitfile.MaxRunning))
	req.Cores, req.Memory = resources(f, last)
	req.Roll = rollPolicy(last)
	return req
}

// moveAfter is 0 for what is not said or is no time span. A span of 0, which is to move at
// once, is the shortest that there is.
func moveAfter(s string) time.Duration {
	d, err := unitfile.ParseMoveAfter(s)
	if err == nil && d == 0 {
		return 1
	}
	return d
}

// resources is what the unit asks for: by [X-Fleet], else by what systemd will hold
// it to.
func resources(f unitfile.File, last func(string) string) (cores, memory int64) {
	cores, _ = unitfile.ParseCores(last(unitfile.Cores))
	if v, ok := f.Get("Service", "CPUQuota"); ok && cores == 0 {
		cores, _ = unitfile.ParseQuota(v)
	}
	memory = parseMemory(last(unitfile.Memory))
	for _, option := range []string{"MemoryMax", "MemoryHigh"} {
		if v, ok := f.Get("Service", option); ok && memory == 0 {
			memory = parseMemory(unitfile.Unfold(v))
		}
	}
	return cores, memory
}

// maxMemory is more than any machine has, and little enough that what thousands of
// units ask for can be added up.
const maxMemory = 1 << 50

// parseMemory is 0 for what is no size, or without bound.
func parseMemory(s string) int64 {
	n, err := unitfile.ParseBytes(s)
	if err != nil || n > math.MaxInt64 {
		return 0
	}
	return int64(min(n, maxMemory))
}

func rollPolicy(last func(string) string) RollPolicy {
	p := RollPolicy{HealthCheck: last(unitfile.HealthCheck)}
	p.MaxUnavailable, _ = unitfile.ParseCount(last(unitfile.MaxUnavailable))
	p.MaxUnavailable = max(1, p.MaxUnavailable)
	p.HealthyAfter = spanOr(last(unitfile.HealthyAfter), DefaultHealthyAfter)
	p.HealthyTimeout = spanOr(last(unitfile.HealthyTimeout), DefaultHealthyTimeout)
	return p
}

func spanOr(s string, otherwise time.Duration) time.Duration {
	if d, err := unitfile.ParseSpan(s); err == nil {
		return min(d, endless)
	}
	return otherwise
}

// groupMetadata groups key=value by key; nil for none. What is not key=value is
// left out: CheckFleet has refused it.
func groupMetadata(values []string) map[string][]string {
	var grouped map[string][]string
	for _, v := range values {
		key, value, ok := unitfile.CutMetadata(v)
		if !ok {
			continue
		}
		if grouped == nil {
			grouped = make(map[string][]string)
		}
		grouped[key] = append(grouped[key], value)
	}
	return grouped
}

// combinations says which requirements cannot be had together, in the order and
// words of the original; those with options that it did not have are ours.
func combinations(name string, f unitfile.File, req Requirements) []unitfile.Problem {
	var problems []unitfile.Problem
	refuse := func(when bool, option, format string, args ...any) {
		if when {
			p := f.FleetAt(option)
			p.Msg = fmt.Sprintf(format, args...)
			problems = append(problems, p)
		}
	}
	peer, glob, found := firstMatch(req.Conflicts, req.MachineOf)
	refuse(found, unitfile.Conflicts, "unresolvable requirements: peer %q matches conflict %q", peer, glob)
	peer, glob, found = firstMatch(req.Replaces, req.MachineOf)
	refuse(found, unitfile.Replaces, "unresolvable requirements: peer %q matches replace %q", peer, glob)

	id, peers := req.MachineID != "", len(req.MachineOf) > 0
	conflicts, replaces := len(req.Conflicts) > 0, len(req.Replaces) > 0
	refuse(id && peers, unitfile.MachineOf, "MachineID cannot be used with Peers")
	refuse(id && conflicts, unitfile.Conflicts, "MachineID cannot be used with Conflicts")
	refuse(id && req.Global, unitfile.Global, "MachineID cannot be used with Global")
	refuse(id && replaces, unitfile.Replaces, "MachineID cannot be used with Replaces")
	refuse(req.Global && peers, unitfile.MachineOf, "Global cannot be used with Peers")
	refuse(req.Global && replaces, unitfile.Replaces, "Global cannot be used with Replaces")
	refuse(conflicts && replaces, unitfile.Replaces, "Conflicts cannot be used with Replaces")
	refuse(req.Global && req.Singleton, unitfile.Singleton, "Singleton cannot be used with Global")
	refuse(req.MaxRunning > 0 && !req.Global, unitfile.MaxRunning, "MaxRunning is for Global units")

	_, glob, found = firstMatch(req.Conflicts, []string{name})
	refuse(req.Global && found, unitfile.Conflicts,
		"Global cannot be used with Conflicts of itself: %q matches %q", glob, name)
	refuse(slices.Contains(req.MachineOf, name), unitfile.MachineOf,
		"MachineOf names the unit itself: %q", name)
	return problems
}

// firstMatch returns the first name that one of the globs matches, with the glob.
func firstMatch(globs, names []string) (name, glob string, found bool) {
	for _, n := range names {
		for _, g := range globs {
			if MatchGlob(g, n) {
				return n, g, true
			}
		}
	}
	return "", "", false
}

// MatchGlob reports whether a glob of Conflicts or Replaces matches a unit name,
// as path.Match does; a malformed one matches nothing. What systemd-escape(1) has made
// (\x2d) is as it is in the name.
func MatchGlob(glob, name string) bool {
	meta := strings.IndexAny(glob, `*?[\`)
	switch {
	case meta < 0:
		return glob == name
	case !strings.HasPrefix(name, glob[:meta]):
		return false
	case glob[meta:] == "*":
		return !strings.Contains(name[meta:], "/")
	}
	ok, err := path.Match(strings.ReplaceAll(glob, `\x`, `\\x`), name)
	return ok && err == nil
}

// MatchMachine reports whether a MachineID requirement means the machine of that
// id: the whole id or its first 8 digits.
func MatchMachine(want, id string) bool {
	return want == id || len(want) == 8 && want == ShortID(id)
}

// NewUnit reads a unit as it is in the store. It never fails: what is in the store
// is untrusted, and what is wrong with it is told in Bad. Text becomes canonical
// if it can be parsed at all.
func NewUnit(name, text string, desired State, gen int64) Unit {
	u := Unit{Name: name, Text: text, Hash: unitfile.HashText(text), Desired: desired, Gen: gen}
	b, err := unitfile.ParseBundle(text)
	if err != nil {
		u.Bad = strings.ReplaceAll(err.Error(), "\n", "; ")
		return u
	}
	f := b.Effective()
	f.Strays = nil // of a text from before they were refused: systemd reads past them
	u.Text = b.String()
	u.Hash = unitfile.HashText(u.Text)
	u.Req = requirements(name, f)
	u.Bad = whyBad(u, f)
	return u
}

// whyBad says why a unit whose text can be parsed cannot be used; "" if it can.
func whyBad(u Unit, f unitfile.File) string {
	switch {
	case u.Desired < Inactive || u.Desired > Launched:
		return fmt.Sprintf("unknown desired state %v", u.Desired)
	case u.Desired != Inactive && unitfile.IsTemplate(u.Name):
		return fmt.Sprintf("cannot activate template %q", u.Name)
	}
	var msgs []string
	for _, p := range Check(u.Name, f) {
		msgs = append(msgs, p.Msg)
	}
	return strings.Join(msgs, "; ")
}
