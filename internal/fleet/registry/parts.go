package registry

import (
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Limits of one transaction. Our store takes some thousand operations, a stock etcd
// 128 and 1.5 MiB; its overhead for each operation has to fit too.
const (
	wideOps   = 4000
	narrowOps = 100
	maxBytes  = 1 << 20
)

// sized says of a thing that is to be part of a transaction how many operations it
// takes, and how many bytes.
type sized[T any] func(T) (ops, bytes int)

func opSize(op clientv3.Op) (ops, bytes int) { return 1, len(op.KeyBytes()) + len(op.ValueBytes()) }

// inParts hands the items to do in runs that fit one transaction each: as many as our
// own store takes, until the store says that it takes fewer.
func inParts[T any](r *Registry, items []T, size sized[T], do func([]T) error) error {
	for len(items) > 0 {
		limit := wideOps
		if r.narrow.Load() {
			limit = narrowOps
		}
		n := fitting(items, size, limit)
		err := do(items[:n])
		if errors.Is(err, rpctypes.ErrTooManyOps) && limit == wideOps {
			r.narrow.Store(true)
			continue
		}
		if err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// fitting is how many of the first fit one transaction, at least one.
func fitting[T any](items []T, size sized[T], limit int) int {
	ops, bytes := 0, 0
	for n, item := range items {
		o, b := size(item)
		ops, bytes = ops+o, bytes+b
		if n > 0 && (ops > limit || bytes > maxBytes) {
			return n
		}
	}
	return len(items)
}
