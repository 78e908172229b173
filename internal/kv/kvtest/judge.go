package kvtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v2error"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"

	"flotilla/api/keys"
	"flotilla/internal/kv/v2"
)

// Judge is etcd's own v2 store: what it answers is right.
type Judge struct {
	t     testing.TB
	store v2store.Store
}

// NewJudge makes an empty store, at index 0.
func NewJudge(t testing.TB) *Judge { return &Judge{t, v2store.New()} }

// Index is the store's index.
func (j *Judge) Index() uint64 { return j.store.Index() }

// Expire removes what is due.
func (j *Judge) Expire(now time.Time) { j.store.DeleteExpiredKeys(now) }

// Rules reports whether the judge can tell: the v2 store of today fails to update
// a directory, which the one that was served did.
func (j *Judge) Rules(r v2.Request) bool {
	if r.Op != v2.Update || r.Value != "" {
		return true
	}
	e, err := j.store.Get(r.Path, false, false)
	return err != nil || !e.Node.Dir
}

// Ask returns the answer as Text does.
func (j *Judge) Ask(r v2.Request, now time.Time) string {
	e, err := j.ask(r, now)
	if verr, ok := errors.AsType[*v2error.Error](err); ok {
		cause := verr.Cause
		if r.Op == v2.CompareAndDelete && r.Path == "/" {
			cause = "" // as etcd served it, where this was not the store's own root
		}
		return keys.NewError(verr.ErrorCode, cause, verr.Index).Error()
	}
	if err != nil {
		j.t.Fatalf("judge: %+v: %v", r, err)
	}
	return plain(e)
}

func (j *Judge) ask(r v2.Request, now time.Time) (*v2store.Event, error) {
	ttl := v2store.TTLOptionSet{Refresh: r.Refresh}
	if at := r.Expires(now); at != nil {
		ttl.ExpireTime = *at
	}
	switch r.Op {
	case v2.Set:
		return j.store.Set(r.Path, r.Dir, r.Value, ttl)
	case v2.Create:
		return j.store.Create(r.Path, r.Dir, r.Value, false, ttl)
	case v2.Post:
		return j.store.Create(r.Path, r.Dir, r.Value, true, ttl)
	case v2.Update:
		return j.store.Update(r.Path, r.Value, ttl)
	case v2.CompareAndSwap:
		return j.store.CompareAndSwap(r.Path, r.PrevValue, r.PrevIndex, r.Value, ttl)
	case v2.Delete:
		return j.store.Delete(r.Path, r.Dir, r.Recursive)
	case v2.CompareAndDelete:
		return j.store.CompareAndDelete(r.Path, r.PrevValue, r.PrevIndex)
	}
	return j.store.Get(r.Path, r.Recursive, true)
}

// Watch streams the events at the path from now on. The function returns those since
// it was called last, each as Text does.
func (j *Judge) Watch(path string, recursive bool) func() string {
	w, err := j.store.Watch(path, recursive, true, 0)
	if err != nil {
		j.t.Fatalf("judge: watch %s: %v", path, err)
	}
	return func() string {
		var b strings.Builder
		last := ""
		for {
			select {
			case e := <-w.EventChan():
				if text := plain(e); text != last { // the original tells some things twice
					last = text
					b.WriteString(text)
				}
				continue
			default:
			}
			return b.String()
		}
	}
}

// Text is an answer without what depends on the wall clock.
func Text(e *keys.Event, err *keys.Error) string {
	if err != nil {
		return err.Error()
	}
	return plain(e)
}

func plain(e any) string {
	var k *keys.Event
	b, err := json.Marshal(e)
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil || k == nil {
		return fmt.Sprintf("no event: %v\n", err)
	}
	withoutTTL(k.Node)
	withoutTTL(k.PrevNode)
	if k.Node != nil && k.Node.Key == "/" {
		k.Node.Key = ""
	}
	b, _ = json.MarshalIndent(k, "", " ") // it has just been read from JSON
	return string(b) + "\n"
}

func withoutTTL(n *keys.Node) {
	if n == nil {
		return
	}
	n.TTL = 0
	for _, c := range n.Nodes {
		withoutTTL(c)
	}
}

// Request makes a request that has a fair chance to meet what others like it have
// left behind. index is about where the store stands.
func Request(rng *rand.Rand, index uint64) v2.Request {
	r := v2.Request{Op: v2.Op(rng.IntN(int(v2.Post) + 1)), Path: Path(rng)}
	if rng.IntN(3) == 0 {
		r.Op = v2.Set
	}
	r.Value = []string{"", "x", "y"}[rng.IntN(3)]
	r.Dir = rng.IntN(4) == 0
	r.Recursive = rng.IntN(3) == 0
	if rng.IntN(4) == 0 {
		ttl := uint64(rng.IntN(60))
		r.TTL = &ttl
		r.Refresh = rng.IntN(2) == 0
	}
	if r.Refresh {
		r.Value = ""
	}
	if r.Op == v2.CompareAndSwap || r.Op == v2.CompareAndDelete {
		r.PrevValue = []string{"", "x", "y"}[rng.IntN(3)]
		if r.PrevValue == "" || rng.IntN(4) == 0 {
			r.PrevIndex = max(1, index-min(index, uint64(rng.IntN(20))))
		}
	}
	return r
}

// Path makes a path of few names, at times the root.
func Path(rng *rand.Rand) string {
	names := []string{"a", "b", "c", "_h"}
	var b strings.Builder
	for range rng.IntN(4) {
		b.WriteString("/" + names[rng.IntN(len(names))])
	}
	switch {
	case b.Len() > 0:
		return b.String()
	case rng.IntN(3) == 0:
		return "/"
	}
	return "/a"
}
