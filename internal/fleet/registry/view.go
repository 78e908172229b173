package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/sched"
	"flotilla/internal/unitfile"
)

// View is what the registry holds, typed, in memory. Everything in the store is
// untrusted: a record that cannot be read is one bad item, reported in the Change
// that brought it, and never a failed view.
//
// Make one with NewView. Methods may be called from several goroutines; the values
// they return must not be changed.
type View struct {
	prefix string

	mu    sync.RWMutex
	known known           // what need not be read again
	torn  map[string]bool // units of which a key has changed, while changes are taken over
	contents
}

// contents is what a view holds.
type contents struct {
	rev      int64
	cluster  uint64 // id of the etcd cluster
	mark     string
	objects  map[string]object  // job/UNIT/object
	desired  map[string]desired // job/UNIT/target-state
	restarts map[string]int64   // job/UNIT/restart: its revision
	units    map[string]model.Unit
	places   table[model.Placement]
	unplaced map[string]sched.Unplaced
	states   table[model.UnitState]
	machines map[string]Presence
	metadata map[string]map[string]string // machine, dynamic values
	cordons  map[string]model.Cordon
	rolls    map[string]model.Roll
	asks     map[string]model.Ask
	gone     map[string]time.Time // destroyed/UNIT
	leader   string
	hold     string
}

// object is a unit's canonical text and the revision of its record.
type object struct {
	text string
	rev  int64
}

type desired struct {
	state model.State
	gen   int64
	bad   string
}

// Change says what a write to the store was about.
type Change struct {
	Key
	Deleted bool
	Bad     error // the record cannot be read
}

// NewView makes an empty view of a registry below prefix.
func NewView(prefix string) *View {
	return &View{prefix: prefix, torn: map[string]bool{}, contents: nothing()}
}

func nothing() contents {
	return contents{
		objects:  map[string]object{},
		desired:  map[string]desired{},
		restarts: map[string]int64{},
		units:    map[string]model.Unit{},
		unplaced: map[string]sched.Unplaced{},
		machines: map[string]Presence{},
		metadata: map[string]map[string]string{},
		cordons:  map[string]model.Cordon{},
		rolls:    map[string]model.Roll{},
		asks:     map[string]model.Ask{},
		gone:     map[string]time.Time{},
	}
}

// record is a key and its value as the store has them; a nil value with deleted
// set is a key that went away.
type record struct {
	key     string
	value   []byte
	rev     int64 // of this value
	deleted bool
}

// reset replaces everything by what the store of an etcd cluster held at revision
// rev, which is lower than before when the store is another one now. The texts that it
// had before are not read again.
func (v *View) reset(records []record, cluster uint64, rev int64) []Change {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known = known{objects: v.objects, desired: v.desired, units: v.units}
	v.contents = nothing()
	v.cluster = cluster
	changes := v.applyLocked(records, rev)
	v.known = known{}
	return changes
}

// copied is a view that holds the same, and goes on holding it.
func (v *View) copied() *View {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := NewView(v.prefix)
	out.contents = v.contents // what is no map
	out.objects, out.desired, out.restarts = maps.Clone(v.objects), maps.Clone(v.desired), maps.Clone(v.restarts)
	out.units, out.unplaced, out.machines = maps.Clone(v.units), maps.Clone(v.unplaced), maps.Clone(v.machines)
	out.places, out.states = v.places.copied(), v.states.copied()
	out.cordons, out.rolls, out.asks, out.gone = maps.Clone(v.cordons), maps.Clone(v.rolls), maps.Clone(v.asks), maps.Clone(v.gone)
	out.metadata = make(map[string]map[string]string, len(v.metadata))
	for machine, values := range v.metadata {
		out.metadata[machine] = maps.Clone(values)
	}
	return out
}

// become makes the view hold what another one does, which is not to be used any more.
func (v *View) become(from *View) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.contents = from.contents
}

func (v *View) position() position {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return position{cluster: v.cluster, mark: v.mark, rev: v.rev}
}

// Load makes the view what a registry would be whose keys (below its prefix) have
// these values since revision rev: for tests and simulations, without a store.
func (v *View) Load(values map[string]string, rev int64) []Change {
	var records []record
	for _, path := range slices.Sorted(maps.Keys(values)) {
		records = append(records, record{key: v.prefix + path, value: []byte(values[path]), rev: rev})
	}
	return v.reset(records, 0, rev)
}

