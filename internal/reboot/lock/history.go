package lock

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"slices"
	"time"

	wire "flotilla/api/keys"
	"flotilla/client/keys"
	"flotilla/internal/reboot/sema"
)

// historyKept is how many records are kept. It is more by those that machines wrote
// at the same moment. A variable for the tests.
var historyKept = 200

// record writes what a change has ended into the history. A history that cannot be
// written holds up no reboot.
func (l *Lock) record(ctx context.Context, before State, after sema.Semaphore) {
	for _, r := range sema.Ended(before.Semaphore, after, l.Now().UTC().Truncate(time.Second)) {
		raw, err := json.Marshal(r)
		if err != nil {
			continue
		}
		if _, err := l.c.CreateInOrder(ctx, l.historyDir(), string(raw), 0); err != nil {
			return
		}
		l.trim(ctx)
	}
}

func (l *Lock) historyDir() string { return path.Join(dir(l.group), "history") }

// trim removes the oldest records above historyKept.
func (l *Lock) trim(ctx context.Context) {
	r, err := l.c.Get(ctx, l.historyDir(), keys.GetOptions{Sorted: true})
	if err != nil || r.Node == nil {
		return
	}
	for i := range len(r.Node.Nodes) - historyKept {
		l.c.Delete(ctx, r.Node.Nodes[i].Key, keys.DeleteOptions{}) // else the next one removes it
	}
}

// History is who held the lock, the newest first.
func (l *Lock) History(ctx context.Context) ([]sema.Record, error) {
	r, err := l.c.Get(ctx, l.historyDir(), keys.GetOptions{Sorted: true, Quorum: true})
	if is(err, wire.CodeKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, l.fail("read the history of", err)
	}
	var out []sema.Record
	for _, n := range slices.Backward(r.Node.Nodes) {
		if n.Value == nil {
			continue
		}
		var one sema.Record
		if err := json.Unmarshal([]byte(*n.Value), &one); err != nil {
			return nil, l.fail("read the history of", fmt.Errorf("%s: %w", n.Key, err))
		}
		out = append(out, one)
	}
	return out, nil
}

// Groups lists the groups that have a lock, by name, without the one of machines
// that are in none.
func Groups(ctx context.Context, c *keys.Client) ([]string, error) {
	r, err := c.Get(ctx, path.Join(prefix, "groups"), keys.GetOptions{Sorted: true, Quorum: true})
	if is(err, wire.CodeKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the groups of the reboot lock: %w", err)
	}
	var out []string
	for _, n := range r.Node.Nodes {
		name, err := url.QueryUnescape(path.Base(n.Key))
		if err != nil || !n.Dir {
			continue // no client of the lock has made it
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}
