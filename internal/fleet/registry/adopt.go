package registry

import (
	"context"
	"crypto/rand"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
)

// AdoptUnit adds a unit that runs on a machine already, launched, and asks the engine
// to place it there: both at once, so that it is placed nowhere else in between. It
// returns under which id the engine was asked; ErrUnitExists if there is a unit of
// that name.
func (r *Registry) AdoptUnit(ctx context.Context, name string, t Text, machine, by string) (id string, err error) {
	doing := "adopt unit " + name
	w := UnitWrite{Name: name, Text: t, Want: model.Launched, SetState: true}
	pasts, err := r.readPasts(ctx, doing, []UnitWrite{w})
	if err != nil {
		return "", err
	}
	ask := model.Ask{Kind: model.Adopt, Unit: name, Machine: machine, By: by, At: time.Now()}
	id = string(ask.Kind) + "-" + rand.Text()
	ops := r.unitOps(w, pasts[0], model.Version{At: ask.At, By: by, Why: "adopted from " + model.ShortID(machine)})
	ops.then = append(ops.then, clientv3.OpPut(r.key(Key{Kind: KindAsk, ID: id}), string(encodeAsk(ask))))
	return id, r.commit(ctx, doing, []guardedOps{ops})
}
