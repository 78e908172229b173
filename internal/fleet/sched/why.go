package sched

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"flotilla/internal/fleet/model"
)

// kind is a way in which a machine does not fit a unit.
type kind int

const (
	fits kind = iota
	otherMachine
	lacksMetadata
	cordoned
	withoutPeer
	conflicts
	conflictsLeaving
	replaced
	lacksRoom
	lacksRoomYet
)

// lasting reports whether only a change of the machine or of the unit can end it.
func (k kind) lasting() bool { return k <= cordoned }

// verbs are the words for a kind, for one machine and for several.
var verbs = [...][2]string{
	fits:             {"fits", "fit"},
	otherMachine:     {"is not machine", "are not machine"},
	lacksMetadata:    {"lacks metadata", "lack metadata"},
	cordoned:         {"is cordoned", "are cordoned"},
	withoutPeer:      {"does not run", "do not run"},
	conflicts:        {"conflicts with", "conflict with"},
	conflictsLeaving: {"conflicts for now with", "conflict for now with"},
	replaced:         {"runs", "run"},
	lacksRoom:        {"lacks room", "lack room"},
	lacksRoomYet:     {"lacks room until others have left", "lack room until others have left"},
}

// refusal is why a machine does not fit a unit; the zero value is that it does.
type refusal struct {
	kind  kind
	what  string // the object of the sentence
	has   string // for lacksRoom: what there is of what it needs
	other *job   // the unit in the way, for conflicts and replaced
}

// passes reports whether the machine will fit when another unit has left.
func (r refusal) passes() bool {
	return r.kind == lacksRoomYet || r.kind == conflictsLeaving && r.other.home() != nil
}

// String is the refusal as a sentence about one machine.
func (r refusal) String() string { return r.phrase(1) }

func (r refusal) phrase(machines int) string {
	verb := verbs[r.kind][min(machines, 2)-1]
	switch {
	case r.other != nil && r.kind == conflictsLeaving:
		return verb + " " + r.other.Name + ", which is leaving"
	case r.other != nil && r.kind == replaced:
		return verb + " " + r.other.Name + ", which replaces it"
	case r.other != nil:
		return verb + " " + r.other.Name
	case r.has != "":
		return verb + " (" + r.what + ", " + r.has + ")"
	case r.kind == lacksRoom || r.kind == lacksRoomYet:
		return verb + " (" + r.what + ")"
	case r.what != "":
		return verb + " " + r.what
	}
	return verb
}

// refuses says why m does not fit j. With arriving, what keeps new units from m is in
// the way as well: a cordon, units that are leaving, and want of room; without, j is
// there already and stays in spite of these.
func (p *pass) refuses(m *machine, j *job, arriving bool) refusal {
	if id := j.Req.MachineID; id != "" && !model.MatchMachine(id, m.ID) {
		return refusal{kind: otherMachine, what: id}
	}
	for key, values := range j.Req.Metadata {
		if v, ok := m.Metadata[key]; !ok || !slices.Contains(values, v) {
			return refusal{kind: lacksMetadata}
		}
	}
	if arriving && m.Cordon != nil && j.on(m) == nil {
		return refusal{kind: cordoned}
	}
	for _, peer := range p.peers(j) {
		if !p.runs(m, peer, arriving) {
			return refusal{kind: withoutPeer, what: peer}
		}
	}
	if m.prickly > 0 || len(j.Req.Conflicts) > 0 {
		if r := p.company(m, j, arriving); r.kind != fits {
			return r
		}
	}
	if arriving {
		return refusal{kind: m.room(j)}
	}
	return refusal{}
}

// company says which unit on m keeps j from being there.
func (p *pass) company(m *machine, j *job, arriving bool) refusal {
	for _, e := range m.here {
		switch {
		case inConflict(j, e.job):
			return refusal{kind: conflicts, other: e.job}
		case p.replaces(e.job, j):
			return refusal{kind: replaced, other: e.job}
		}
	}
	if !arriving {
		return refusal{}
	}
	for _, e := range m.leaving {
		if inConflict(j, e.job) {
			return refusal{kind: conflictsLeaving, other: e.job}
		}
	}
	return refusal{}
}

