package registry

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

func textOf(what string) Text {
	s := "[Service]\nExecStart=/bin/" + what + "\n"
	return Text{Canonical: s, Hash: unitfile.HashText(s)}
}

// history is the versions of a unit, newest first: "2 two by ann: apply".
func history(t *testing.T, r *Registry, unit string) string {
	t.Helper()
	vs, err := r.ReadHistory(t.Context(), unit)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, v := range vs {
		what := strings.TrimSuffix(strings.TrimPrefix(v.Text, "[Service]\nExecStart=/bin/"), "\n")
		lines = append(lines, fmt.Sprintf("%d %s by %s: %s", v.Seq, what, v.By, v.Why))
	}
	return strings.Join(lines, "\n")
}

func TestHistory(t *testing.T) {
	r, ctx := open(t), t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	is := func(want string) {
		t.Helper()
		if got := history(t, r, "a.service"); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	is("")
	must(r.Create(ctx, "a.service", textOf("one"), model.Loaded, "ann", "create"))
	must(r.Replace(ctx, "a.service", textOf("two"), model.Launched, "ben", "replace"))
	must(r.Replace(ctx, "a.service", textOf("two"), model.Launched, "ben", "the same again"))
	is("2 two by ben: replace\n1 one by ann: create")
	must(r.Destroy(ctx, "a.service"))
	is("2 two by ben: replace\n1 one by ann: create")
	if v, err := r.Read(ctx, Everything); err != nil || len(v.Destroyed()) != 1 || len(v.Units()) != 0 {
		t.Errorf("destroyed %v, %v", v.Destroyed(), err)
	}
	for i := range 10 {
		w := UnitWrite{Name: "a.service", Text: textOf(fmt.Sprint(i)), Rev: AnyRev}
		must(r.Apply(ctx, []UnitWrite{w}, "", "apply"))
	}
	if got := history(t, r, "a.service"); !strings.HasPrefix(got, "12 9 by : apply\n") || !strings.HasSuffix(got, "\n3 0 by : apply") {
		t.Errorf("ten versions stay; got\n%s", got)
	}
	if v, _ := r.Read(ctx, Everything); len(v.Destroyed()) != 0 {
		t.Error("a unit that exists again is noted as destroyed")
	}
}

// A unit that was written before there was history gets its present text as the
// first version.
func TestHistoryOfAnOldUnit(t *testing.T) {
	r, ctx := open(t), t.Context()
	one := textOf("one")
	rec := objectRecord{Name: "a.service", UnitHash: hashFromHex(one.Hash), Raw: one.Canonical}
	if _, err := r.client.Put(ctx, r.object("a.service"), string(encode(rec))); err != nil {
		t.Fatal(err)
	}
	if err := r.Replace(ctx, "a.service", textOf("two"), model.Launched, "ann", "x"); err != nil {
		t.Fatal(err)
	}
	if got, want := history(t, r, "a.service"), "2 two by ann: x\n1 one by : "; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestApplyIsGuarded(t *testing.T) {
	r, ctx := open(t), t.Context()
	is := func(doing string, err error, want ...error) {
		t.Helper()
		if len(want) == 0 && err != nil {
			t.Errorf("%s: %v", doing, err)
		}
		for _, w := range want {
			if !errors.Is(err, w) {
				t.Errorf("%s: got %v, want %v", doing, err, w)
			}
		}
	}
	rev := func() int64 {
		v, err := r.Read(ctx, Everything)
		if err != nil {
			t.Fatal(err)
		}
		return v.ObjectRev("a.service")
	}
	write := func(ws ...UnitWrite) error { return r.Apply(ctx, ws, "", "") }
	a := UnitWrite{Name: "a.service", Text: textOf("one"), Want: model.Loaded}
	is("create", write(a))
	is("create again", write(a), ErrStale, ErrUnitExists)
	first := rev()
	a.Rev, a.Text = first, textOf("two")
	is("change", write(a))
	b := UnitWrite{Name: "b.service", Text: textOf("b"), Want: model.Launched}
	a.Text = textOf("three")
	is("change what has changed", write(b, a), ErrStale)
	a.Rev = rev()
	is("both", write(b, a))
	is("state alone", write(UnitWrite{Name: "b.service", Rev: AnyRev, Want: model.Inactive, SetState: true}))
	is("state of nothing", write(UnitWrite{Name: "c.service", Rev: AnyRev, SetState: true}), ErrNoUnit)
	is("change of nothing", write(UnitWrite{Name: "c.service", Rev: 3, Text: textOf("c")}), ErrStale, ErrNoUnit)
	v, err := r.Read(ctx, Everything)
	if err != nil {
		t.Fatal(err)
	}
	ua, _ := v.Unit("a.service")
	ub, _ := v.Unit("b.service")
	if ua.Text != textOf("three").Canonical || ua.Desired != model.Loaded || ub.Desired != model.Inactive || len(v.Units()) != 2 {
		t.Errorf("a %+v\nb %+v", ua, ub)
	}
}

// More units than one transaction of a store may hold.
func TestApplyMany(t *testing.T) {
	r, ctx := open(t), t.Context()
	var ws []UnitWrite
	for i := range 1500 {
		ws = append(ws, UnitWrite{Name: fmt.Sprintf("a%d.service", i), Text: textOf("one"), Want: model.Launched})
	}
	if err := r.Apply(ctx, ws, "", ""); err != nil {
		t.Fatal(err)
	}
	v, err := r.Read(ctx, "job/")
	if err != nil || len(v.Units()) != len(ws) {
		t.Errorf("%d units, %v", len(v.Units()), err)
	}
}

func TestFitting(t *testing.T) {
	put := func(size int) guardedOps {
		return guardedOps{then: []clientv3.Op{clientv3.OpPut("k", strings.Repeat("x", size))}}
	}
	many := make([]guardedOps, narrowOps+1)
	for i := range many {
		many[i] = put(1)
	}
	for _, c := range []struct {
		all  []guardedOps
		want int
	}{
		{many, narrowOps},
		{[]guardedOps{put(2 * maxBytes), put(1)}, 1},
		{[]guardedOps{put(maxBytes / 2), put(1), put(maxBytes)}, 2},
		{[]guardedOps{put(1)}, 1},
	} {
		if got := fitting(c.all, guardedOps.size, narrowOps); got != c.want {
			t.Errorf("%d of %d, want %d", got, len(c.all), c.want)
		}
	}
}

// A store that takes few operations gets few, and all are written.
func TestInParts(t *testing.T) {
	r := &Registry{}
	items, calls, done := make([]int, 1000), 0, 0
	err := inParts(r, items, func(int) (int, int) { return 1, 1 }, func(some []int) error {
		if calls++; len(some) > 128 {
			return fmt.Errorf("write: %w", rpctypes.ErrTooManyOps)
		}
		done += len(some)
		return nil
	})
	if err != nil || done != len(items) || calls != 11 {
		t.Errorf("%d written in %d calls, %v", done, calls, err)
	}
	refuse := func([]int) error { return rpctypes.ErrTooManyOps }
	if err := inParts(r, items, func(int) (int, int) { return 1, 1 }, refuse); !errors.Is(err, rpctypes.ErrTooManyOps) {
		t.Errorf("a store that takes none: %v", err)
	}
}

// lead makes r the leader until the test ends.
func lead(t *testing.T, r *Registry) Leadership {
	t.Helper()
	lease, err := r.grant(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Campaign(t.Context(), lease, Candidate{Machine: "m"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestCordons(t *testing.T) {
	r, ctx := open(t), t.Context()
	c := model.Cordon{Drain: true, Why: "disk", By: "ann", At: time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)}
	if err := r.SetCordon(ctx, "m", c); err != nil {
		t.Fatal(err)
	}
	lease, err := r.grant(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Join(ctx, lease, Presence{Machine: model.Machine{ID: "m"}, Instance: "i"}, ""); err != nil {
		t.Fatal(err)
	}
	v, err := r.Read(ctx, Everything)
	if err != nil {
		t.Fatal(err)
	}
	if got := v.Cordon("m"); got == nil || *got != c {
		t.Errorf("got %+v, want %+v", got, c)
	}
	if m, _ := v.Machine("m"); m.Cordon == nil || *m.Cordon != c {
		t.Errorf("the machine says %+v", m.Cordon)
	}
	if err := r.Uncordon(ctx, "m"); err != nil {
		t.Fatal(err)
	}
	if v, _ := r.Read(ctx, Everything); v.Cordon("m") != nil {
		t.Error("still cordoned")
	}
}

func TestRollRecords(t *testing.T) {
	r, ctx := open(t), t.Context()
	one := textOf("one")
	roll := model.Roll{
		Group: "web@.service", State: model.Rolling, From: map[string]string{"web@1.service": one.Hash},
		To: map[string]string{"web@1.service": "2", "web@.service": "2"}, Texts: map[string]string{one.Hash: one.Canonical, "forged": "x"},
		Since:   map[string]time.Time{"web@1.service m": time.Date(2026, 8, 1, 0, 1, 0, 0, time.UTC)},
		Started: time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC), By: "ann", Why: "waits for web@1.service",
		Failed: "web@1.service", Machine: "m", Log: []string{"no such file"},
	}
	if err := r.AskRoll(ctx, roll.Group, model.Pause, "ben"); !errors.Is(err, ErrNoRoll) {
		t.Errorf("of nothing: %v", err)
	}
	l := lead(t, r)
	rev, _, err := r.WriteRolls(ctx, l, []model.Roll{roll}, nil)
	if err != nil || rev == 0 {
		t.Fatal(err)
	}
	if err := r.AskRoll(ctx, roll.Group, "stop", "ben"); err == nil {
		t.Error("stop is an action")
	}
	if err := r.AskRoll(ctx, roll.Group, model.Pause, "ben"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.WriteRolls(ctx, l, []model.Roll{roll}, nil); !errors.Is(err, ErrStale) {
		t.Errorf("write over what was asked: %v", err)
	}
	rolls, err := r.ReadRolls(ctx)
	if err != nil || len(rolls) != 1 {
		t.Fatal(rolls, err)
	}
	want := roll
	want.Asked, want.AskedBy, want.Rev, want.Texts = model.Pause, "ben", rolls[0].Rev, map[string]string{one.Hash: one.Canonical}
	if !reflect.DeepEqual(rolls[0], want) {
		t.Errorf("got  %+v\nwant %+v", rolls[0], want)
	}
	want.State = model.Done
	if _, _, err := r.WriteRolls(ctx, l, []model.Roll{want}, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.AskRoll(ctx, roll.Group, model.Resume, "ben"); !errors.Is(err, ErrNoRoll) || !strings.Contains(err.Error(), "is done") {
		t.Errorf("of one that is over: %v", err)
	}
	if _, _, err := r.WriteRolls(ctx, l, nil, []string{roll.Group}); err != nil {
		t.Fatal(err)
	}
	if rolls, _ := r.ReadRolls(ctx); len(rolls) != 0 {
		t.Errorf("%+v", rolls)
	}
}

func TestAsks(t *testing.T) {
	r, ctx := open(t), t.Context()
	id, err := r.Ask(ctx, model.Ask{Kind: model.Rebalance, Max: 3, By: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.Read(ctx, Everything)
	if err != nil || len(v.Asks()) != 1 || v.Asks()[0].ID != id || v.Asks()[0].Max != 3 || v.Asks()[0].Kind != model.Rebalance {
		t.Fatalf("%+v, %v", v.Asks(), err)
	}
	limited, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := r.AwaitAsk(limited, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("not done yet: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- r.AwaitAsk(ctx, id) }()
	if _, err := r.DeleteAsks(ctx, lead(t, r), []string{id}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestEvents(t *testing.T) {
	r, ctx := open(t), t.Context()
	start := time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
	event := func(i int) model.Event {
		return model.Event{At: start.Add(time.Duration(i) * time.Second), Kind: model.Scheduled, Unit: fmt.Sprintf("u%d", i%2), What: fmt.Sprint(i)}
	}
	var es []model.Event
	for i := range 2500 {
		es = append(es, event(i))
	}
	if err := r.WriteEvents(ctx, es); err != nil {
		t.Fatal(err)
	}
	what := func(f EventFilter) string {
		t.Helper()
		es, err := r.ReadEvents(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		if len(es) == 0 {
			return "none"
		}
		return fmt.Sprintf("%d: %s to %s", len(es), es[0].What, es[len(es)-1].What)
	}
	for _, c := range []struct {
		f    EventFilter
		want string
	}{
		{EventFilter{}, "2500: 0 to 2499"},
		{EventFilter{Limit: 3}, "3: 2497 to 2499"},
		{EventFilter{Unit: "u0"}, "1250: 0 to 2498"},
		{EventFilter{Unit: "u1", Limit: 2}, "2: 2497 to 2499"},
		{EventFilter{Since: start.Add(2490 * time.Second)}, "10: 2490 to 2499"},
		{EventFilter{Machine: "m"}, "none"},
	} {
		if got := what(c.f); got != c.want {
			t.Errorf("%+v: %s, want %s", c.f, got, c.want)
		}
	}
	if v, err := r.Read(ctx, Everything); err != nil || v.Rev() == 0 {
		t.Error(err)
	}
	l := lead(t, r)
	if n, err := r.TrimEvents(ctx, l, 1000, start.Add(100*time.Second)); err != nil || n != 1500 {
		t.Errorf("%d removed, %v", n, err)
	}
	if n, err := r.TrimEvents(ctx, l, 1000, start.Add(2000*time.Second)); err != nil || n != 500 {
		t.Errorf("%d removed, %v", n, err)
	}
	if got := what(EventFilter{}); got != "500: 2000 to 2499" {
		t.Error(got)
	}
}

// Who follows gets what there is and what comes, once each, and to a view of
// Everything they are no changes.
func TestFollowEvents(t *testing.T) {
	r := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	v, woken := r.NewView(), make(chan int, 100)
	go r.Follow(ctx, Everything, v, func(c []Change, _ bool) { woken <- len(c) })
	<-woken
	write := func(what string) {
		if err := r.WriteEvents(ctx, []model.Event{{Kind: model.Held, What: what}}); err != nil {
			t.Fatal(err)
		}
	}
	write("0")
	write("1")
	var got []string
	enough := errors.New("enough")
	err := r.FollowEvents(ctx, EventFilter{Limit: 1}, func(e model.Event) error {
		if got = append(got, e.What); len(got) == 3 {
			return enough
		}
		write(fmt.Sprint(len(got) + 1))
		return nil
	})
	if !errors.Is(err, enough) || !reflect.DeepEqual(got, []string{"1", "2", "3"}) {
		t.Errorf("%q, %v", got, err)
	}
	for range len(woken) {
		if <-woken > 0 {
			t.Error("events are changes of a view")
		}
	}
}

// The history of what was destroyed is forgotten as a whole.
func TestForgetUnits(t *testing.T) {
	r, ctx := open(t), t.Context()
	for _, name := range []string{"a.service", "b.service"} {
		if err := r.Create(ctx, name, aText, model.Loaded, "", ""); err != nil {
			t.Fatal(err)
		}
		if err := r.Destroy(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.ForgetUnits(ctx, lead(t, r), []string{"a.service"}); err != nil {
		t.Fatal(err)
	}
	v, err := r.Read(ctx, Everything)
	if err != nil || len(v.Destroyed()) != 1 || history(t, r, "a.service") != "" || history(t, r, "b.service") == "" {
		t.Errorf("%v, %v", v.Destroyed(), err)
	}
}

// Records that cannot be read are told, and cost nothing but themselves.
func TestBadOperationRecords(t *testing.T) {
	v := NewView("/f/")
	changes := v.apply([]record{
		set("roll/a", `{"state":"rolled"}`, 1), set("roll/b", `x`, 1), set("machines/m/cordon", `x`, 1),
		set("ask/x-1", `[`, 1), set("destroyed/a.service", `x`, 1),
	}, 1)
	for _, c := range changes {
		if c.Bad == nil {
			t.Errorf("%s is good", c.Path())
		}
	}
	if len(changes) != 5 || len(v.Rolls()) != 2 || v.Rolls()[0].State != "" || v.Cordon("m") == nil || v.Cordon("m").Drain || len(v.Asks()) != 1 {
		t.Errorf("%v %+v %+v", v.Rolls(), v.Cordon("m"), v.Asks())
	}
}
