package v2_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/kv/kvtest"
	"flotilla/internal/kv/v2"
)

var oracleRequests = flag.Int("oracle.requests", 30_000, "random requests that are compared with etcd's own v2 store")

// TestOracle answers random requests with etcd's own v2 store and with the tree,
// and compares answers, indexes, and what a number of watchers see.
func TestOracle(t *testing.T) {
	const perRun = 500
	for seed := range uint64(*oracleRequests/perRun + 1) {
		o := newOracle(t, seed)
		for range perRun {
			o.step()
		}
	}
}

type oracle struct {
	t        *testing.T
	seed     uint64
	rng      *rand.Rand
	now      time.Time
	judge    *kvtest.Judge
	ours     *gateway
	watchers []watcher
	log      []string
}

// watcher is a watch on both.
type watcher struct {
	path      string
	recursive bool
	theirs    func() string
}

func newOracle(t *testing.T, seed uint64) *oracle {
	o := &oracle{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)),
		now:   time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		judge: kvtest.NewJudge(t), ours: newGateway(),
	}
	for _, path := range []string{"/", "/a", "/a/b", "/a/_h", "/_h", "/c", "/a/b/c", "/_h/a"} {
		for _, recursive := range []bool{false, true} {
			o.watchers = append(o.watchers, watcher{path, recursive, o.judge.Watch(path, recursive)})
		}
	}
	return o
}

func (o *oracle) step() {
	o.now = o.now.Add(time.Duration(1+o.rng.IntN(3_000_000)) * time.Microsecond)
	o.judge.Expire(o.now)
	o.compareWatches(o.ours.expire(o.t, o.now))
	r := kvtest.Request(o.rng, o.ours.tree.Index())
	if !o.judge.Rules(r) {
		return
	}
	o.log = append(o.log, fmt.Sprintf("%+v", r))
	want := o.judge.Ask(r, o.now)
	event, kerr, changes := o.ours.do(o.t, r, o.now)
	o.compare("answer", want, kvtest.Text(event, kerr))
	o.compareWatches(changes)
	if o.rng.IntN(20) == 0 {
		o.compare("tree that is loaded now", o.ours.tree.Dump(o.now), o.ours.load().Dump(o.now))
	}
}

func (o *oracle) compareWatches(changes []v2.Change) {
	o.t.Helper()
	for _, w := range o.watchers {
		var got strings.Builder
		for _, c := range changes {
			if c.Matches(w.path, w.recursive) {
				got.WriteString(kvtest.Text(c.Event, nil))
			}
		}
		o.compare(fmt.Sprintf("watch %s recursive=%v", w.path, w.recursive), w.theirs(), got.String())
	}
}

func (o *oracle) compare(what, want, got string) {
	o.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		o.t.Fatalf("seed %d: %s (-want +got):\n%s\nrequests:\n%s",
			o.seed, what, diff, strings.Join(o.log[max(0, len(o.log)-15):], "\n"))
	}
}

// TestForeignWrites lets v3 clients write between the v2 requests: below files,
// at directories, several keys at once. Whoever followed and whoever starts now must see
// the same tree, and a v2 write must not lose a guard that it has just been given.
func TestForeignWrites(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		g := newGateway()
		now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
		var log []string
		for range 300 {
			now = now.Add(time.Duration(rng.IntN(2000)) * time.Millisecond)
			g.expire(t, now)
			if rng.IntN(2) == 0 {
				writes := foreign(rng)
				log = append(log, fmt.Sprintf("%+v", writes))
				g.tree.Apply(g.commit(writes...), now)
			} else {
				r := kvtest.Request(rng, g.tree.Index())
				log = append(log, fmt.Sprintf("%+v", r))
				if event, kerr, _ := g.do(t, r, now); event == nil && kerr == nil {
					t.Fatalf("seed %d: no answer to %+v", seed, r)
				}
			}
			if diff := cmp.Diff(g.load().Dump(now), g.tree.Dump(now)); diff != "" {
				t.Fatalf("seed %d: loaded and followed differ (-loaded +followed):\n%s\n%s", seed, diff,
					strings.Join(log[max(0, len(log)-10):], "\n"))
			}
		}
		for {
			plan, ok := g.tree.Sweep()
			if !ok {
				break
			}
			if _, _, changes := g.carryOut(t, plan, now); len(changes) > 0 {
				t.Fatalf("seed %d: sweeping is seen: %+v", seed, changes)
			}
		}
	}
}

// foreign is a transaction of a v3 client, which knows no rules of v2.
func foreign(rng *rand.Rand) []v2.Write {
	key := kvtest.Path(rng) + []string{"", "", "", "/", "//x"}[rng.IntN(5)]
	switch rng.IntN(5) {
	case 0:
		return []v2.Write{{Kind: v2.DeleteKey, Key: key}}
	case 1:
		return []v2.Write{{Kind: v2.DeleteKey, Key: key, End: key + "\xff"}}
	case 2:
		other := kvtest.Path(rng) + "/other"
		return []v2.Write{{Kind: v2.Put, Key: key, Value: "f"}, {Kind: v2.Put, Key: other, Value: "g"}}
	}
	return []v2.Write{{Kind: v2.Put, Key: key, Value: "f"}}
}

// TestAudience: the index by paths finds what matching one by one finds.
func TestAudience(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	g := newGateway()
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for range 3000 {
		_, _, changes := g.do(t, kvtest.Request(rng, g.tree.Index()), now)
		for _, c := range changes {
			path, recursive := kvtest.Path(rng), rng.IntN(2) == 0
			times := 0
			for p, all := range c.Audience() {
				if p == path && (all || recursive) {
					times++
				}
			}
			if want := c.Matches(path, recursive); times > 1 || (times == 1) != want {
				t.Fatalf("%s %s at %s recursive=%v: %d times, matches %v",
					c.Event.Action, c.Event.Node.Key, path, recursive, times, want)
			}
		}
	}
}
