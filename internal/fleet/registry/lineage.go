package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// lineage is what is known of the store's history: which store it is, and how far it
// had come. The zero value knows nothing.
type lineage struct {
	mu  sync.Mutex
	now knowledge
}

// knowledge is a lineage at some moment.
type knowledge struct {
	position
	// era counts the stores: another one, or the same set back to an earlier time.
	era int
	// witness is the newest write that was heard of: a store that has come to its
	// revision by another way has not got it.
	witness witness
	// life is the passage in which that was last found to be so; nil: it never was.
	life context.Context
}

// witness is a key and the revision of a value of it.
type witness struct {
	key string
	rev int64
}

func (l *lineage) known() knowledge {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// hear takes note of an answer of the store to what was asked in the life of a passage,
// and of the write that it tells of, if there is one. It counts if that life is known to
// be of this store: else what is known would no longer tell whether it is.
func (l *lineage) hear(life context.Context, rev int64, w witness) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now.life != life || life.Err() != nil {
		return
	}
	l.now.rev = max(l.now.rev, rev)
	if w.rev > l.now.witness.rev {
		l.now.witness = w
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

// learn takes over what was found in the life of a passage, unless that is over, or
// somebody else has learnt meanwhile that the history is another: then it reports false.
func (l *lineage) learn(life context.Context, before knowledge, found position, v verdict) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now.era != before.era || life.Err() != nil {
		return false
	}
	if v == same {
		found.rev = max(found.rev, l.now.rev)
	} else {
		l.now.era++
		l.now.witness = witness{}
	}
	l.now.position, l.now.life = found, life
	return true
}

// marked notes that the store has another mark now, or one that is not known ("").
func (l *lineage) marked(mark string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now.mark = mark
}

// recognize takes note of what a linearizable read in the life of a passage has found,
// and reports whether that may be out of date. The registry in a store that was set
// back gets another mark: its revisions will be what they were before with other
// contents, and whoever comes later could not tell. A user of the store who may not
// write the mark goes without.
func (r *Registry) recognize(ctx, life context.Context, before knowledge, found position) (again bool, err error) {
	v := judge(before.position, found)
	if v == same && before.life != nil && before.life.Err() != nil {
		if has, err := r.has(ctx, before.witness); err != nil {
			return false, err
		} else if !has {
			v = setBack
		}
	}
	if !r.past.learn(life, before, found, v) {
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
	return r.markAnew(ctx, found.mark)
}

// has reports whether the store has, or has had, what a witness tells of. Of what is
// compacted nobody can say that it was not there.
func (r *Registry) has(ctx context.Context, w witness) (bool, error) {
	if w.rev == 0 {
		return true, nil
	}
	resp, err := r.get(ctx, "look whether the store is the same", w.key, clientv3.WithRev(w.rev))
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return true, nil
	case errors.Is(err, rpctypes.ErrFutureRev):
		return false, nil
	case err != nil:
		return false, err
	}
	return len(resp.Kvs) > 0 && resp.Kvs[0].ModRevision == w.rev, nil
}

// markAnew gives the registry another mark, unless somebody has. It reports whether the
// mark is another now.
func (r *Registry) markAnew(ctx context.Context, old string) (bool, error) {
	key, fresh := r.key(Key{Kind: KindMark}), rand.Text()
	unchanged := clientv3.Compare(clientv3.Value(key), "=", old)
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

// look finds out, within a limit, whether the store's history is still the one that was
// known: known tells then.
func (r *Registry) look(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		life, before := r.passage.now(), r.past.known()
		found, err := r.position(ctx)
		if err != nil {
			return err
		}
		if again, err := r.recognize(ctx, life, before, found); err != nil || !again {
			return err
		}
	}
}

// written is what a transaction has put last.
func written(ops []clientv3.Op, rev int64) witness {
	for i := len(ops) - 1; i >= 0; i-- {
		if ops[i].IsPut() {
			return witness{string(ops[i].KeyBytes()), rev}
		}
	}
	return witness{}
}

// newest is the newest of what has been read or told.
func newest(all []record) (w witness) {
	for _, r := range all {
		if !r.deleted && r.rev > w.rev {
			w = witness{r.key, r.rev}
		}
	}
	return w
}
