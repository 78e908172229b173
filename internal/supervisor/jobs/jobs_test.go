package jobs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/supervisor/service"
	"flotilla/internal/unit"
)

// world is units by one-line descriptions: "STATE Relation=a,b Relation=c".
type world map[string]string

func (w world) Names() []string {
	var out []string
	for n := range w {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func (w world) Node(name string) Node {
	text, ok := w[name]
	if !ok {
		return Node{Err: errors.New("Unit " + name + " not found.")}
	}
	f := strings.Fields(text)
	n := Node{State: service.State(f[0]), External: f[0] == "external", Through: f[0] == "dead"}
	lists := map[string]*[]string{
		"Requires": &n.Requires, "Requisite": &n.Requisite, "Wants": &n.Wants, "BindsTo": &n.BindsTo,
		"PartOf": &n.PartOf, "Conflicts": &n.Conflicts, "After": &n.After, "Before": &n.Before,
	}
	for _, rel := range f[1:] {
		name, units, _ := strings.Cut(rel, "=")
		*lists[name] = strings.Split(units, ",")
	}
	return n
}

func text(list []unit.Job) string {
	var out []string
	for _, j := range list {
		out = append(out, fmt.Sprintf("%s %s", j.Kind, j.Unit))
	}
	return strings.Join(out, ", ")
}

func TestPlan(t *testing.T) {
	w := world{
		"db": "dead", "cache": "dead", "net": "external", "web": "dead Requires=db,net Wants=cache,nowhere After=db",
		"lost": "dead Requires=nowhere", "hopes": "dead Wants=lost", "up": "running", "leans": "running Requires=up",
		"part": "running PartOf=up", "idle": "dead PartOf=up", "bound": "running BindsTo=leans",
		"day": "running Conflicts=night", "night": "dead", "torn": "dead Requires=db Conflicts=db", "needs": "dead Requisite=up",
	}
	for _, c := range []struct {
		kind       unit.Kind
		unit, want string
	}{
		{unit.Start, "web", "start web, start db, start cache"},
		{unit.Start, "lost", "error: Unit nowhere not found."},
		{unit.Start, "hopes", "start hopes"},
		{unit.Start, "nowhere", "error: Unit nowhere not found."},
		{unit.Stop, "up", "stop up, stop leans, stop bound, stop part"},
		{unit.Restart, "up", "restart up, restart leans, restart bound, restart part"},
		{unit.Start, "night", "start night, stop day"},
		{unit.Start, "day", "start day"},
		{unit.Start, "needs", "start needs, verify-active up"},
		{unit.Start, "torn", "error: the jobs contradict each other: torn would have to start and to stop"},
	} {
		list, err := Plan(w, c.kind, c.unit)
		got := text(list)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want {
			t.Errorf("%s %s: got %s, want %s", c.kind, c.unit, got, c.want)
		}
	}
}

func TestOrder(t *testing.T) {
	w := world{"a": "dead Before=b", "b": "running", "c": "dead After=b", "x": "dead After=y", "y": "dead After=z", "z": "dead After=x"}
	for _, c := range []struct{ jobs, want string }{
		{"start a, start b, start c", "start a"},
		{"stop a, stop b, stop c", "stop c"},
		{"start a, stop b", "stop b"},            // the later one stops first
		{"stop b, start c", "stop b"},            // a stop goes before a start
		{"start a, start c", "start a, start c"}, // they do not know each other
		{"start x, start y, start z", "start x"}, // a cycle is broken by the oldest
	} {
		var q Queue
		var list []unit.Job
		for _, j := range strings.Split(c.jobs, ", ") {
			kind, name, _ := strings.Cut(j, " ")
			list = append(list, unit.Job{Kind: unit.Kind(kind), Unit: name})
		}
		q.Add(list, "", 0)
		if got := text(q.Runnable(w)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.jobs, got, c.want)
		}
	}
}

func TestFailureTakesDependentsWithIt(t *testing.T) {
	w := world{"db": "dead", "web": "dead Requires=db After=db", "edge": "dead BindsTo=web", "free": "dead Wants=db"}
	var q Queue
	q.Add([]unit.Job{{Kind: unit.Start, Unit: "edge"}, {Kind: unit.Start, Unit: "web"}, {Kind: unit.Start, Unit: "db"}, {Kind: unit.Start, Unit: "free"}}, "edge", 7)
	q.Begin("db")
	var got []string
	for _, e := range q.Finish(w, "db", unit.Failed) {
		got = append(got, fmt.Sprintf("%s %s %v", e.Unit, e.Result, e.IDs))
	}
	if want := "db failed [], web dependency [], edge dependency [7]"; strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
	if q.Len() != 1 {
		t.Errorf("%d jobs are left", q.Len())
	}
}

// What runs, failed or has a job stays loaded, with all that it names, however far.
func TestLoaded(t *testing.T) {
	w := world{
		"web": "running After=db", "db": "dead Wants=disk", "disk": "dead", "broken": "failed Conflicts=gone", "gone": "dead",
		"queued": "dead Before=next", "next": "dead", "alone": "dead After=friend", "friend": "dead After=alone",
	}
	var q Queue
	q.Add([]unit.Job{{Kind: unit.Start, Unit: "queued"}}, "", 0)
	var got []string
	for name := range q.Loaded(w) {
		got = append(got, name)
	}
	slices.Sort(got)
	if want := "broken db disk gone next queued web"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %s", got, want)
	}
}

func TestJobsOfOneUnitMergeOrReplace(t *testing.T) {
	var q Queue
	q.Add([]unit.Job{{Kind: unit.Start, Unit: "a"}}, "a", 1)
	q.Add([]unit.Job{{Kind: unit.Start, Unit: "a"}}, "a", 2)
	q.Begin("a")
	ended := q.Add([]unit.Job{{Kind: unit.Stop, Unit: "a"}}, "a", 3)
	if len(ended) != 1 || ended[0].Result != unit.Canceled || !slices.Equal(ended[0].IDs, []int{1, 2}) {
		t.Errorf("ended: %+v", ended)
	}
	q.Add([]unit.Job{{Kind: unit.Restart, Unit: "b"}}, "b", 4)
	q.Begin("b")
	q.Stopped("b")
	if kind, running, _ := q.Job("b"); kind != unit.Start || running {
		t.Errorf("after its stop a restart is %s, running %v", kind, running)
	}
}
