package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
)

// raw writes keys behind the registry's back, "PATH=VALUE" or "PATH" that is to go, in
// one transaction.
func (r *Registry) raw(t *testing.T, writes ...string) int64 {
	t.Helper()
	var ops []clientv3.Op
	for _, w := range writes {
		if path, value, put := strings.Cut(w, "="); put {
			ops = append(ops, clientv3.OpPut(r.prefix+path, value))
		} else {
			ops = append(ops, clientv3.OpDelete(r.prefix+path))
		}
	}
	resp, err := r.client.Txn(t.Context()).Then(ops...).Commit()
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

const aRecord = `{"Raw":"[Service]\nExecStart=/bin/true\n"}`

// Who follows one unit is told what who follows everything is told of it, in that order,
// and nothing else is read.
func TestFollowUnits(t *testing.T) {
	r := open(t)
	r.raw(t, "job/web@1.service/object="+aRecord, "job/web@2.service/object="+aRecord, "job/other.service/object="+aRecord,
		"machines/m/object={}", "machines/n/metadata/disk=ssd", "schedule/m/web@1.service={}", "schedule/gone/web@2.service={}",
		"schedule/gone/other.service={}", "states/m/web@1.service={}", "states/m/other.service={}", "states/gone/web@1.service={}",
		"unplaced/web@1.service={}", "roll/web@.service={}", "roll/other.service={}")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	u := newUnitSet([]string{"web@1.service"})
	follow := func(do func(v *View, changed func([]Change, bool)), v *View) <-chan string {
		told := make(chan string, 1000)
		go do(v, func(cs []Change, loaded bool) {
			if loaded {
				slices.SortFunc(cs, func(a, b Change) int { return strings.Compare(a.Path(), b.Path()) })
				cs = slices.CompactFunc(cs, func(a, b Change) bool { return a.Path() == b.Path() }) // the mark
			}
			for _, c := range cs {
				if u.wants(c.Key) && c.Kind != KindMark {
					told <- fmt.Sprintf("loaded=%v deleted=%v %s", loaded, c.Deleted, c.Path())
				}
			}
		})
		return told
	}
	one, every := r.NewView(), r.NewView()
	all := follow(func(v *View, changed func([]Change, bool)) { r.Follow(ctx, Everything, v, changed) }, every)
	few := follow(func(v *View, changed func([]Change, bool)) { r.FollowUnits(ctx, u.names, v, changed) }, one)
	eventually(t, "both have begun", func() bool { return one.Rev() > 0 && every.Rev() > 0 })
	if got, want := fmt.Sprint(one.Units(), one.Placements(), one.StatesOf("other.service"), one.Rolls()), "other.service"; strings.Contains(got, want) {
		t.Errorf("of another unit is held: %s", got)
	}
	for _, writes := range []string{
		"job/web@1.service/target-state=launched job/other.service/target-state=launched",
		"schedule/m/web@2.service={} schedule/gone/web@2.service", "states/m/other.service", "states/n/web@1.service={}",
		"machines/n/object={} machines/n/cordon={}", "roll/web@.service={}", "roll/other.service", "machines/m/object",
		"unplaced/web@1.service", "job/web@1.service/restart=1", "states/m/web@1.service", "job/web@1.service/object",
	} {
		r.raw(t, strings.Fields(writes)...)
	}
	next := func(told <-chan string) string {
		select {
		case s := <-told:
			return s
		case <-ctx.Done():
			return "no more"
		}
	}
	for last := ""; last != "loaded=false deleted=true job/web@1.service/object"; {
		want, got := next(all), next(few)
		if last = want; got != want || want == "no more" {
			t.Fatalf("told %q, who follows everything is told %q", got, want)
		}
	}
	if len(all) > 0 || len(few) > 0 {
		t.Error("there is more")
	}
}

// What is written between the two reads is told as a change, even if it is where the
// second one looks.
func TestFollowUnitsMissesNothing(t *testing.T) {
	r := open(t)
	r.raw(t, "mark=x", "job/a.service/object="+aRecord, "machines/m/object={}", "schedule/m/a.service={}", `states/m/a.service={"activeState":"one"}`)
	way := (&unreliable{}).on(r)
	way.answered = func() error {
		way.answered = nil
		r.raw(t, `states/m/a.service={"activeState":"two"}`, "schedule/m/a.service", "schedule/n/a.service={}", `states/n/a.service={"activeState":"new"}`)
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var told []string
	v := r.NewView()
	r.FollowUnits(ctx, []string{"a.service"}, v, func(cs []Change, loaded bool) {
		on := ""
		for _, p := range v.PlacementsOf("a.service") {
			on += p.Machine
		}
		told = append(told, fmt.Sprintf("%v %s/%s on %s", loaded, v.State("a.service", "m").Active, v.State("a.service", "n").Active, on))
		if !loaded {
			cancel()
		}
	})
	if got := strings.Join(told, ", "); got != "true one/ on m, false two/new on n" {
		t.Error(got)
	}
}

// A lead that nobody has been given writes nothing, also while nobody leads.
func TestNoLeadership(t *testing.T) {
	r, ctx := open(t), t.Context()
	hold := "x"
	for name, err := range map[string]error{
		"notes":  second(r.WriteNotes(ctx, Leadership{}, Notes{Hold: &hold})),
		"asks":   second(r.DeleteAsks(ctx, Leadership{}, []string{"x"})),
		"units":  second(r.ForgetUnits(ctx, Leadership{}, []string{"a.service"})),
		"events": second(r.TrimEvents(ctx, Leadership{}, 1, time.Now())),
	} {
		if !errors.Is(err, ErrNotLeader) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v, err := r.Read(ctx, Everything); err != nil || v.Hold() != "" {
		t.Errorf("written is %q, %v", v.Hold(), err)
	}
	_, _, err := r.WriteRolls(ctx, Leadership{}, []model.Roll{{Group: "a.service", State: model.Rolling}}, nil)
	if !errors.Is(err, ErrNotLeader) {
		t.Errorf("rolls: %v", err)
	}
}
