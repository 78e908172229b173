package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// lineage is what is known of the store's history: which store it is, and the highest
// revision that it was heard of with. The zero value knows nothing.
type lineage struct {
	mu    sync.Mutex
	known position
	era   int // counts the stores: another one, or the same set back to an earlier time
}

// knowledge is a lineage at some moment.
type knowledge struct {
	position
	era int
}

func (l *lineage) now() knowledge {
	l.mu.Lock()
	defer l.mu.Unlock()
	return knowledge{l.known, l.era}
}

// hear takes note of an answer of the store.
func (l *lineage) hear(h *etcdserverpb.ResponseHeader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known.cluster == 0 {
		l.known.cluster = h.ClusterId
	}
	if l.known.cluster == h.ClusterId {
		l.known.rev = max(l.known.rev, h.Revision)
	}
}

// verdict is what an answer says of the store's history.
type verdict int

const (
	same    verdict = iota // it goes on, as far as one can tell
	another                // it is another store
	setBack                // it was set back to an earlier time
)

// judge compares what a linearizable read has found with what was known when it was
// sent.
func judge(before, found position) verdict {
	switch {
	case before.cluster != 0 && found.cluster != before.cluster, before.mark != "" && found.mark != before.mark:
		return another
	case found.rev < before.rev:
		return setBack
	}
	return same
}

// learn takes over what was found, unless somebody else has learnt meanwhile that the
// history is another: then it reports false.
func (l *lineage) learn(before knowledge, found position, v verdict) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.era != before.era {
		return false
	}
	if v == same {
		found.rev = max(found.rev, l.known.rev)
	} else {
		l.era++
	}
	l.known = found
	return true
}

// marked notes that the store has another mark now, or one that is not known ("").
func (l *lineage) marked(mark string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known.mark = mark
}

// recognize takes note of what a linearizable read has found, and reports whether that
// may be out of date. The registry in a store that was set back gets another mark: its
// revisions will be what they were before with other contents, and whoever comes later
// could not tell. A user of the store who may not write the mark goes without.
func (r *Registry) recognize(ctx context.Context, before knowledge, found position) (again bool, err error) {
	v := judge(before.position, found)
	if !r.past.learn(before, found, v) {
		return true, nil
	}
	if v == same {
		return false, nil
	}
	r.log.Warn("the store is another one than before, or was set back to an earlier time: all is read and told anew",
		"revision", found.rev, "was", before.rev)
	if v == another || found.mark == "" || found.mark != before.mark {
		return false, nil
	}
	key, fresh := r.key(Key{Kind: KindMark}), rand.Text()
	unchanged := clientv3.Compare(clientv3.Value(key), "=", found.mark)
	resp, err := r.txn(ctx, "mark the registry", []clientv3.Cmp{unchanged}, []clientv3.Op{clientv3.OpPut(key, fresh)}, nil)
	switch {
	case errors.Is(err, ErrDenied):
		return false, nil
	case err != nil:
		r.past.marked("") // it may have been done
		return false, err
	case resp.Succeeded:
		r.past.marked(fresh)
	default:
		r.past.marked("") // somebody else has given it one
	}
	return true, nil
}

// lookWithin is look with a limit in time.
func (r *Registry) lookWithin(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return r.look(ctx)
}

// look finds out whether the store's history is still the one that was known.
func (r *Registry) look(ctx context.Context) error {
	for {
		before := r.past.now()
		found, err := r.position(ctx)
		if err != nil {
			return err
		}
		if again, err := r.recognize(ctx, before, found); err != nil || !again {
			return err
		}
	}
}
