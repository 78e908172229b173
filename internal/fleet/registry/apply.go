package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// UnitWrite is what is to become of one unit.
type UnitWrite struct {
	Name string
	// Text is the unit's text; an empty Canonical leaves it as it is, and then the
	// unit must exist.
	Text Text
	Want model.State
	// Rev is the revision that the unit's object must have (View.ObjectRev); 0: the
	// unit must not exist; AnyRev: whatever.
	Rev int64
	// SetState writes Want too, which is a new generation. A unit that does not
	// exist always gets Want.
	SetState bool

	mustExist bool
}

// AnyRev is a UnitWrite.Rev that holds whatever there is.
const AnyRev = -1

// applyTries is how often a write is made anew because a unit of which it expected
// nothing changed between the look and the write.
const applyTries = 5

// Apply writes units: all at once where one transaction has room for them, otherwise
// in as many as it takes, one after the other. Each text that changes gets its entry
// in the unit's history, with by and why. It fails with ErrStale, before anything is
// written, when a Rev does not hold; of several transactions the ones before may have
// been written when a unit changes in that moment. ErrNoUnit: a write without a text
// names a unit that is not there.
func (r *Registry) Apply(ctx context.Context, ws []UnitWrite, by, why string) error {
	return r.apply(ctx, "apply "+count(len(ws), "unit"), ws, by, why)
}

func (r *Registry) apply(ctx context.Context, doing string, ws []UnitWrite, by, why string) error {
	err := ErrStale
	for range applyTries {
		var pasts []past
		if pasts, err = r.readPasts(ctx, doing, ws); err != nil {
			return err
		}
		note := model.Version{At: time.Now(), By: by, Why: why}
		if err = r.writeUnits(ctx, doing, ws, pasts, note); !errors.Is(err, ErrStale) {
			return err
		}
	}
	return err
}

// past is what the store holds of a unit that is to be written.
type past struct {
	object *mvccpb.KeyValue // nil: there is no such unit
	newest int              // version; 0: there is none
}

