package gate

import (
	"context"
	"crypto/rand"
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

// Administer answers a request of the v2 auth API.
func (g *Gate) Administer(ctx context.Context, c auth.Credentials, r auth.Request) (auth.Answer, error) {
	st, err := g.current()
	if err == ErrEngineAuth {
		return auth.Message(http.StatusConflict, "auth: %v", err), nil
	}
	if err != nil {
		return auth.Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	who, ok, err := auth.Guest(), true, error(nil)
	if st.Enabled() && !(r.Method == http.MethodGet && r.Target.Kind == auth.Switch) && r.Target.Kind != auth.Deeper {
		who, ok, err = g.identify(ctx, st, c)
		if err != nil {
			return auth.Answer{}, err
		}
		if !ok || !st.IsRoot(who) { // before any work is done for it
			return auth.Unauthorized(), nil
		}
	}
	if password := r.Password(); len(password) > maxPassword {
		return auth.Message(http.StatusBadRequest, "auth: The password is longer than %d bytes", maxPassword), nil
	} else if password != "" {
		if r.Hash, err = g.logins.hash(ctx, password); err != nil {
			return auth.Answer{}, err
		}
	}
	r.Secret = make([]byte, auth.SecretSize)
	rand.Read(r.Secret) // never fails: it would end the process
	return g.administer(ctx, who, r)
}

// administer decides on what a quorum knows, and writes, until nobody has come in
// between.
func (g *Gate) administer(ctx context.Context, who auth.Who, r auth.Request) (auth.Answer, error) {
	for {
		resp, err := g.read(ctx)
		if err != nil {
			return auth.Answer{}, err
		}
		records := make([]auth.Record, len(resp.Kvs))
		for i, kv := range resp.Kvs {
			records[i] = auth.Record{Key: string(kv.Key), Value: string(kv.Value), Revision: kv.ModRevision}
		}
		st := auth.Load(records)
		answer, writes := st.Administer(who, r)
		if len(writes) == 0 {
			return answer, nil
		}
		done, err := g.cfg.Client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(auth.RevisionKey), "=", st.Version())).
			Then(operations(writes)...).Commit()
		if err != nil {
			return auth.Answer{}, err
		}
		if done.Succeeded {
			return answer, g.reached(ctx, done.Header.Revision)
		}
	}
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
