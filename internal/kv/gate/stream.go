package gate

import (
	"context"
	"errors"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flotilla/internal/kv/auth"
)

var _ grpc.StreamServerInterceptor = (*Gate)(nil).Stream

// errLost ends a stream that was allowed until users, roles or the switch changed.
var errLost = errors.New("rights have changed")

// Stream is the gate in front of the v3 API's streams. Who it is that has opened one is
// settled then; what its messages need is checked message by message, and again
// with every change of users and roles. A stream that was opened while
// authentication was off ends when it is switched on.
func (g *Gate) Stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	st, err := g.current()
	if err != nil && !errors.Is(err, ErrEngineAuth) {
		return cannotTell(err)
	}
	s := &stream{ServerStream: ss, gate: g, rights: map[right]struct{}{}, watching: map[int64]right{}}
	s.answered.L = &s.mu
	s.open = err == nil && !st.Enabled()
	if s.asked = err == nil && st.Enabled(); s.asked {
		if s.who, err = g.caller(ss.Context(), st); err != nil {
			return err
		}
	}
	var lose context.CancelCauseFunc
	s.ctx, lose = context.WithCancelCause(ss.Context())
	defer lose(nil)
	defer context.AfterFunc(s.ctx, s.wake)()
	defer g.hold(&hold{allowed: s.allowed, end: func() { lose(errLost) }})()
	err = next(srv, s)
	if errors.Is(context.Cause(s.ctx), errLost) {
		// Clients connect again at this code, and go on.
		return status.Error(codes.Unavailable, "etcdserver: "+errLost.Error()+"; connect again")
	}
	return err
}

// stream is a stream of the v3 API whose messages are checked as they come.
type stream struct {
	grpc.ServerStream
	gate  *Gate
	ctx   context.Context // ends with the stream's rights
	who   auth.Who
	asked bool // authentication was on when the stream was opened
	open  bool // it was off

	sending sync.Mutex // one message at a time

	mu       sync.Mutex
	rights   map[right]struct{} // what its messages have needed, apart from watches
	opening  []right            // watches that the engine has not answered yet, in order
	watching map[int64]right    // by watch id
	answered sync.Cond          // opening is shorter, or the stream has ended
}

func (s *stream) Context() context.Context { return s.ctx }

// wake tells who waits in refuseWatch. It takes the lock, so that nobody is just about
// to wait.
func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered.Broadcast()
}

// allowed reports whether all that the stream does is allowed still.
func (s *stream) allowed(now *auth.State) bool {
	if !s.asked || !now.Enabled() {
		return !now.Enabled()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := now.Knows(s.who)
	for r := range s.rights {
		ok = ok && r.given(now, s.who)
	}
	for _, r := range s.watching {
		ok = ok && r.given(now, s.who)
	}
	for _, r := range s.opening {
		ok = ok && r.given(now, s.who)
	}
	return ok
}

// RecvMsg passes on the next message that is allowed. A watch that is not allowed
// is answered as the engine would; any other message ends the stream.
func (s *stream) RecvMsg(m any) error {
	for {
		err := s.ServerStream.RecvMsg(m)
		if err == nil && s.open && asksWithheld(m) {
			return errWithheld
		}
		if err != nil || !s.asked {
			return err
		}
		err = s.take(m)
		if _, watch := m.(*pb.WatchRequest); err == nil || !watch {
			return err
		}
		if err := s.refuseWatch(err); err != nil {
			return err
		}
	}
}

// take notes what a message needs, and says why that is not given.
func (s *stream) take(m any) error {
	n := needsOf(m)
	s.note(m, n)
	// Only now, so that a change which comes meanwhile finds the note.
	st, err := s.gate.current()
	if err == nil {
		err = s.gate.check(s.ctx, st, s.who, n)
	}
	if err == nil && !st.Knows(s.who) {
		err = refusal(s.who)
	}
	if err != nil {
		s.unnote(m)
	}
	return err
}

func (s *stream) note(m any, n needs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := m.(*pb.WatchRequest)
	for _, r := range n.rights {
		if ok && w.GetCreateRequest() != nil {
			s.opening = append(s.opening, r)
		} else {
			s.rights[r] = struct{}{}
		}
	}
}

// unnote forgets the watch that was noted last: the engine will not hear of it.
// Any other message that is refused ends the stream.
func (s *stream) unnote(m any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w, ok := m.(*pb.WatchRequest); ok && w.GetCreateRequest() != nil {
		s.opening = s.opening[:len(s.opening)-1]
	}
}

// refuseWatch answers a request for a watch after all that came before it: clients
// tell the answers apart by their order.
func (s *stream) refuseWatch(why error) error {
	s.mu.Lock()
	for len(s.opening) > 0 && s.ctx.Err() == nil {
		s.answered.Wait()
	}
	s.mu.Unlock()
	if err := s.ctx.Err(); err != nil {
		return err
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.ServerStream.SendMsg(&pb.WatchResponse{
		Header:       &pb.ResponseHeader{},
		WatchId:      clientv3.InvalidWatchID,
		Created:      true,
		Canceled:     true,
		CancelReason: why.Error(),
	})
}

// SendMsg passes on an answer, unless the stream has lost its rights, and keeps
// account of the watches that there are.
func (s *stream) SendMsg(m any) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if s.open {
		withhold(m)
	}
	err := s.ServerStream.SendMsg(m)
	if resp, ok := m.(*pb.WatchResponse); ok && s.asked {
		s.account(resp)
	}
	return err
}

func (s *stream) account(resp *pb.WatchResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if resp.GetCreated() && len(s.opening) > 0 {
		s.watching[resp.GetWatchId()] = s.opening[0]
		s.opening = s.opening[1:]
		s.answered.Broadcast()
	}
	if resp.GetCanceled() {
		delete(s.watching, resp.GetWatchId())
	}
}
