package registry

import (
	"context"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/stats"
)

// passage is the way to the store: a stats.Handler of the connection, which tells how
// long one lasts. What was read through one connection and is watched through another
// may be of two stores: a member that was stopped, set back to a backup and started
// again is reached by the next connection, and the client goes on with its watches
// there as if nothing had happened. One from a revision that the older store has yet to
// come to is told nothing until then. Make it with newPassage.
type passage struct {
	mu    sync.Mutex
	open  int  // connections
	used  bool // life has had a connection
	life  context.Context
	close context.CancelFunc
}

func newPassage() *passage {
	p := &passage{}
	p.life, p.close = context.WithCancel(context.Background())
	return p
}

// now is done when what is asked from here on may be answered through two connections:
// at the end of the present one or, if there is none, of the next.
func (p *passage) now() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life
}

// HandleConn notes that a connection begins or ends.
func (p *passage) HandleConn(_ context.Context, s stats.ConnStats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch s.(type) {
	case *stats.ConnBegin:
		p.open++
		if p.used {
			p.renew()
		}
		p.used = true
	case *stats.ConnEnd:
		p.open--
		if p.open == 0 {
			p.renew()
		}
	}
}

func (p *passage) renew() {
	p.close()
	p.life, p.close = context.WithCancel(context.Background())
	p.used = false
}

// TagConn, TagRPC and HandleRPC add nothing: only connections count.
func (p *passage) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// TagRPC adds nothing to a request.
func (p *passage) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC takes no note of a request.
func (p *passage) HandleRPC(context.Context, stats.RPCStats) {}

// within is a context that ends with life as well.
func within(ctx, life context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(life, cancel)
	return ctx, func() { stop(); cancel() }
}

// reached is the revision up to which a watch has told everything. What a response says
// of the store's revision is that only if it brings no events: of a watch that is behind
// the store tells a thousand revisions at a time, each time with the newest.
func reached(w clientv3.WatchResponse) int64 {
	if n := len(w.Events); n > 0 {
		return w.Events[n-1].Kv.ModRevision
	}
	return w.Header.Revision
}