// Update takes over what was written at revision rev: values by path, and the paths
// that are gone; like Load it is for tests and simulations.
func (v *View) Update(values map[string]string, gone []string, rev int64) []Change {
	var records []record
	for _, path := range slices.Sorted(maps.Keys(values)) {
		records = append(records, record{key: v.prefix + path, value: []byte(values[path]), rev: rev})
	}
	for _, path := range gone {
		records = append(records, record{key: v.prefix + path, rev: rev, deleted: true})
	}
	return v.apply(records, rev)
}

// apply takes over changes up to revision rev.
func (v *View) apply(records []record, rev int64) []Change {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.applyLocked(records, rev)
}

func (v *View) applyLocked(records []record, rev int64) []Change {
	out := make([]Change, 0, len(records))
	for _, r := range records {
		path, ok := strings.CutPrefix(r.key, v.prefix)
		if !ok {
			continue
		}
		k, ok := ParsePath(path)
		if !ok || k.Kind == KindEvent || k.Kind == KindHistory {
			continue // those are read by themselves
		}
		c := Change{Key: k, Deleted: r.deleted}
		if err := v.set(k, r); err != nil {
			c.Bad = fmt.Errorf("key %s: %w", r.key, err)
		}
		out = append(out, c)
	}
	v.joinTorn()
	v.rev = max(v.rev, rev)
	return out
}

func (v *View) set(k Key, r record) error {
	if r.deleted {
		v.remove(k)
		return nil
	}
	var err error
	switch k.Kind {
	case KindObject:
		var rec objectRecord
		if err = json.Unmarshal(r.value, &rec); err == nil && rec.Raw == "" {
			err = fmt.Errorf("no text")
		}
		v.objects[k.Unit] = object{text: rec.Raw, rev: r.rev}
		v.torn[k.Unit] = true
	case KindDesired:
		d := desired{gen: r.rev}
		if d.state, err = model.ParseState(string(r.value)); err != nil {
			// Nobody has said "inactive": what runs is left alone, see sched.
			d.state, d.bad = model.Loaded, err.Error()
		}
		v.desired[k.Unit] = d
		v.torn[k.Unit] = true
	case KindRestart:
		v.restarts[k.Unit] = r.rev
		v.torn[k.Unit] = true
	case KindPlacement:
		var p model.Placement
		p, err = decodePlacement(k, r.value, r.rev)
		v.places.put(k.Unit, k.Machine, p)
	case KindUnplaced:
		v.unplaced[k.Unit], err = decodeUnplaced(k, r.value)
	case KindState:
		var s model.UnitState
		if s, err = decodeState(k, r.value); err == nil {
			v.states.put(k.Unit, k.Machine, s)
		}
	case KindMachine:
		var p Presence
		if p, err = decodePresence(k, r.value); err == nil {
			v.machines[k.Machine] = p
		}
	case KindMetadata:
		put(v.metadata, k.Machine, k.Meta, string(r.value))
	case KindLeader:
		var rec leaderRecord
		err = json.Unmarshal(r.value, &rec)
		v.leader = rec.MachineID
	case KindHold:
		v.hold = string(r.value)
	case KindMark:
		v.mark = string(r.value)
	default:
		err = v.setOperation(k, r)
	}
	return err
}

// setOperation is set for the records of rolls, cordons, asks and what was destroyed.
func (v *View) setOperation(k Key, r record) error {
	var err error
	switch k.Kind {
	case KindCordon:
		v.cordons[k.Machine], err = decodeCordon(r.value)
	case KindRoll:
		v.rolls[k.Group], err = decodeRoll(k, r.value, r.rev)
	case KindAsk:
		v.asks[k.ID], err = decodeAsk(k, r.value)
	case KindDestroyed:
		var rec destroyedRecord
		err = json.Unmarshal(r.value, &rec)
		v.gone[k.Unit] = rec.At
	}
	return err
}