// worded is refuses with all that there is to say: most refusals only make the next
// machine be tried.
func (p *pass) worded(m *machine, j *job, arriving bool) refusal {
	r := p.refuses(m, j, arriving)
	switch r.kind {
	case lacksMetadata:
		r.what = lacking(m.Metadata, j.Req.Metadata)
	case cordoned:
		r.what = cordonText(m.Cordon)
	case withoutPeer:
		r.what += p.peerTrouble(j, r.what)
	case lacksRoom, lacksRoomYet:
		r.what, r.has = m.shortage(j)
	}
	return r
}

// lacking returns the first requirement, in order of keys, that have does not
// meet: "role=db or role=web"; "" if it meets all.
func lacking(have map[string]string, want map[string][]string) string {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if v, ok := have[key]; !ok || !slices.Contains(want[key], v) {
			return key + "=" + strings.Join(want[key], " or "+key+"=")
		}
	}
	return ""
}

// runs reports whether the unit of that name is on m to stay, or would go there
// together with the one in question. For one that is there already, a singleton that
// has yet to stop is still there.
func (p *pass) runs(m *machine, name string, arriving bool) bool {
	if p.together[name] {
		return true
	}
	t := p.jobs[name]
	if t == nil {
		return false
	}
	e := t.on(m)
	return e != nil && (e.fate == stays || e.fate == halts && !arriving)
}

// peerTrouble says what there is to say of a unit that j follows and that is not on a
// machine: that j triggers it, and why it is on no machine or out of reach; "" if it is
// simply elsewhere.
func (p *pass) peerTrouble(j *job, name string) string {
	var says []string
	if p.triggers(j, name) {
		says = append(says, "which it triggers")
	}
	if why := p.outOfReach(j, name); why != "" {
		says = append(says, why)
	}
	if len(says) == 0 {
		return ""
	}
	return ", " + strings.Join(says, " and ")
}

// outOfReach is why no machine that is present runs a unit that j follows; "" if one
// does.
func (p *pass) outOfReach(j *job, name string) string {
	t := p.jobs[name]
	switch {
	case t == nil || !t.known:
		return "which does not exist"
	case !t.wanted():
		return "which is inactive"
	case p.follows(t, j):
		return "which follows it in turn"
	}
	switch home := t.home(); {
	case home == nil:
		return "which is on no machine"
	case !home.on.present:
		return "whose machine " + model.ShortID(home.on.ID) + " is away"
	}
	return ""
}

// follows reports whether j is bound to other's machine through any number of
// MachineOf and of triggers.
func (p *pass) follows(j, other *job) bool {
	return reaches(j, other, func(x *job) []*job { return p.named(p.peers(x)) })
}

// inConflict reports whether one of two units keeps away from the other.
func inConflict(a, b *job) bool {
	if len(a.Req.Conflicts) == 0 && len(b.Req.Conflicts) == 0 || a == b {
		return false
	}
	return matchAny(a.Req.Conflicts, b.Name) || matchAny(b.Req.Conflicts, a.Name)
}

func matchAny(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(g string) bool { return model.MatchGlob(g, name) })
}

// replaces reports whether k pushes r off its machine.
func (p *pass) replaces(k, r *job) bool {
	if len(k.Req.Replaces) == 0 || !claims(k, r) {
		return false
	}
	return !reaches(r, k, func(x *job) []*job {
		if len(x.Req.Replaces) == 0 {
			return nil
		}
		var next []*job
		for _, y := range p.replacers {
			if claims(x, y) {
				next = append(next, y)
			}
		}
		return next
	})
}

// claims reports whether a glob of k's Replaces matches r.
func claims(k, r *job) bool { return k != r && k.wanted() && matchAny(k.Req.Replaces, r.Name) }

