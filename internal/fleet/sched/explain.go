package sched

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"flotilla/internal/fleet/model"
)

// MachineVerdict says of one machine, rule by rule, what speaks for a unit there and
// what against.
type MachineVerdict struct {
	Machine string
	Here    bool // the unit is on it
	OK      bool // no hard rule is against it
	Rules   []Rule
}

// Rule is one rule applied to a unit and a machine.
type Rule struct {
	Rule string // what users call it: MachineMetadata, Memory, cordon, load
	OK   bool
	Soft bool // it makes one machine better than another, and keeps the unit from none
	Why  string
}

// Explain says of each machine what speaks for and against running a unit there, as
// things are: those that are present in order of id, then those that are away and
// have a part in the schedule. A rule that neither the unit nor the machine knows is
// left out. It is nil for a unit that does not exist.
func Explain(s Snapshot, unit string) []MachineVerdict {
	c := s.cluster()
	j := c.jobs[unit]
	if j == nil || !j.known {
		return nil
	}
	p := &pass{Cluster: c, Moment: s.Moment()}
	p.replacers = slices.SortedFunc(maps.Keys(p.replacing), older)
	var out []MachineVerdict
	for _, m := range append(slices.Clone(c.present), c.away...) {
		v := MachineVerdict{Machine: m.ID, OK: true, Here: j.on(m) != nil, Rules: p.rules(m, j)}
		for _, r := range v.Rules {
			v.OK = v.OK && (r.OK || r.Soft)
		}
		out = append(out, v)
	}
	return out
}

func (p *pass) rules(m *machine, j *job) []Rule {
	if !m.present {
		return []Rule{{Rule: "present", Why: "away for " + p.Now.Sub(p.since(m)).Truncate(time.Second).String()}}
	}
	rules := []Rule{{Rule: "present", OK: true, Why: "its lease is alive"}}
	if j.Bad != "" {
		rules = append(rules, Rule{Rule: "unit file", Why: j.Bad})
	}
	rules = append(rules, p.machineRules(m, j)...)
	rules = append(rules, p.companyRules(m, j)...)
	rules = append(rules, roomRules(m, j)...)
	if j.Req.Global {
		return rules
	}
	return append(rules, softRules(m, j)...)
}

// machineRules are those about the machine alone.
func (p *pass) machineRules(m *machine, j *job) (rules []Rule) {
	if m.Cordon != nil {
		r := Rule{Rule: "cordon", Why: strings.TrimSpace("is cordoned " + cordonText(m.Cordon))}
		if r.OK = j.on(m) != nil; r.OK {
			r.Why += "; the unit is there already"
		}
		rules = append(rules, r)
	}
	if id := j.Req.MachineID; id != "" {
		r := Rule{Rule: "MachineID", OK: model.MatchMachine(id, m.ID), Why: "is machine " + id}
		if !r.OK {
			r.Why = "is not machine " + id
		}
		rules = append(rules, r)
	}
	for _, key := range slices.Sorted(maps.Keys(j.Req.Metadata)) {
		want := map[string][]string{key: j.Req.Metadata[key]}
		r := Rule{Rule: "MachineMetadata", OK: true, Why: "has " + key + "=" + m.Metadata[key]}
		if no := lacking(m.Metadata, want); no != "" {
			r.OK, r.Why = false, "lacks "+no+hasInstead(m.Metadata, key)
		}
		rules = append(rules, r)
	}
	return rules
}

func hasInstead(have map[string]string, key string) string {
	if v, ok := have[key]; ok {
		return ": it has " + key + "=" + v
	}
	return ""
}

// companyRules are those about the other units on the machine.
func (p *pass) companyRules(m *machine, j *job) (rules []Rule) {
	for _, peer := range p.peers(j) {
		r := Rule{Rule: "MachineOf", OK: p.runs(m, peer, true), Why: "runs " + peer}
		if p.triggers(j, peer) {
			r.Rule = "triggers"
			r.Why += ", which it triggers"
		}
		if !r.OK {
			r.Why = "does not run " + peer + p.peerTrouble(j, peer)
		}
		rules = append(rules, r)
	}
	var foes, replacers []string
	m.each(func(e *entry) {
		name := e.job.Name
		if e.fate == leaves {
			name += " (leaving)"
		}
		if inConflict(j, e.job) {
			foes = append(foes, name)
		}
		if p.replaces(e.job, j) && e.fate != leaves {
			replacers = append(replacers, name)
		}
	})
	if len(foes) > 0 || len(j.Req.Conflicts) > 0 {
		r := Rule{Rule: "Conflicts", OK: len(foes) == 0, Why: "conflicts with nothing there"}
		if !r.OK {
			r.Why = "conflicts with " + strings.Join(foes, ", ")
		}
		rules = append(rules, r)
	}
	if len(replacers) > 0 {
		rules = append(rules, Rule{Rule: "Replaces", Why: "runs " + strings.Join(replacers, ", ") + ", which replaces it"})
	}
	return rules
}

// roomRules are those about resources.
func roomRules(m *machine, j *job) (rules []Rule) {
	asks, used := j.asks(), m.usedBeside(j)
	rule := func(name string, asked, used, size int64, text func(int64) string) {
		switch {
		case asked == 0:
		case size == 0:
			rules = append(rules, Rule{Rule: name, OK: true, Why: "needs " + text(asked) + "; the machine does not tell its size"})
		default:
			rules = append(rules, Rule{Rule: name, OK: used+asked <= size,
				Why: fmt.Sprintf("needs %s, %s of %s free", text(asked), text(max(0, size-used)), text(size))})
		}
	}
	rule("Cores", asks.cores, used.cores, m.Cores, coresText)
	rule("Memory", asks.memory, used.memory, m.Memory, bytesText)
	return rules
}

// softRules are those that make one machine better than another, the weightiest
// first; the unit itself does not count.
func softRules(m *machine, j *job) (rules []Rule) {
	if e := j.on(m); e != nil {
		e.exit()
		defer e.rest()
	}
	t := tasteOf(j)
	soft := func(name string, ok bool, format string, args ...any) {
		rules = append(rules, Rule{Rule: name, OK: ok, Soft: true, Why: fmt.Sprintf(format, args...)})
	}
	if n := len(t.prefers); n > 0 {
		had := t.had(m)
		soft("Prefers", len(had) == n, "has %s", cmp.Or(strings.Join(had, ", "), "nothing of it"))
	}
	if key := j.Req.SpreadKey; key != "" && j.group != nil {
		value, ok := m.Metadata[key]
		if ok {
			soft("Spread", true, "other instances in %s=%s: %d", key, value, t.spread[value])
		} else {
			soft("Spread", false, "lacks %s", key)
		}
	}
	if j.group != nil && !j.Req.Pack {
		soft("apart", j.group.on[m] == 0, "other instances of %s: %d", j.group.name, j.group.on[m])
	}
	load := fmt.Sprintf("other units: %d", m.load())
	if m.share(j) > 0 {
		load += "; " + m.shareText(j)
	}
	soft("load", true, "%s", load)
	return rules
}
