package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
)

// ErrPresent means that a machine is present that is to be forgotten.
var ErrPresent = errors.New("the machine is present")

// ForgetMachine forgets a machine that will not return: in one transaction all that the
// cluster has given it and knows of it goes, and the engine is asked to count it no more
// among the machines. It returns the units that were placed there. ErrPresent if the
// machine's lease is alive.
//
// Should the machine run on all the same, it stops those units when it hears from the
// store again, as after any other move; until then they run there as well.
func (r *Registry) ForgetMachine(ctx context.Context, machine, by string) (units []string, err error) {
	placed := r.key(Key{Kind: KindPlacement, Machine: machine})
	ask := model.Ask{Kind: model.Forget, Machine: machine, By: by, At: time.Now()}
	resp, err := r.txn(ctx, "forget machine "+machine,
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(r.key(Key{Kind: KindMachine, Machine: machine})), "=", 0)},
		[]clientv3.Op{
			clientv3.OpGet(placed, clientv3.WithPrefix(), clientv3.WithKeysOnly()),
			clientv3.OpDelete(placed, clientv3.WithPrefix()),
			clientv3.OpDelete(r.key(Key{Kind: KindState, Machine: machine}), clientv3.WithPrefix()),
			clientv3.OpDelete(r.prefix+"machines/"+machine+"/", clientv3.WithPrefix()),
			clientv3.OpPut(r.key(Key{Kind: KindAsk, ID: string(ask.Kind) + "-" + rand.Text()}), string(encodeAsk(ask))),
		}, nil)
	switch {
	case err != nil:
		return nil, err
	case !resp.Succeeded:
		return nil, fmt.Errorf("forget machine %s: %w", machine, ErrPresent)
	}
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		if k, ok := ParsePath(string(kv.Key)[len(r.prefix):]); ok {
			units = append(units, k.Unit)
		}
	}
	return units, nil
}
