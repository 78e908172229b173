package unitshttp

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

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
	for m := range machines {
		put(fmt.Sprintf("machines/%032x/object", m), `{"ID":"%032x","Metadata":{"zone":"%d"},"Cores":16000,"Memory":%d}`, m, m%3, 64<<30)
	}
	for u := range units {
		name := fmt.Sprintf("job%d@%d.service", u/20, u)
		text := fmt.Sprintf("[Service]\nExecStart=/bin/job %d\nMemoryMax=64M\n\n[X-Fleet]\nMachineMetadata=zone=%d\n", u, u%machines%3)
		raw, hash := fmt.Sprintf("%q", text), unitfile.HashText(text)
		put("job/"+name+"/object", `{"Raw":%s}`, raw)
		put("job/"+name+"/target-state", "launched")
		put(fmt.Sprintf("schedule/%032x/%s", u%machines, name), `{"hash":"%s","text":%s,"desired":"launched","gen":1}`, hash, raw)
		put(fmt.Sprintf("states/%032x/%s", u%machines, name), `{"loadState":"loaded","activeState":"active","subState":"running","unitHash":"%s","gen":1}`, hash)
	}
	for batch := range slices.Chunk(puts, 100) {
		if _, err := a.raw.Txn(b.Context()).Then(batch...).Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

// What fleetctl why and what-if cost with the largest cluster, the reading of it from
// the store included: a person waits for the answer.
func BenchmarkExplain(b *testing.B) {
	a := newAPI(b, membertest.Start(b), "/bench/")
	a.fill(b, 500, 10_000)
	for _, c := range []struct{ name, path, want string }{
		{"why", "/fleet/v1/units/job100@2000.service/why", `"ok":true`},
		{"what-if drain", fmt.Sprintf("/fleet/v1/what-if?drain=%032x", 7), `"moves":[`},
		{"what-if lose", fmt.Sprintf("/fleet/v1/what-if?lose=%032x", 7), `"moves":[`},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				answer := a.answer("GET", c.path, nil)
				if !strings.HasPrefix(answer.Name, "200 ") || !strings.Contains(string(answer.Data), c.want) {
					b.Fatalf("%s: %.200s", answer.Name, answer.Data)
				}
			}
		})
	}
}