// readPasts looks at the units, and fails with ErrStale when one is not as expected.
func (r *Registry) readPasts(ctx context.Context, doing string, ws []UnitWrite) ([]past, error) {
	var ops []clientv3.Op
	for _, w := range ws {
		ops = append(ops, clientv3.OpGet(r.object(w.Name)), clientv3.OpGet(r.prefix+historyPrefix+w.Name+"/",
			clientv3.WithRange(r.prefix+historyPrefix+w.Name+"/:"), clientv3.WithKeysOnly(), // numbers alone clientv3.WithLimit(1),
			clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)))
	}
	var parts []*clientv3.GetResponse
	err := inParts(r, ops, opSize, func(batch []clientv3.Op) error {
		resp, err := r.txn(ctx, doing, nil, batch, nil)
		if err != nil {
			return err
		}
		for _, part := range resp.Responses {
			parts = append(parts, (*clientv3.GetResponse)(part.GetResponseRange()))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	pasts := make([]past, len(ws))
	for i, w := range ws {
		p := past{newest: r.newestSeq(parts[2*i+1].Kvs)}
		if kvs := parts[2*i].Kvs; len(kvs) > 0 {
			p.object = kvs[0]
		}
		if err := w.expects(p); err != nil {
			return nil, fmt.Errorf("%s: unit %s: %w", doing, w.Name, err)
		}
		pasts[i] = p
	}
	return pasts, nil
}

func (r *Registry) newestSeq(kvs []*mvccpb.KeyValue) int {
	if len(kvs) == 0 {
		return 0
	}
	k, _ := ParsePath(string(kvs[0].Key)[len(r.prefix):])
	return seqOf(k.ID)
}

// expects says why the write is not for what there is.
func (w UnitWrite) expects(p past) error {
	switch {
	case w.Rev == 0 && p.object != nil:
		return fmt.Errorf("%w: %w", ErrStale, ErrUnitExists)
	case w.Rev > 0 && p.object == nil:
		return fmt.Errorf("%w: %w", ErrStale, ErrNoUnit)
	case w.Rev > 0 && p.object.ModRevision != w.Rev:
		return ErrStale
	case (w.mustExist || w.Text.Canonical == "") && p.object == nil:
		return ErrNoUnit
	}
	return nil
}

// text is the text there is; ok is false if there is none that can be read.
func (p past) text() (t Text, ok bool) {
	var rec objectRecord
	if p.object == nil || json.Unmarshal(p.object.Value, &rec) != nil || rec.Raw == "" {
		return Text{}, false
	}
	return Text{Canonical: rec.Raw, Hash: unitfile.HashText(rec.Raw)}, true
}

// guardedOps is what has to hold, and what is to be done then.
type guardedOps struct {
	when []clientv3.Cmp
	then []clientv3.Op
}

// writeUnits writes all, in as few transactions as the store allows.
func (r *Registry) writeUnits(ctx context.Context, doing string, ws []UnitWrite, pasts []past, note model.Version) error {
	var all []guardedOps
	for i, w := range ws {
		all = append(all, r.unitOps(w, pasts[i], note))
	}
	return inParts(r, all, guardedOps.size, func(some []guardedOps) error { return r.commit(ctx, doing, some) })
}

func (g guardedOps) size() (ops, bytes int) {
	for _, op := range g.then {
		_, b := opSize(op)
		bytes += b
	}
	return max(len(g.then), len(g.when)), bytes
}

// commit does all of the guarded operations or none.
func (r *Registry) commit(ctx context.Context, doing string, all []guardedOps) error {
	var one guardedOps
	for _, g := range all {
		one.when, one.then = append(one.when, g.when...), append(one.then, g.then...)
	}
	if len(one.then) == 0 {
		return nil
	}
	resp, err := r.txn(ctx, doing, one.when, one.then, nil)
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return fmt.Errorf("%s: %w", doing, ErrStale)
	}
	return nil
}

func (r *Registry) unitOps(w UnitWrite, p past, note model.Version) guardedOps {
	var g guardedOps
	rev := int64(0)
	if p.object != nil {
		rev = p.object.ModRevision
	}
	g.when = append(g.when, clientv3.Compare(clientv3.ModRevision(r.object(w.Name)), "=", rev))
	old, had := p.text()
	if w.Text.Canonical != "" && (!had || old != w.Text) {
		rec := objectRecord{Name: w.Name, UnitHash: hashFromHex(w.Text.Hash), Raw: w.Text.Canonical}
		g.then = append(g.then, clientv3.OpPut(r.object(w.Name), string(encode(rec))))
		if had && p.newest == 0 {
			p.newest = 1
			g.add(r.versionOps(1, model.Version{Unit: w.Name, Hash: old.Hash, Text: old.Canonical}))
		}
		note.Unit, note.Hash, note.Text = w.Name, w.Text.Hash, w.Text.Canonical
		g.add(r.versionOps(p.newest+1, note))
	}
	if p.object == nil {
		g.then = append(g.then, clientv3.OpDelete(r.key(Key{Kind: KindDestroyed, Unit: w.Name})))
	}
	if w.SetState || p.object == nil {
		g.then = append(g.then, r.putDesired(w.Name, w.Want))
	}
	return g
}

func (g *guardedOps) add(o guardedOps) {
	g.when, g.then = append(g.when, o.when...), append(g.then, o.then...)
}

// keptVersions is how many versions of a unit's text stay.
const keptVersions = 10

// versionOps writes a version that must not be there yet, and removes the oldest.
func (r *Registry) versionOps(seq int, v model.Version) guardedOps {
	key := r.version(v.Unit, seq)
	g := guardedOps{
		when: []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
		then: []clientv3.Op{clientv3.OpPut(key, string(encodeVersion(v)))},
	}
	if seq > keptVersions {
		g.then = append(g.then, clientv3.OpDelete(r.version(v.Unit, 0), clientv3.WithRange(r.version(v.Unit, seq-keptVersions+1))))
	}
	return g
}

func (r *Registry) version(unit string, seq int) string {
	return r.key(Key{Kind: KindHistory, Unit: unit, ID: fmt.Sprintf("%08d", seq)})
}

// seqOf is the number of a version by its key; 0 for a key that is none.
func seqOf(id string) int {
	n, err := strconv.Atoi(id)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// ReadHistory returns the texts that a unit has had, the newest first; none for a
// unit nobody knows. A version that cannot be read is left out.
func (r *Registry) ReadHistory(ctx context.Context, unit string) ([]model.Version, error) {
	resp, err := r.get(ctx, "read the history of unit "+unit, r.prefix+historyPrefix+unit+"/", clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	var out []model.Version
	for _, rec := range records(resp.Kvs) {
		k, ok := ParsePath(rec.key[len(r.prefix):])
		if !ok {
			continue
		}
		if v, err := decodeVersion(k, rec.value); err == nil {
			out = append(out, v)
		} else {
			r.log.Warn("bad record in the registry, left aside", "key", rec.key, "err", err)
		}
	}
	slices.Reverse(out)
	return out, nil
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
