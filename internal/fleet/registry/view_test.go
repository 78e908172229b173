package registry

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/sched"
	"flotilla/internal/unitfile"
)

const text = "[Service]\nExecStart=/bin/true\n"

func TestPathsThereAndBack(t *testing.T) {
	for _, c := range []struct {
		path string
		key  Key
	}{
		{"job/a.service/object", Key{Kind: KindObject, Unit: "a.service"}},
		{"job/a.service/target-state", Key{Kind: KindDesired, Unit: "a.service"}},
		{"schedule/m/a.service", Key{Kind: KindPlacement, Machine: "m", Unit: "a.service"}},
		{"unplaced/a.service", Key{Kind: KindUnplaced, Unit: "a.service"}},
		{"states/m/a.service", Key{Kind: KindState, Unit: "a.service", Machine: "m"}},
		{"machines/m/object", Key{Kind: KindMachine, Machine: "m"}},
		{"machines/m/metadata/disk", Key{Kind: KindMetadata, Machine: "m", Meta: "disk"}},
		{"lease/engine-leader", Key{Kind: KindLeader}},
		{"engine/hold", Key{Kind: KindHold}},
		{"mark", Key{Kind: KindMark}},
		{"history/a.service/00000001", Key{Kind: KindHistory, Unit: "a.service", ID: "00000001"}},
		{"destroyed/a.service", Key{Kind: KindDestroyed, Unit: "a.service"}},
		{"roll/web@.service", Key{Kind: KindRoll, Group: "web@.service"}},
		{"machines/m/cordon", Key{Kind: KindCordon, Machine: "m"}},
		{"events/0000000000000001-AB", Key{Kind: KindEvent, ID: "0000000000000001-AB"}},
		{"ask/rebalance-AB", Key{Kind: KindAsk, ID: "rebalance-AB"}},
	} {
		got, ok := ParsePath(c.path)
		if !ok || got != c.key {
			t.Errorf("%s is read as %+v, %v", c.path, got, ok)
		}
		if got := c.key.Path(); got != c.path {
			t.Errorf("%+v is written as %s", c.key, got)
		}
	}
	for _, path := range []string{"", "job/a.service/target", "job/a.service/job-state", "unit/0123", "schedule/m", "job//object", "machines/m/metadata/a/b", "engine/version", "states/a.service/m"} {
		if k, ok := ParsePath(path); ok {
			t.Errorf("%q is read as %+v", path, k)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("machines/m/metadata/disk")
	f.Add("job/a@1.service/object")
	f.Fuzz(func(t *testing.T, path string) {
		if k, ok := ParsePath(path); ok && k.Path() != path {
			t.Errorf("%q is read as %+v and written as %q", path, k, k.Path())
		}
	})
}

func set(path, value string, rev int64) record {
	return record{key: "/f/" + path, value: []byte(value), rev: rev}
}

func gone(path string, rev int64) record { return record{key: "/f/" + path, rev: rev, deleted: true} }

func TestRecordsThereAndBack(t *testing.T) {
	at := time.Date(2026, 8, 1, 12, 0, 0, 5, time.UTC)
	p := model.Placement{Machine: "m", Unit: "a.service", Text: text, Hash: unitfile.HashText(text), Desired: model.Launched, Gen: 7, Leaving: true, Watched: true, Rev: 9,
		MoveAfter: 90 * time.Second, WaitFor: model.Forever}
	s := model.UnitState{Unit: "a.service", Machine: "m", Hash: "h", Load: "loaded", Active: "active", Sub: "running", Message: "x", Gen: 7, Heard: 9, At: at,
		Health: model.Bad, HealthWhy: "exited", Log: "no such file\n"}
	u := sched.Unplaced{Unit: "a.service", Why: "no", Verdicts: []sched.Verdict{{Machine: "m", OK: false, Why: "region"}}}
	m := Presence{Machine: model.Machine{ID: "m", IP: "10.0.0.1", Hostname: "one", Metadata: map[string]string{"k": "v"}, Version: "1", PeerAddr: "10.0.0.1:1", PeerKey: "k", Boot: "b", Cores: 4000, Memory: 1 << 33}, Instance: "i"}
	v := NewView("/f/")
	for _, c := range v.reset([]record{
		set("schedule/m/a.service", string(encodePlacement(p)), 9), set("states/m/a.service", string(encodeState(s)), 9),
		set("unplaced/a.service", string(encodeUnplaced(u)), 9), set("machines/m/object", string(encodePresence(m)), 9),
		set("lease/engine-leader", string(encode(leaderRecord{MachineID: "m", Version: 1})), 9), set("engine/hold", "most are away", 9),
	}, 1, 9) {
		if c.Bad != nil {
			t.Error(c.Bad)
		}
	}
	if got := v.Placements(); len(got) != 1 || got[0] != p {
		t.Errorf("placement %+v, want %+v", got, p)
	}
	if got := v.State("a.service", "m"); !reflect.DeepEqual(got, s) {
		t.Errorf("state %+v, want %+v", got, s)
	}
	if got := v.Unplaced("a.service"); !reflect.DeepEqual(got, u) {
		t.Errorf("reason %+v, want %+v", got, u)
	}
	if got, _ := v.Machine("m"); !reflect.DeepEqual(got, m.Machine) {
		t.Errorf("machine %+v, want %+v", got, m.Machine)
	}
	if v.Leader() != "m" || v.Hold() != "most are away" || v.Rev() != 9 {
		t.Errorf("leader %q hold %q rev %d", v.Leader(), v.Hold(), v.Rev())
	}
}

// The object is written as fleet 1.0 wrote it, with our text beside.
func TestObjectRecord(t *testing.T) {
	rec := objectRecord{Name: "a.service", UnitHash: hashFromHex(unitfile.HashText(text)), Raw: text}
	var numbers map[string]any
	b := encode(rec)
	if err := json.Unmarshal(b, &numbers); err != nil {
		t.Fatal(err)
	}
	if list, ok := numbers["UnitHash"].([]any); !ok || len(list) != 20 {
		t.Errorf("UnitHash is %v", numbers["UnitHash"])
	}
}

// A unit is its object and its target state, whatever the order they come in.
func TestUnitOfTwoRecords(t *testing.T) {
	object := set("job/a.service/object", fmt.Sprintf(`{"Raw":%q}`, text), 5)
	want := set("job/a.service/target-state", "launched", 6)
	for _, order := range [][]record{{object, want}, {want, object}} {
		v := NewView("/f/")
		v.apply(order, 6)
		u, ok := v.Unit("a.service")
		if !ok || u.Desired != model.Launched || u.Gen != 6 || u.Text != text || u.Bad != "" {
			t.Errorf("%+v", u)
		}
		v.apply([]record{gone("job/a.service/object", 7)}, 7)
		if _, ok := v.Unit("a.service"); ok {
			t.Error("a unit without an object")
		}
	}
}

// A record that cannot be read is one bad item; the engine sees an entry to write
// anew, the agent one without a text.
func TestBadRecords(t *testing.T) {
	v := NewView("/f/")
	changes := v.apply([]record{
		set("schedule/m/a.service", `{"hash":"0","text":"changed behind our back","desired":"launched"}`, 3),
		set("schedule/m/b.service", `{"hash":"da39a3ee5e6b4b0d3255bfef95601890afd80709","text":"","desired":"inactive"}`, 3),
		set("job/a.service/object", `[]`, 3),
		set("states/m/a.service", `{`, 3),
		set("machines/m/object", `x`, 3),
		set("something/else", `x`, 3),
	}, 3)
	for _, c := range changes {
		if c.Bad == nil || !strings.Contains(c.Bad.Error(), "/f/"+c.Path()) {
			t.Errorf("%s: %v", c.Path(), c.Bad)
		}
	}
	if len(changes) != 5 || len(v.Placements()) != 2 || len(v.States()) != 0 || len(v.Machines()) != 0 {
		t.Errorf("changes %v, placements %v", changes, v.Placements())
	}
	for _, p := range v.Placements() {
		if p.Hash != "" || p.Rev != 3 || p.Machine != "m" {
			t.Errorf("%+v", p)
		}
	}
	if u, ok := v.Unit("a.service"); !ok || u.Bad == "" {
		t.Errorf("%+v, %v", u, ok)
	}
}

// A desired state that makes no sense does not say "inactive": nothing is stopped
// for it.
func TestBadDesiredStateIsNotInactive(t *testing.T) {
	v := NewView("/f/")
	v.apply([]record{
		set("job/a.service/object", fmt.Sprintf(`{"Raw":%q}`, text), 5),
		set("job/a.service/target-state", "launchd", 6),
	}, 6)
	if u, ok := v.Unit("a.service"); !ok || u.Bad == "" || u.Desired == model.Inactive {
		t.Errorf("%+v, %v", u, ok)
	}
}

func TestDynamicMetadataOverConfigured(t *testing.T) {
	v := NewView("/f/")
	v.apply([]record{
		set("machines/m/object", `{"Metadata":{"a":"1","b":"2"}}`, 1),
		set("machines/m/metadata/a", "", 2), set("machines/m/metadata/c", "3", 2),
	}, 2)
	m, _ := v.Machine("m")
	if want := map[string]string{"b": "2", "c": "3"}; !reflect.DeepEqual(m.Metadata, want) {
		t.Errorf("%v, want %v", m.Metadata, want)
	}
	v.apply([]record{gone("machines/m/metadata/a", 3)}, 3)
	if m, _ := v.Machine("m"); m.Metadata["a"] != "1" {
		t.Errorf("%v", m.Metadata)
	}
}

// Whatever the value of a key is, reading it neither panics nor loses others.
func FuzzRecord(f *testing.F) {
	f.Add("job/a.service/object", []byte(`{"Raw":"[Service]\nExecStart=/bin/true\n"}`))
	f.Add("schedule/m/a.service", []byte(`{"hash":"","text":"","desired":"launched"}`))
	f.Add("machines/m/object", []byte(`{"Metadata":null}`))
	f.Add("roll/web@.service", []byte(`{"state":"rolling","texts":{"x":"y"},"since":{"a b":"2026-01-01T00:00:00Z"}}`))
	f.Add("machines/m/cordon", []byte(`{"drain":true}`))
	f.Add("ask/rebalance-1", []byte(`{"kind":"rebalance","max":-1}`))
	f.Add("destroyed/a.service", []byte(`{"at":"2026-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, path string, value []byte) {
		v := NewView("/f/")
		v.apply([]record{set("states/m/z.service", `{"activeState":"active"}`, 1)}, 1)
		v.apply([]record{{key: "/f/" + path, value: value, rev: 2}}, 2)
		v.Units()
		v.Machines()
		v.Placements()
		v.AllUnplaced()
		v.Asks()
		v.Destroyed()
		for _, r := range v.Rolls() {
			for hash, text := range r.Texts {
				if unitfile.HashText(text) != hash {
					t.Errorf("the roll of %s would put back %q for %s", r.Group, text, hash)
				}
			}
		}
		if path != "states/m/z.service" && v.State("z.service", "m").Active != "active" {
			t.Error("another record is lost")
		}
	})
}

// Versions and events come from the store as well: a version whose text is not the
// one that its hash names is no version.
func FuzzVersionAndEvent(f *testing.F) {
	f.Add("00000001", []byte(`{"hash":"","text":"[Service]"}`))
	f.Add("1", []byte(`{"at":"2026-01-01T00:00:00Z","kind":"roll","what":"x"}`))
	f.Fuzz(func(t *testing.T, id string, value []byte) {
		v, err := decodeVersion(Key{Kind: KindHistory, Unit: "a.service", ID: id}, value)
		if err == nil && (v.Seq < 1 || unitfile.HashText(v.Text) != v.Hash) {
			t.Errorf("%+v is a version", v)
		}
		if e, err := decodeEvent(value); err == nil {
			if _, err := decodeEvent(encodeEvent(e)); err != nil {
				t.Errorf("%+v does not come back: %v", e, err)
			}
		}
	})
}

// A view that is loaded again is the same as one that knows nothing from before.
func TestKnownUnitsAreAsIfRead(t *testing.T) {
	values := map[string]string{
		"job/a.service/object": `{"Raw":"[Service]\nExecStart=/bin/a\n"}`, "job/a.service/target-state": "launched",
		"job/b.service/object": `{"Raw":"[Service]\nExecStart=/bin/b\n"}`, "job/b.service/target-state": "launched",
		"job/c@.service/object": `{"Raw":"[Service]\nExecStart=/bin/c\n"}`, "job/c@.service/target-state": "inactive",
		"job/d.service/object": `{"Raw":"[Service]\nExecStart=/bin/d\n"}`, "job/d.service/target-state": "flying",
	}
	again, plain := NewView("/f/"), NewView("/f/")
	again.Load(values, 5)
	values["job/a.service/object"] = `{"Raw":"[Service]\nExecStart=/bin/a --new\n"}`
	values["job/b.service/restart"] = ""
	values["job/c@.service/target-state"] = "launched" // of a template: no such thing
	again.Load(values, 9)
	plain.Load(values, 9)
	if diff := cmp.Diff(plain.Units(), again.Units()); diff != "" {
		t.Errorf("loaded again (-read, +known):\n%s", diff)
	}
}
