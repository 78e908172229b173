package gate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/kv/auth"
)

// Keys says whether a request to the v2 key space may do what it needs.
func (g *Gate) Keys(ctx context.Context, c auth.Credentials, need auth.Need) (auth.Verdict, error) {
	st, err := g.current()
	if err != nil {
		return auth.Refused, err
	}
	who, ok, err := g.identify(ctx, st, c)
	if err != nil || !ok {
		return auth.Refused, err
	}
	return st.Decide(who, need), nil
}

// Open reports whether everybody may do everything: authentication is off.
func (g *Gate) Open() bool {
	st, err := g.current()
	return err == nil && !st.Enabled()
}

// Hold is Keys for a request that lasts: the context it returns ends when the right
// does. A request that began while authentication was off ends when it is switched
// on. The caller calls cancel.
func (g *Gate) Hold(ctx context.Context, c auth.Credentials, need auth.Need) (lasting context.Context, cancel func(), v auth.Verdict, err error) {
	st, err := g.current()
	if err != nil {
		return ctx, func() {}, auth.Refused, err
	}
	who, ok, err := g.identify(ctx, st, c)
	if err != nil || !ok {
		return ctx, func() {}, auth.Refused, err
	}
	v = st.Decide(who, need)
	asked := st.Enabled()
	lasting, end := context.WithCancel(ctx)
	release := g.hold(&hold{end: end, allowed: func(now *auth.State) bool {
		return !now.Enabled() || asked && now.Decide(who, need) >= v
	}})
	return lasting, func() { release(); end() }, v, nil
}

// Root reports whether a request may do everything.
func (g *Gate) Root(ctx context.Context, c auth.Credentials) (bool, error) {
	st, err := g.current()
	if err != nil {
		return false, err
	}
	if !st.Enabled() {
		return true, nil
	}
	who, ok, err := g.identify(ctx, st, c)
	return ok && st.IsRoot(who), err
}

// Administer answers a request of the v2 auth API, on what a quorum knows of users
// and roles: this gate may be behind.
func (g *Gate) Administer(ctx context.Context, c auth.Credentials, r auth.Request) (auth.Answer, error) {
	_, err := g.current()
	if errors.Is(err, ErrEngineAuth) {
		return auth.Message(http.StatusConflict, "auth: %v", err), nil
	}
	if err != nil {
		return auth.Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	r.Secret = make([]byte, auth.SecretSize)
	rand.Read(r.Secret) // never fails: it would end the process
	for {
		answer, again, err := g.administer(ctx, c, &r)
		if err != nil || !again {
			return answer, err
		}
	}
}

// administer decides and writes once. again: somebody has come in between.
func (g *Gate) administer(ctx context.Context, c auth.Credentials, r *auth.Request) (a auth.Answer, again bool, err error) {
	st, err := g.fresh(ctx)
	if err != nil {
		return a, false, err
	}
	who := auth.Guest()
	if !r.Free() {
		var ok bool
		if who, ok, err = g.identify(ctx, st, c); err != nil {
			return a, false, err
		}
		if !ok || !st.IsRoot(who) { // before any work is done for it
			return auth.Unauthorized(), false, nil
		}
	}
	if password := r.Password(); len(password) > maxPassword {
		return auth.Message(http.StatusBadRequest, "auth: The password is longer than %d bytes", maxPassword), false, nil
	} else if password != "" && r.Hash == "" {
		if r.Hash, err = g.logins.hash(ctx, password); err != nil {
			return a, false, err
		}
	}
	a, writes := st.Administer(who, *r)
	if len(writes) == 0 {
		return a, false, nil
	}
	done, err := g.cfg.Client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(auth.RevisionKey), "=", st.Version())).
		Then(operations(writes)...).Commit()
	if err != nil {
		return a, false, fmt.Errorf("write users and roles: %w", err)
	}
	if !done.Succeeded {
		return a, true, nil
	}
	return a, false, g.reached(ctx, done.Header.Revision)
}

// fresh is the state as a quorum knows it.
func (g *Gate) fresh(ctx context.Context) (*auth.State, error) {
	resp, err := g.read(ctx)
	if err != nil {
		return nil, err
	}
	records := make([]auth.Record, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		records[i] = auth.Record{Key: string(kv.Key), Value: string(kv.Value), Revision: kv.ModRevision}
	}
	return auth.Load(records), nil
}

func operations(writes []auth.Write) []clientv3.Op {
	ops := make([]clientv3.Op, len(writes))
	for i, w := range writes {
		ops[i] = clientv3.OpPut(w.Key, w.Value)
		if w.Delete {
			ops[i] = clientv3.OpDelete(w.Key)
		}
	}
	return ops
}
