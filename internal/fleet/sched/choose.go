package sched

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"flotilla/internal/unitfile"
)

// rating is how well a machine suits a unit, criterion by criterion; less is better.
type rating struct {
	prefers int // what it has of Prefers, negative
	spread  int // instances in its part of the cluster
	apart   int // instances on it
	load    [2]float64
}

func (a rating) compare(b rating) int {
	return cmp.Or(a.compareSoft(b), a.compareLoad(b))
}

func (a rating) compareSoft(b rating) int {
	return cmp.Or(cmp.Compare(a.prefers, b.prefers), cmp.Compare(a.spread, b.spread), cmp.Compare(a.apart, b.apart))
}

func (a rating) compareLoad(b rating) int {
	return cmp.Or(cmp.Compare(a.load[0], b.load[0]), cmp.Compare(a.load[1], b.load[1]))
}

// taste is what makes j like one machine more than another, all that fit.
type taste struct {
	j       *job
	prefers [][2]string
	spread  map[string]int // instances, by value of SpreadKey
	group   *group         // whose instances are kept apart; nil: none
}

func tasteOf(j *job) taste {
	t := taste{j: j}
	for _, p := range j.Req.Prefers {
		if key, value, ok := unitfile.CutMetadata(p); ok {
			t.prefers = append(t.prefers, [2]string{key, value})
		}
	}
	if j.group == nil || len(j.group.on) == 0 {
		return t
	}
	if !j.Req.Pack {
		t.group = j.group
	}
	if j.Req.SpreadKey != "" {
		t.spread = j.group.by(j.Req.SpreadKey)
	}
	return t
}

// soft reports whether anything but load matters.
func (t taste) soft() bool {
	return len(t.prefers) > 0 || t.group != nil || t.j.group != nil && t.j.Req.SpreadKey != ""
}

// rate rates m for the unit.
func (t taste) rate(m *machine) (r rating) {
	for _, p := range t.prefers {
		if m.Metadata[p[0]] == p[1] {
			r.prefers--
		}
	}
	if key := t.j.Req.SpreadKey; key != "" && t.j.group != nil {
		r.spread = math.MaxInt
		if value, ok := m.Metadata[key]; ok {
			r.spread = t.spread[value]
		}
	}
	if t.group != nil {
		r.apart = t.group.on[m]
	}
	r.load = [2]float64{float64(m.load()), m.share(t.j)}
	if t.j.asks() != (amount{}) {
		slices.Reverse(r.load[:])
	}
	if t.j.Req.Pack {
		r.load = [2]float64{-r.load[0], -r.load[1]}
	}
	return r
}

// choice is a machine for a unit, and why it is this one.
type choice struct {
	m   *machine // nil: none fits
	why string
	// blocked is set when none fits, and one will when another unit has left.
	blocked bool
}

// choose returns the machine that j goes to: one that it is leaving if it fits
// again, else one that runs it already, else the one that suits it best of those
// that fit.
func (p *pass) choose(j *job) choice {
	for _, e := range j.entries {
		if e.fate == leaves && e.on.present && p.refuses(e.on, j, true).kind == fits {
			return choice{m: e.on}
		}
	}
	if m := p.runsAlready(j); m != nil {
		return choice{m: m, why: "it runs there already"}
	}
	to := p.best(j, func(m *machine, j *job) refusal { return p.refuses(m, j, true) })
	if t := p.triggered(j); t != nil && to.m != nil {
		to.why = "with " + t.Name + ", which it triggers"
	}
	return to
}

// best returns the machine that suits j best of those that are not refused.
func (p *pass) best(j *job, refuses func(*machine, *job) refusal) choice {
	t := tasteOf(j)
	soft := t.soft()
	if !soft && !j.Req.Pack && j.asks() == (amount{}) && len(j.entries) == 0 {
		return p.emptiest(t, refuses)
	}
	var best, light *machine // light would be it if nothing but load mattered
	var bestRating, lightRating rating
	var blocked bool
	for _, m := range p.present {
		r := t.rate(m)
		better := best == nil || r.compare(bestRating) < 0
		lighter := soft && (light == nil || r.compareLoad(lightRating) < 0)
		if !better && !lighter {
			continue
		}
		no := refuses(m, j)
		blocked = blocked || no.passes()
		if no.kind != fits {
			continue
		}
		if better {
			best, bestRating = m, r
		}
		if lighter {
			light, lightRating = m, r
		}
	}
	if best == nil {
		return choice{blocked: blocked}
	}
	return choice{m: best, why: t.why(best, bestRating, lightRating)}
}

// emptiest is best for a unit that is nowhere and to which nothing but load matters.
func (p *pass) emptiest(t taste, refuses func(*machine, *job) refusal) choice {
	var blocked bool
	for _, rung := range p.ladder.rungs {
		for _, m := range rung {
			no := refuses(m, t.j)
			if no.kind == fits {
				return choice{m: m, why: t.why(m, rating{}, rating{})}
			}
			blocked = blocked || no.passes()
		}
	}
	return choice{blocked: blocked}
}

// why says what spoke for m in the first place, given the rating of the machine that
// load alone would have chosen.
func (t taste) why(m *machine, r, light rating) string {
	load := t.loadText(m)
	switch {
	case r.prefers < light.prefers:
		return fmt.Sprintf("most of what it prefers (%s), then %s", strings.Join(t.had(m), ", "), load)
	case r.spread < light.spread:
		key := t.j.Req.SpreadKey
		return fmt.Sprintf("fewest instances in %s=%s (%d), then %s", key, m.Metadata[key], r.spread, load)
	case r.apart < light.apart:
		return fmt.Sprintf("fewest instances of %s (%d), then %s", t.group.name, r.apart, load)
	}
	return load + " of the machines that fit"
}

// had is what m has of what the unit prefers.
func (t taste) had(m *machine) (had []string) {
	for _, p := range t.prefers {
		if m.Metadata[p[0]] == p[1] {
			had = append(had, p[0]+"="+p[1])
		}
	}
	return had
}

func (t taste) loadText(m *machine) string {
	room := t.j.asks() != (amount{}) && m.share(t.j) > 0
	switch {
	case room && t.j.Req.Pack:
		return "least room (" + m.shareText(t.j) + ")"
	case room:
		return "most room (" + m.shareText(t.j) + ")"
	case t.j.Req.Pack:
		return fmt.Sprintf("most units (%d)", m.load())
	}
	return fmt.Sprintf("fewest units (%d)", m.load())
}

// group is the instances of a template.
type group struct {
	name string
	jobs int
	on   map[*machine]int // how many stay there
}

// by counts the instances on present machines by a key of metadata.
func (g *group) by(key string) map[string]int {
	counts := map[string]int{}
	for m, n := range g.on {
		if value, ok := m.Metadata[key]; ok && m.present {
			counts[value] += n
		}
	}
	return counts
}
