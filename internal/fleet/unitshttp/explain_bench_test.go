package unitshttp

import (
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/sched"
	"flotilla/internal/kv/member/membertest"
	"flotilla/internal/unitfile"
)

// fill writes a cluster at rest of so many machines and units into the store, behind
// the server's back.
func (a *api) fill(b *testing.B, machines, units int) {
	b.Helper()
	var puts []clientv3.Op
	put := func(key, format string, args ...any) {
		puts = append(puts, clientv3.OpPut(a.prefix+key, fmt.Sprintf(format, args...)))
	}
	commit := func() (rev int64) {
		resp, err := a.raw.Txn(b.Context()).Then(puts...).Commit()
		if err != nil {
			b.Fatal(err)
		}
		puts = nil
		return resp.Header.Revision
	}
	for m := range machines {
		put(fmt.Sprintf("machines/%032x/object", m), `{"ID":"%032x","Metadata":{"zone":"%d"},"Cores":16000,"Memory":%d}`, m, m%3, 64<<30)
		if len(puts) == 100 {
			commit()
		}
	}
	for first := 0; first < units; first += 50 {
		these := min(50, units-first)
		for u := first; u < first+these; u++ {
			put("job/"+nameOf(u)+"/object", `{"Raw":%q}`, textOf(u, machines))
			put("job/"+nameOf(u)+"/target-state", "launched")
		}
		gen := commit()
		for u := first; u < first+these; u++ {
			text := textOf(u, machines)
			put(fmt.Sprintf("schedule/%032x/%s", u%machines, nameOf(u)), `{"hash":"%s","text":%q,"desired":"launched","gen":%d}`, unitfile.HashText(text), text, gen)
			put(fmt.Sprintf("states/%032x/%s", u%machines, nameOf(u)), `{"loadState":"loaded","activeState":"active","subState":"running","unitHash":"%s","gen":%d}`, unitfile.HashText(text), gen)
		}
		commit()
	}
	if _, snap, err := a.snapshot(b.Context()); err != nil || len(sched.Decide(snap).Decisions) > 0 {
		b.Fatal("the cluster is not at rest", err)
	}
}

func nameOf(u int) string { return fmt.Sprintf("job%d@%d.service", u/20, u) }

func textOf(u, machines int) string {
	return fmt.Sprintf("[Service]\nExecStart=/bin/job %d\nMemoryMax=64M\n\n[X-Fleet]\nMachineMetadata=zone=%d\n", u, u%machines%3)
}

// What fleetctl why and what-if cost with the largest cluster, the reading of it from
// the store included: a person waits for the answer. Who asks first waits for all of it
// to be read.
func BenchmarkExplain(b *testing.B) {
	url := membertest.Start(b)
	newAPI(b, url, "/bench/").fill(b, 500, 10_000)
	a := newAPI(b, url, "/bench/")
	for _, c := range []struct{ name, path, want string }{
		{"why", "/fleet/v1/units/job100@2000.service/why", `"ok":true`},
		{"what-if drain", fmt.Sprintf("/fleet/v1/what-if?drain=%032x", 7), `"moves":[`},
		{"what-if lose", fmt.Sprintf("/fleet/v1/what-if?lose=%032x", 7), `"moves":[`},
	} {
		all := b
		b.Run(c.name+" first", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				a.Store.Close()
				a = newAPI(all, url, "/bench/")
				b.StartTimer()
				a.explain(b, c.path, c.want)
			}
		})
		b.Run(c.name+" again", func(b *testing.B) {
			for b.Loop() {
				a.explain(b, c.path, c.want)
			}
		})
	}
}

func (a *api) explain(b *testing.B, path, want string) {
	b.Helper()
	answer := a.answer("GET", path, nil)
	if !strings.HasPrefix(answer.Name, "200 ") || !strings.Contains(string(answer.Data), want) {
		b.Fatalf("%s: %.200s", answer.Name, answer.Data)
	}
}