func (v *View) remove(k Key) {
	switch k.Kind {
	case KindObject:
		delete(v.objects, k.Unit)
		v.torn[k.Unit] = true
	case KindDesired:
		delete(v.desired, k.Unit)
		v.torn[k.Unit] = true
	case KindRestart:
		delete(v.restarts, k.Unit)
		v.torn[k.Unit] = true
	case KindPlacement:
		v.places.drop(k.Unit, k.Machine)
	case KindUnplaced:
		delete(v.unplaced, k.Unit)
	case KindState:
		v.states.drop(k.Unit, k.Machine)
	case KindMachine:
		delete(v.machines, k.Machine)
	case KindMetadata:
		drop(v.metadata, k.Machine, k.Meta)
	case KindLeader:
		v.leader = ""
	case KindHold:
		v.hold = ""
	case KindMark:
		v.mark = ""
	case KindCordon:
		delete(v.cordons, k.Machine)
	case KindRoll:
		delete(v.rolls, k.Group)
	case KindAsk:
		delete(v.asks, k.ID)
	case KindDestroyed:
		delete(v.gone, k.Unit)
	}
}

// joinTorn makes the units of which a key has changed: each after all its keys, and
// many at the same time, since to read the texts is most of what it costs to read a
// registry.
func (v *View) joinTorn() {
	names := slices.Collect(maps.Keys(v.torn))
	clear(v.torn)
	const share = 500 // at least, for one more goroutine
	size := max(share, (len(names)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	units := make([]model.Unit, len(names))
	join := func(first, end int) {
		for i := first; i < end; i++ {
			units[i] = v.join(names[i])
		}
	}
	var wg sync.WaitGroup
	for first := size; first < len(names); first += size {
		wg.Go(func() { join(first, min(first+size, len(names))) })
	}
	join(0, min(size, len(names)))
	wg.Wait()
	for i, name := range names {
		if _, ok := v.objects[name]; ok {
			v.units[name] = units[i]
		} else {
			delete(v.units, name)
		}
	}
}

// join makes the unit of its object and its target state. Without an object there
// is no unit; an object alone is inactive, which is how fleet 1.0 left a unit
// whose creation was cut short.
func (v *View) join(name string) model.Unit {
	o, ok := v.objects[name]
	if !ok {
		return model.Unit{}
	}
	d := v.desired[name]
	u, ok := v.known.unit(name, o.text, d)
	if !ok {
		u = newUnit(name, o.text, d)
	}
	u.Restart = d.gen != 0 && v.restarts[name] == d.gen // asked for with it, in one transaction
	return u
}

// known is the units of an earlier view, for one that mostly has the same. The zero value
// knows none.
type known struct {
	objects map[string]object
	desired map[string]desired
	units   map[string]model.Unit
}

// unit is the unit as newUnit would make it, if it has the text and the state that it
// had.
func (k known) unit(name, text string, d desired) (model.Unit, bool) {
	u, ok := k.units[name]
	before := k.desired[name]
	if !ok || k.objects[name].text != text || before.state != d.state || before.bad != d.bad {
		return model.Unit{}, false
	}
	u.Gen = d.gen
	return u, true
}

func newUnit(name, text string, d desired) model.Unit {
	if err := unitfile.CheckName(name); err != nil {
		return model.Unit{Name: name, Text: text, Desired: d.state, Gen: d.gen, Bad: err.Error()}
	}
	u := model.NewUnit(name, text, d.state, d.gen)
	if u.Bad == "" {
		u.Bad = d.bad
	}
	return u
}

func put[V any](m map[string]map[string]V, a, b string, value V) {
	if m[a] == nil {
		m[a] = map[string]V{}
	}
	m[a][b] = value
}

func drop[V any](m map[string]map[string]V, a, b string) {
	delete(m[a], b)
	if len(m[a]) == 0 {
		delete(m, a)
	}
}

// Rev is the store revision up to which the view is current.
func (v *View) Rev() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.rev
}

// Unit returns the unit of that name.
func (v *View) Unit(name string) (model.Unit, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	u, ok := v.units[name]
	return u, ok
}

// ObjectRev is the revision of a unit's object, by which a write of it is guarded; 0
// if there is no such unit.
func (v *View) ObjectRev(name string) int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.objects[name].rev
}

// Units returns all units, in order of name.
func (v *View) Units() []model.Unit {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return sorted(v.units)
}

// Placements returns all entries of all schedules, in order of unit and machine.
func (v *View) Placements() []model.Placement {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.places.all()
}