// reaches reports whether a path of at least one step leads from one job to
// another.
func reaches(from, to *job, next func(*job) []*job) bool {
	seen := map[*job]bool{}
	todo := next(from)
	for len(todo) > 0 {
		x := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if x == to {
			return true
		}
		if !seen[x] {
			seen[x] = true
			todo = append(todo, next(x)...)
		}
	}
	return false
}

// explain records why j is on no machine, or stays on one that is away.
func (p *pass) explain(j *job, note string) {
	j.told = true
	u := Unplaced{Unit: j.Name}
	refusals := make([]refusal, len(p.present))
	u.Verdicts = make([]Verdict, len(p.present))
	phrases := make(map[refusal]string) // machines refuse alike: one string for all
	for i, m := range p.present {
		r := p.worded(m, j, true)
		if phrases[r] == "" {
			phrases[r] = r.String()
		}
		refusals[i] = r
		u.Verdicts[i] = Verdict{Machine: m.ID, OK: r.kind == fits, Why: phrases[r]}
	}
	u.Why = count(refusals)
	if note != "" {
		u.Why = note + "; " + u.Why
	}
	p.unplaced = append(p.unplaced, u)
	lasts := func(r refusal) bool { return r.kind != fits && r.kind.lasting() }
	if len(j.entries) == 0 && !j.Req.Singleton && !slices.ContainsFunc(refusals, func(r refusal) bool { return !lasts(r) }) {
		j.barred, j.epoch = &u, p.epoch
	}
}

// explainBarred explains j as before, if no machine could run it and none has changed
// since.
func (p *pass) explainBarred(j *job) bool {
	if j.barred == nil || j.epoch != p.epoch || len(j.entries) > 0 {
		return false
	}
	j.told = true
	p.unplaced = append(p.unplaced, *j.barred)
	return true
}

// explainWait records that j has to stop on m before it may be anywhere else.
func (p *pass) explainWait(j *job, m *machine) {
	p.explain(j, "a singleton, and not known to have stopped on "+model.ShortID(m.ID))
}

// explainBad records that no machine can run a unit that cannot be understood.
func (p *pass) explainBad(j *job) {
	if j.home() != nil {
		return
	}
	j.told = true
	u := Unplaced{Unit: j.Name, Why: j.Bad, Verdicts: make([]Verdict, len(p.present))}
	for i, m := range p.present {
		u.Verdicts[i] = Verdict{Machine: m.ID, Why: j.Bad}
	}
	p.unplaced = append(p.unplaced, u)
}

// maxPhrases is how many different reasons of one kind are told one by one.
const maxPhrases = 3

// count sums refusals up: "3 machines: 2 conflict with a.service, 1 lacks metadata
// role=db".
func count(refusals []refusal) string {
	if len(refusals) == 0 {
		return "no machine is present"
	}
	number := make(map[refusal]int)
	kinds := make(map[kind]int)
	for _, r := range refusals {
		number[r]++
		if number[r] == 1 {
			kinds[r.kind]++
		}
	}
	total := make(map[refusal]int)
	for r, n := range number {
		switch {
		case kinds[r.kind] <= maxPhrases:
		case r.has != "":
			r.has = ""
		default:
			r = refusal{kind: r.kind, what: fmt.Sprintf("one of %d units", kinds[r.kind])}
		}
		total[r] += n
	}
	phrases := make([]string, 0, len(total))
	for _, r := range slices.SortedFunc(maps.Keys(total), func(a, b refusal) int {
		return cmp.Or(cmp.Compare(total[b], total[a]), cmp.Compare(a.phrase(1), b.phrase(1)))
	}) {
		phrases = append(phrases, fmt.Sprintf("%d %s", total[r], r.phrase(total[r])))
	}
	noun := "machines"
	if len(refusals) == 1 {
		noun = "machine"
	}
	return fmt.Sprintf("%d %s: %s", len(refusals), noun, strings.Join(phrases, ", "))
}
