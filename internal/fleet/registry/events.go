package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
)

// EventFilter says which events are meant; the zero value means all.
type EventFilter struct {
	Unit    string // of this unit alone
	Machine string // of this machine alone
	Since   time.Time
	Limit   int // at most the newest so many, of ReadEvents; 0: no limit
}

func (f EventFilter) match(e model.Event) bool {
	return (f.Unit == "" || f.Unit == e.Unit) && (f.Machine == "" || f.Machine == e.Machine) && !e.At.Before(f.Since)
}

// eventTime is the first part of an event's key: keys sort as times do.
func eventTime(at time.Time) string { return fmt.Sprintf("%016x", max(0, at.UnixNano())) }

// eventKey is where an event is written.
func (r *Registry) eventKey(e model.Event) string {
	return r.key(Key{Kind: KindEvent, ID: eventTime(e.At) + "-" + rand.Text()[:8]})
}

// WriteEvents appends events; one without a time happened now.
func (r *Registry) WriteEvents(ctx context.Context, es []model.Event) error {
	var puts []clientv3.Op
	for _, e := range es {
		if e.At.IsZero() {
			e.At = time.Now()
		}
		puts = append(puts, clientv3.OpPut(r.eventKey(e), string(encodeEvent(e))))
	}
	return inParts(r, puts, opSize, func(batch []clientv3.Op) error {
		_, err := r.txn(ctx, "write events", nil, batch, nil)
		return err
	})
}

// eventPage is how many events are read at a time.
const eventPage = 1000

// ReadEvents returns events in order of time. Those that cannot be read are left
// out.
func (r *Registry) ReadEvents(ctx context.Context, f EventFilter) ([]model.Event, error) {
	var out []model.Event // newest first, so that a limit is cheap
	first, end := r.prefix+eventsPrefix, clientv3.GetPrefixRangeEnd(r.prefix+eventsPrefix)
	if !f.Since.IsZero() {
		first += eventTime(f.Since)
	}
	for {
		resp, err := r.get(ctx, "read events", first, clientv3.WithRange(end), clientv3.WithLimit(eventPage),
			clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
		if err != nil {
			return nil, err
		}
		for _, kv := range resp.Kvs {
			e, err := decodeEvent(kv.Value)
			if err == nil && f.match(e) {
				out = append(out, e)
			}
			if f.Limit > 0 && len(out) == f.Limit {
				slices.Reverse(out)
				return out, nil
			}
		}
		if !resp.More || len(resp.Kvs) == 0 {
			slices.Reverse(out)
			return out, nil
		}
		end = string(resp.Kvs[len(resp.Kvs)-1].Key)
	}
}

// FollowEvents calls emit with the events since f.Since, the newest f.Limit of them if
// it is set, then with each as it happens, until ctx is done, whose error it
// returns, or emit fails, whose error it returns. While the store is away it waits.
func (r *Registry) FollowEvents(ctx context.Context, f EventFilter, emit func(model.Event) error) error {
	retry := Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	follower := eventFollower{r: r, filter: f, emit: emit}
	for ctx.Err() == nil {
		err := follower.follow(ctx, retry.Reset)
		var stop *stopped
		if errors.As(err, &stop) {
			return stop.err
		}
		retry.Wait(ctx)
	}
	return ctx.Err()
}

// eventFollower remembers up to which revision of the store all has been told.
type eventFollower struct {
	r      *Registry
	filter EventFilter
	emit   func(model.Event) error
	seen   int64
	era    int    // of the store, whose revision that is
	last   string // the last key of those
}

// stopped is what emit said when it would take no more.
type stopped struct{ err error }

func (s *stopped) Error() string { return s.err.Error() }

// follow reads what has not been told yet, and what comes, until the watch ends.
func (ef *eventFollower) follow(ctx context.Context, heard func()) error {
	r, prefix, life := ef.r, ef.r.prefix+eventsPrefix, ef.r.passage.now()
	if err := r.look(ctx, r.timeout); err != nil {
		return err
	}
	era := r.past.known().era
	from, opts := prefix, []clientv3.OpOption{clientv3.WithMinModRev(ef.seen + 1)}
	if ef.seen > 0 && era != ef.era { // its revisions say nothing about what has been told
		from, opts = max(prefix, ef.last+"\x00"), nil
	}
	resp, err := r.get(ctx, "read events", from, append(opts, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)))...)
	if err != nil {
		return err
	}
	heard()
	if err := ef.tell(ef.chosen(resp.Kvs)); err != nil {
		return err
	}
	ef.seen, ef.era = resp.Header.Revision, era
	watch, cancel := within(clientv3.WithRequireLeader(ctx), life)
	defer cancel()
	for w := range r.client.Watch(watch, prefix, clientv3.WithPrefix(), clientv3.WithRev(ef.seen+1), clientv3.WithFilterDelete()) {
		if err := w.Err(); err != nil {
			return fmt.Errorf("watch events: %w", err)
		}
		var kvs []*mvccpb.KeyValue
		for _, ev := range w.Events {
			kvs = append(kvs, ev.Kv)
		}
		if err := ef.tell(ef.matching(kvs)); err != nil {
			return err
		}
		ef.seen = max(ef.seen, reached(w))
	}
	return errors.New("watch events: closed")
}

// chosen are the events to begin with.
func (ef *eventFollower) chosen(kvs []*mvccpb.KeyValue) []model.Event {
	es := ef.matching(kvs)
	if n := ef.filter.Limit; n > 0 && ef.seen == 0 && len(es) > n {
		es = es[len(es)-n:]
	}
	return es
}

func (ef *eventFollower) matching(kvs []*mvccpb.KeyValue) []model.Event {
	var es []model.Event
	for _, kv := range kvs {
		ef.last = max(ef.last, string(kv.Key))
		if e, err := decodeEvent(kv.Value); err == nil && ef.filter.match(e) {
			es = append(es, e)
		}
	}
	return es
}

func (ef *eventFollower) tell(es []model.Event) error {
	for _, e := range es {
		if err := ef.emit(e); err != nil {
			return &stopped{err}
		}
	}
	return nil
}

// TrimEvents removes all but the newest keep events, and those before oldest. It
// returns how many it removed.
func (r *Registry) TrimEvents(ctx context.Context, l Leadership, keep int, oldest time.Time) (int64, error) {
	prefix := r.prefix + eventsPrefix
	end := prefix + eventTime(oldest)
	resp, err := r.get(ctx, "count events", prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithLimit(int64(keep)), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		return 0, err
	}
	if int(resp.Count) > keep && len(resp.Kvs) > 0 {
		end = max(end, string(resp.Kvs[len(resp.Kvs)-1].Key))
	}
	done, err := r.txn(ctx, "trim events", []clientv3.Cmp{r.leads(l)}, []clientv3.Op{clientv3.OpDelete(prefix, clientv3.WithRange(end))}, nil)
	if err != nil {
		return 0, err
	}
	if !done.Succeeded {
		return 0, fmt.Errorf("trim events: %w", ErrNotLeader)
	}
	return done.Responses[0].GetResponseDeleteRange().Deleted, nil
}