// Schedule is the entries of a schedule and where they were read.
type Schedule struct {
	// Store names the store: the id of its etcd cluster and the mark of the
	// registry in it. The id alone is not enough: members that lost their data and
	// start again under their old names and addresses have the same one. "" is a
	// view that no store was read into.
	Store   string
	Rev     int64 // of the store
	Entries []model.Placement
}

func (v *View) marked() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.mark != ""
}

// Schedule returns Placements and where they were read.
func (v *View) Schedule() Schedule {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := Schedule{Rev: v.rev, Entries: v.places.all()}
	if v.mark != "" {
		s.Store = fmt.Sprintf("%x/%s", v.cluster, v.mark)
	}
	return s
}

// Placement returns the entry for a unit on a machine, if there is one.
func (v *View) Placement(unit, machine string) (model.Placement, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.places.get(unit, machine)
}

// PlacementsOf returns the entries for a unit, in order of machine.
func (v *View) PlacementsOf(unit string) []model.Placement {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.places.of(unit)
}

// States returns all states, in order of unit and machine.
func (v *View) States() []model.UnitState {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.states.all()
}

// StatesOf returns the states of a unit, in order of machine.
func (v *View) StatesOf(unit string) []model.UnitState {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.states.of(unit)
}

// State returns the state of a unit on a machine, zero if there is none.
func (v *View) State(unit, machine string) model.UnitState {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s, _ := v.states.get(unit, machine)
	return s
}

// Unplaced returns why a unit is on no machine; zero if there is no reason.
func (v *View) Unplaced(unit string) sched.Unplaced {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.unplaced[unit]
}

// AllUnplaced returns the reasons of all units that have one, in order of name.
func (v *View) AllUnplaced() []sched.Unplaced {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return sorted(v.unplaced)
}

// Machines returns the machines that are present, in order of id, dynamic metadata
// laid over the configured: an empty dynamic value masks the configured one.
func (v *View) Machines() []model.Machine {
	v.mu.RLock()
	defer v.mu.RUnlock()
	out := make([]model.Machine, 0, len(v.machines))
	for _, p := range sorted(v.machines) {
		out = append(out, v.overlay(p))
	}
	return out
}

// Machine returns one machine as Machines does.
func (v *View) Machine(id string) (model.Machine, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	p, ok := v.machines[id]
	if !ok {
		return model.Machine{}, false
	}
	return v.overlay(p), true
}

// DynamicMetadata returns what was set of a machine from outside, whether it is
// present or not: the empty value masks the configured one.
func (v *View) DynamicMetadata(machine string) map[string]string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	out := maps.Clone(v.metadata[machine])
	if out == nil {
		out = map[string]string{}
	}
	return out
}

func (v *View) overlay(p Presence) model.Machine {
	m := p.Machine
	if c, ok := v.cordons[m.ID]; ok {
		m.Cordon = &c
	}
	dynamic := v.metadata[m.ID]
	if len(dynamic) == 0 {
		return m
	}
	meta := maps.Clone(m.Metadata)
	if meta == nil {
		meta = map[string]string{}
	}
	for k, value := range dynamic {
		if value == "" {
			delete(meta, k)
		} else {
			meta[k] = value
		}
	}
	m.Metadata = meta
	return m
}

// Leader is the machine whose engine leads; empty: none.
func (v *View) Leader() string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.leader
}

// Hold is why the engine holds all moves; empty: it does not.
func (v *View) Hold() string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.hold
}

// Cordon returns the cordon of a machine, present or not; nil if there is none.
func (v *View) Cordon(machine string) *model.Cordon {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if c, ok := v.cordons[machine]; ok {
		return &c
	}
	return nil
}

// Rolls returns all rolls, those that are over too, in order of group.
func (v *View) Rolls() []model.Roll {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return sorted(v.rolls)
}

// Roll returns the roll of a group, which may be over.
func (v *View) Roll(group string) (model.Roll, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	r, ok := v.rolls[group]
	return r, ok
}

// Asks returns what the engine is asked to do, in order of id.
func (v *View) Asks() []model.Ask {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return sorted(v.asks)
}

// Destroyed returns when the units were destroyed whose history is still kept.
func (v *View) Destroyed() map[string]time.Time {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return maps.Clone(v.gone)
}

func sorted[V any](m map[string]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}
