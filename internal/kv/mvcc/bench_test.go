package mvcc

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"

	"flotilla/internal/kv/kvtest"
	"flotilla/internal/kv/v2"
)

// The candidates for how a v2 write is recorded in the v3 store, see
// docs/adr/0001-v2-on-v3.md. A plain put is what v3 itself costs.
const (
	plainPut    = "put"    // a v3 put, no transaction
	sparse      = "sparse" // guards; a record only where v3 cannot tell
	eventRecord = "event"  // the same guards; an event record in every transaction
	eventSerial = "serial" // an event record, and its revision is the only guard
)

// BenchmarkRecord compares the candidates: a plain v2 set of a 100-byte value,
// with fsync, from one client and from 64.
func BenchmarkRecord(b *testing.B) {
	for _, clients := range []int{1, 64} {
		for _, candidate := range []string{plainPut, sparse, eventRecord, eventSerial} {
			b.Run(fmt.Sprintf("%s/clients=%d", candidate, clients), func(b *testing.B) {
				benchmarkRecord(b, candidate, clients)
			})
		}
	}
}

func benchmarkRecord(b *testing.B, candidate string, clients int) {
	engine := kvtest.Start(b, func(c *embed.Config) { c.UnsafeNoFsync = false })
	s := start(b, Config{Client: kvtest.InProcess(b, engine)})
	value := fmt.Sprintf("%0100d", 7)
	for i := range 100 {
		must(b, s, set(fmt.Sprintf("/dir/%d", i), value))
	}
	c := contender{s: s, candidate: candidate}
	c.record.Store(c.write(b, v2.Plan{Writes: []v2.Write{{Kind: v2.Put, Key: eventRecordKey, Value: "{}"}}}))
	before := engine.Server.Backend().SizeInUse()
	var next atomic.Int64
	b.SetParallelism((clients + 1) / 2) // of 2 processors
	if clients == 1 {
		b.ResetTimer()
		for b.Loop() {
			c.set(b, int(next.Add(1)), value)
		}
	} else {
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c.set(b, int(next.Add(1)), value)
			}
		})
	}
	b.StopTimer()
	engine.Server.Backend().ForceCommit()
	b.ReportMetric(float64(engine.Server.Backend().SizeInUse()-before)/float64(b.N), "dbB/op")
	b.ReportMetric(float64(c.lost.Load())/float64(b.N), "lost/op")
}

const eventRecordKey = ".v2/e"

// contender writes in the way of one candidate.
type contender struct {
	s         *Store
	candidate string
	record    atomic.Uint64 // revision of the event record
	lost      atomic.Int64  // guards
}

func (c *contender) set(b *testing.B, i int, value string) {
	r := set(fmt.Sprintf("/dir/%d", i%100), value)
	if c.candidate == plainPut {
		if _, err := c.s.cfg.Client.Put(context.Background(), r.Path, value); err != nil {
			b.Error(err)
		}
		return
	}
	for {
		plan, _, kerr := c.s.evaluate(r)
		if kerr != nil {
			b.Error(kerr)
			return
		}
		c.annotate(&plan, r.Path)
		if c.write(b, plan) != 0 {
			return
		}
		c.lost.Add(1)
	}
}

// annotate turns a sparse plan into the candidate's.
func (c *contender) annotate(plan *v2.Plan, path string) {
	if c.candidate == sparse {
		return
	}
	plan.Writes = append(plan.Writes, v2.Write{
		Kind: v2.Put, Key: eventRecordKey, Value: `{"action":"set","key":"` + path + `"}`,
	})
	if c.candidate == eventSerial {
		plan.Guards = []v2.Guard{{Key: eventRecordKey, Field: v2.ModifiedIs, Revision: c.record.Load()}}
	}
}

// write commits and waits for the tree; 0 is a lost guard.
func (c *contender) write(b *testing.B, plan v2.Plan) uint64 {
	ok, revision, err := c.s.transact(context.Background(), plan)
	if err == nil {
		err = c.s.await(context.Background(), revision, !ok)
	}
	if err != nil {
		b.Error(err)
	}
	if !ok {
		return 0
	}
	c.record.Store(max(c.record.Load(), revision))
	return revision
}

// BenchmarkReplay reads a history of 1,000 revisions from a store of 10,000 keys,
// which is what a watch costs that reaches back beyond the memory of its gateway.
func BenchmarkReplay(b *testing.B) {
	engine := kvtest.Start(b)
	s := start(b, Config{Client: kvtest.InProcess(b, engine)})
	for i := range 10_000 {
		must(b, s, set(fmt.Sprintf("/dir/%d/%d", i%100, i), "value"))
	}
	from := s.Index() + 1
	for i := range 1000 {
		must(b, s, set("/other", fmt.Sprint(i)))
	}
	late := start(b, Config{Client: kvtest.InProcess(b, engine)})
	b.ResetTimer()
	for b.Loop() {
		w, err := late.Watch(b.Context(), v2.Request{Path: "/other", WaitIndex: from, Stream: true})
		if err != nil {
			b.Fatal(err)
		}
		for range 1000 {
			if _, err := w.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		w.Close()
	}
}
