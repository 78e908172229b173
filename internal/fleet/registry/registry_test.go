package registry

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/sched"
	"flotilla/internal/kv/member/membertest"
	"flotilla/internal/unitfile"
)

// open starts a store and connects to it.
func open(t *testing.T) *Registry {
	t.Helper()
	url := membertest.Start(t)
	return connect(t, url)
}

func connect(t *testing.T, url string) *Registry {
	t.Helper()
	r, err := Open(Config{Endpoints: []string{url}, Timeout: 2 * time.Second}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

var aText = Text{Canonical: text, Hash: unitfile.HashText(text)}

func TestLifeOfAUnit(t *testing.T) {
	r, ctx := open(t), t.Context()
	is := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	is(r.SetDesired(ctx, "a.service", model.Launched), ErrNoUnit)
	is(r.Replace(ctx, "a.service", aText, model.Launched, "", ""), ErrNoUnit)
	is(r.Destroy(ctx, "a.service"), ErrNoUnit)
	is(r.Create(ctx, "a.service", aText, model.Loaded, "", ""), nil)
	is(r.Create(ctx, "a.service", aText, model.Launched, "", ""), ErrUnitExists)
	gen := func() int64 {
		t.Helper()
		v, err := r.ReadJob(ctx, "a.service")
		if err != nil {
			t.Fatal(err)
		}
		u, _ := v.Unit("a.service")
		return u.Gen
	}
	first := gen()
	is(r.SetDesired(ctx, "a.service", model.Loaded), nil)
	if gen() <= first {
		t.Error("the same request again is no new generation")
	}
	is(r.Destroy(ctx, "a.service"), nil)
	if resp, err := r.get(ctx, "", r.prefix+"job/", clientv3.WithPrefix()); err != nil || resp.Count != 0 {
		t.Errorf("%v keys are left behind, %v", resp.Count, err)
	}
}

// Only the engine that leads writes, and only on entries as it knows them.
func TestScheduleIsGuarded(t *testing.T) {
	r := open(t)
	place := sched.Decision{Op: sched.Place, Entry: model.Placement{
		Machine: "m", Unit: "a.service", Text: text, Hash: aText.Hash, Desired: model.Launched, Gen: 1}}
	none := func([]sched.Decision) {}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var former Leadership
	r.Hold(ctx, 2*time.Second, true, func(held context.Context, l Lease) {
		defer cancel()
		lead, err := r.Campaign(held, l, Candidate{Machine: "m"})
		if err != nil {
			t.Errorf("campaign: %v", err)
			return
		}
		former = lead
		rev, err := r.WriteSchedule(held, lead, []sched.Decision{place}, none)
		if err != nil || rev == 0 {
			t.Errorf("place: %v", err)
		}
		if _, err := r.WriteSchedule(held, lead, []sched.Decision{place}, none); !errors.Is(err, ErrStale) {
			t.Errorf("place again: %v", err)
		}
		v, err := r.Read(held, ScheduleOf("m"))
		if err != nil || len(v.Placements()) != 1 {
			t.Errorf("%v, %v", v, err)
			return
		}
		release := sched.Decision{Op: sched.Release, Entry: v.Placements()[0]}
		if _, err := r.WriteSchedule(held, Leadership{createRev: 1}, []sched.Decision{release}, none); !errors.Is(err, ErrNotLeader) {
			t.Errorf("release by another: %v", err)
		}
		if _, err := r.WriteSchedule(held, lead, []sched.Decision{release}, none); err != nil {
			t.Errorf("release: %v", err)
		}
	})
	if _, err := r.WriteSchedule(t.Context(), former, []sched.Decision{place}, none); !errors.Is(err, ErrNotLeader) {
		t.Errorf("after resigning: %v", err)
	}
}

// A machine's record is taken over by itself alone; states live and die with it.
func TestPresence(t *testing.T) {
	r, ctx := open(t), t.Context()
	me := Presence{Machine: model.Machine{ID: "m", Hostname: "one", IP: "10.0.0.1", Boot: "1"}, Instance: "i"}
	first, err := r.grant(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Join(ctx, first, me, ""); err != nil {
		t.Fatal(err)
	}
	other := me
	other.Instance, other.Hostname = "another", "two"
	lease, err := r.grant(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var taken *TakenError
	if err := r.Join(ctx, lease, other, ""); !errors.As(err, &taken) || !strings.Contains(err.Error(), "one (10.0.0.1)") {
		t.Errorf("another instance: %v", err)
	}
	again := me
	again.Boot = "2"
	if err := r.Join(ctx, lease, again, "1"); !errors.As(err, &taken) {
		t.Errorf("yielding to a run that is alive: %v", err)
	}
	if err := r.Join(ctx, lease, again, ""); err != nil {
		t.Errorf("the next run: %v", err)
	}
	state := []model.UnitState{{Unit: "a.service", Machine: "m", Active: "active"}}
	if err := r.Publish(ctx, first, "m", state, nil); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("the former run publishes: %v", err)
	}
	if err := r.Publish(ctx, lease, "m", state, []string{"never.service"}); err != nil {
		t.Errorf("publish: %v", err)
	}
	r.revoke(lease)
	v, err := r.Read(ctx, Everything)
	if err != nil || len(v.Machines()) != 0 || len(v.States()) != 0 {
		t.Errorf("%v %v %v", v.Machines(), v.States(), err)
	}
}

// A unit is claimed by the entry that is in the store at that moment, by the machine
// that is present, and the lease says until when that is sure.
func TestClaim(t *testing.T) {
	r, ctx := open(t), t.Context()
	before := BootTime()
	lease, err := r.grant(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if at := lease.Pulse.Last(); at < before || at > BootTime() {
		t.Errorf("granted at %v, asked for after %v", at, before)
	}
	me := Presence{Machine: model.Machine{ID: "m", Boot: "1"}, Instance: "i"}
	if err := r.Join(ctx, lease, me, ""); err != nil {
		t.Fatal(err)
	}
	entry := r.key(Key{Kind: KindPlacement, Machine: "m", Unit: "a.service"})
	put, err := r.client.Put(ctx, entry, "x")
	if err != nil {
		t.Fatal(err)
	}
	state := model.UnitState{Unit: "a.service", Machine: "m", Active: "activating"}
	claim := func(l Lease, want bool, wantErr error) {
		t.Helper()
		if ok, err := r.Claim(ctx, l, state, put.Header.Revision); ok != want || !errors.Is(err, wantErr) {
			t.Errorf("%v, %v; want %v, %v", ok, err, want, wantErr)
		}
	}
	other, err := r.grant(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	claim(other, false, ErrLeaseLost)
	claim(lease, true, nil)
	v, err := r.Read(ctx, Everything)
	if err != nil || len(v.States()) != 1 || v.States()[0].Active != "activating" {
		t.Errorf("%+v, %v", v.States(), err)
	}
	if _, err := r.client.Put(ctx, entry, "y"); err != nil {
		t.Fatal(err)
	}
	claim(lease, false, nil)
	r.revoke(lease)
	claim(lease, false, nil)
}

// At most n machines have a slot of a unit; one that has it keeps it by another lease.
func TestSlots(t *testing.T) {
	r, ctx := open(t), t.Context()
	lease, err := r.grant(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.grant(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	take := func(l Lease, machine string, want bool) {
		t.Helper()
		if got, err := r.TakeSlot(ctx, l, "a.service", machine, 2); got != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", machine, got, err, want)
		}
	}
	take(lease, "m1", true)
	take(lease, "m2", true)
	take(lease, "m3", false)
	take(again, "m1", true)
	r.revoke(lease) // m2's goes, m1 has its by the other lease
	take(again, "m3", true)
	take(again, "m2", false)
	if err := r.FreeSlot(ctx, "a.service", "m1"); err != nil {
		t.Error(err)
	}
	take(again, "m2", true)
	if err := r.FreeSlot(ctx, "a.service", "nobody"); err != nil {
		t.Error(err)
	}
}

// A view that is followed is what the store holds, also when it was filled in the
// middle of writes.
func TestFollow(t *testing.T) {
	r := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	v := r.NewView()
	changed := make(chan struct{}, 1000)
	go r.Follow(ctx, "job/", v, func([]Change, bool) { changed <- struct{}{} })
	for _, name := range []string{"a.service", "b.service", "c.service"} {
		if err := r.Create(ctx, name, aText, model.Launched, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Destroy(ctx, "b.service"); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for {
		_, a := v.Unit("a.service")
		_, b := v.Unit("b.service")
		_, c := v.Unit("c.service")
		if a && !b && c {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("a %v b %v c %v", a, b, c)
		}
	}
}

// An error says what was being done, where and for how long, and why.
func TestStoreAway(t *testing.T) {
	r := connect(t, "http://127.0.0.1:1")
	_, err := r.ReadMachines(t.Context())
	if !errors.Is(err, ErrAway) || len(fault.Hints(err)) == 0 {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{"read the registry: ", "tried http://127.0.0.1:1 for 2s", "connection refused"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %q", part, err)
		}
	}
	if r.Away().IsZero() {
		t.Error("it is not said that the store is away")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.ReadMachines(ctx); errors.Is(err, ErrAway) {
		t.Errorf("a caller that has gone is blamed on the store: %v", err)
	}
}

// A daemon that was killed together with its store leads again at once: the lead
// that it left behind is its own. Another's is waited for, and so is one that this
// run has lost before.
func TestLeadOfAnEarlierRun(t *testing.T) {
	r, ctx := open(t), t.Context()
	campaign := func(c Candidate, fresh bool) error {
		lease, err := r.grant(ctx, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		limited, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if err := r.AwaitVacancy(limited, c, fresh); err != nil {
			return err
		}
		_, err = r.Campaign(ctx, lease, c)
		return err
	}
	for _, c := range []struct {
		who   Candidate
		fresh bool
		leads bool
	}{
		{Candidate{Machine: "m", Instance: "i", Boot: "1"}, true, true},
		{Candidate{Machine: "m", Instance: "other", Boot: "2"}, true, false}, // a clone of the machine id
		{Candidate{Machine: "n", Instance: "i", Boot: "2"}, true, false},
		{Candidate{Machine: "m", Instance: "i", Boot: "1"}, true, false}, // itself
		{Candidate{Machine: "m", Instance: "i", Boot: "2"}, false, false},
		{Candidate{Machine: "m", Instance: "i", Boot: "2"}, true, true},
	} {
		if err := campaign(c.who, c.fresh); (err == nil) != c.leads {
			t.Errorf("%+v, fresh %v: got %v, want to lead: %v", c.who, c.fresh, err, c.leads)
		}
	}
}
