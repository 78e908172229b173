package gate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"flotilla/internal/kv/auth"
)

var _ grpc.UnaryServerInterceptor = (*Gate)(nil).Unary

// Unary is the gate in front of the v3 API's single calls. While authentication is on
// it answers Authenticate itself, for the users of the v2 API.
func (g *Gate) Unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if _, ok := req.(*pb.AuthEnableRequest); ok {
		if err := g.mayEnableEngineAuth(ctx); err != nil {
			return nil, err
		}
	}
	st, err := g.current()
	switch {
	case errors.Is(err, ErrEngineAuth):
		return next(ctx, req)
	case err != nil:
		return nil, cannotTell(err)
	case !st.Enabled() && asksWithheld(req):
		return nil, errWithheld
	case !st.Enabled():
		resp, err := next(ctx, req)
		withhold(resp)
		return resp, err
	}
	if login, ok := req.(*pb.AuthenticateRequest); ok {
		return g.authenticate(ctx, st, login)
	}
	who, err := g.caller(ctx, st)
	if err != nil {
		return nil, err
	}
	if err := g.check(ctx, st, who, needsOf(req)); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// cannotTell refuses with a code at which clients try again.
func cannotTell(err error) error { return status.Error(codes.Unavailable, "etcdserver: "+err.Error()) }

// mayEnableEngineAuth refuses to turn on the engine's authentication beside ours,
// on what a quorum knows.
func (g *Gate) mayEnableEngineAuth(ctx context.Context) error {
	if g.cfg.EngineAuth() {
		return nil // the engine has its own answer
	}
	st, err := g.fresh(ctx)
	if err != nil {
		return cannotTell(err)
	}
	if st.Enabled() {
		return status.Error(codes.FailedPrecondition,
			"etcdserver: v2 authentication is enabled, whose users and roles hold for v3 too; disable it first")
	}
	return nil
}

// authenticate gives a token to who knows a user's password.
func (g *Gate) authenticate(ctx context.Context, st *auth.State, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	who, ok, err := g.identify(ctx, st, auth.Credentials{Sent: true, User: r.GetName(), Password: r.GetPassword()})
	switch {
	case err != nil:
		return nil, cannotTell(err)
	case !ok:
		return nil, rpctypes.ErrGRPCAuthFailed
	}
	token := st.Token(who, g.cfg.Now().Add(g.cfg.TokenTTL))
	if token == "" {
		return nil, cannotTell(fmt.Errorf("no token for %s: the record of the switch is damaged; disable and enable authentication", who.User()))
	}
	return &pb.AuthenticateResponse{Header: &pb.ResponseHeader{}, Token: token}, nil
}

// caller finds out who makes a v3 request: by a token, by name and password as
// HTTP sends them (through the JSON gateway), by a certificate.
func (g *Gate) caller(ctx context.Context, st *auth.State) (auth.Who, error) {
	sent := sentToken(ctx)
	if sent == "" {
		who, _, err := g.identify(ctx, st, auth.Credentials{Certificate: commonName(ctx)})
		return who, err
	}
	basic := http.Request{Header: http.Header{"Authorization": {sent}}}
	if user, password, ok := basic.BasicAuth(); ok {
		who, right, err := g.identify(ctx, st, auth.Credentials{Sent: true, User: user, Password: password})
		if err != nil {
			return who, cannotTell(err)
		}
		if !right {
			return who, rpctypes.ErrGRPCAuthFailed
		}
		return who, nil
	}
	who, ok := st.ByToken(strings.TrimPrefix(sent, "Bearer "), g.cfg.Now())
	if !ok {
		return who, rpctypes.ErrGRPCInvalidAuthToken // clients authenticate anew at this
	}
	return who, nil
}

// sentToken is the first of what the engine, too, would take for a token.
func sentToken(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, name := range []string{rpctypes.TokenFieldNameGRPC, rpctypes.TokenFieldNameSwagger} {
		if values := md.Get(name); len(values) > 0 && values[0] != "" {
			return values[0]
		}
	}
	return ""
}

// commonName is the name in the client's certificate, if it was asked for and
// verified.
func commonName(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	tls, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(tls.State.VerifiedChains) == 0 {
		return ""
	}
	return tls.State.VerifiedChains[0][0].Subject.CommonName
}

// refusal is how v3 tells who has sent nothing, at which clients that have a
// password send it, and who may not.
func refusal(w auth.Who) error {
	if w.User() == "" {
		return rpctypes.ErrGRPCUserEmpty
	}
	return rpctypes.ErrGRPCPermissionDenied
}

// check says why w may not have what it needs; nil if it may.
func (g *Gate) check(ctx context.Context, st *auth.State, w auth.Who, n needs) error {
	for _, r := range n.rights {
		if !r.given(st, w) {
			return refusal(w)
		}
	}
	if st.IsRoot(w) {
		return nil
	}
	for _, a := range n.leases {
		resp, err := g.cfg.Client.TimeToLive(ctx, clientv3.LeaseID(a.lease), clientv3.WithAttachedKeys())
		if err != nil {
			return cannotTell(fmt.Errorf("find the keys of lease %x: %w", a.lease, err))
		}
		for _, key := range resp.Keys {
			if !st.MayRange(w, auth.Keys(string(key), ""), a.write) {
				return refusal(w)
			}
		}
	}
	return nil
}

// Gateway is the gate in front of the v3 API's JSON form, which comes to Unary and
// Stream without the client's certificate: who has one and sends nothing else gets a
// token for the way.
func (g *Gate) Gateway(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		st, err := g.current()
		if err == nil && st.Enabled() && r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && !sendsAnything(r.Header) {
			who := st.ByCertificate(r.TLS.VerifiedChains[0][0].Subject.CommonName)
			if token := st.Token(who, g.cfg.Now().Add(g.cfg.TokenTTL)); token != "" {
				r.Header.Set("Authorization", token)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// sendsAnything looks for all headers that become what sentToken reads.
func sendsAnything(h http.Header) bool {
	for _, name := range []string{"Authorization", "Grpc-Metadata-Token", "Grpc-Metadata-Authorization"} {
		if h.Get(name) != "" {
			return true
		}
	}
	return false
}
