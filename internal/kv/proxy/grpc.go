package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/health" // of members, as a client
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"flotilla/internal/kv/front"
)

const (
	// clientPing is how often a client may ask whether we are there: as a member
	// allows it.
	clientPing = 5 * time.Second
	// pingEvery and pingTimeout find out that a member is silent.
	pingEvery   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// reconnect has a lost member tried again soon: gRPC's own pauses grow to minutes.
var reconnect = grpc.WithConnectParams(grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 2 * time.Second,
})

// connWait is how long a call waits for a member that can be reached.
const connWait = 5 * time.Second

// readMethods is all of v3 that a read-only proxy passes on. A transaction may
// write, so there is none.
var readMethods = []string{
	"/etcdserverpb.KV/Range", "/etcdserverpb.Watch/Watch",
	"/etcdserverpb.Lease/LeaseTimeToLive", "/etcdserverpb.Lease/LeaseLeases",
	"/etcdserverpb.Cluster/MemberList", "/etcdserverpb.Maintenance/Status",
	"/etcdserverpb.Auth/Authenticate", "/grpc.health.v1.Health/Check",
}

// calls passes v3 calls on, each to one of the members that can be reached. A
// client's connection outlives a member; a call that has begun there does not.
type calls struct {
	conn     *grpc.ClientConn
	members  *manual.Resolver
	last     []string // as set was told
	readOnly bool
}

// newCalls connects with the first call. config is for https members.
func newCalls(config *tls.Config, readOnly bool) (*calls, error) {
	members := manual.NewBuilderWithScheme("members")
	members.InitialState(resolver.State{})
	conn, err := grpc.NewClient(members.Scheme()+":///",
		grpc.WithResolvers(members),
		grpc.WithAuthority("members"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // dial has seen to TLS
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, addr, config) }),
		// A member whose gRPC server is there but whose store is not, since it is
		// starting, says so to health checks, and gets no calls.
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}`),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		reconnect,
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	conn.Connect() // so that the resolver takes what set has to say
	return &calls{conn: conn, members: members, readOnly: readOnly}, nil
}

// set replaces the members' client URLs. None leaves them as they are.
func (c *calls) set(urls []string) {
	if slices.Sort(urls); len(urls) == 0 || slices.Equal(urls, c.last) {
		return
	}
	c.last = urls
	var list []resolver.Address
	for _, u := range urls {
		list = append(list, resolver.Address{Addr: u})
	}
	c.members.UpdateState(resolver.State{Addresses: list})
}

// dial connects to a member's client URL.
func dial(ctx context.Context, clientURL string, config *tls.Config) (net.Conn, error) {
	u, err := url.Parse(clientURL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" {
		return (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	}
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", u.Host)
}

// server is the gRPC server that passes all on.
func (c *calls) server() *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(front.Credentials()),
		grpc.ForceServerCodecV2(raw{}),
		grpc.UnknownServiceHandler(c.pass),
		grpc.MaxRecvMsgSize(maxBody), grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: clientPing}),
	)
}

// pass carries one call out at a member.
func (c *calls) pass(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	if c.readOnly && !slices.Contains(readMethods, method) {
		return status.Errorf(codes.PermissionDenied, "this proxy is read-only: %s is not for it", method)
	}
	ctx, cancel := context.WithCancel(outgoing(in.Context()))
	defer cancel()
	c.await(ctx)
	out, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	go func() {
		if forth(in, out) != nil {
			cancel()
		}
	}()
	return back(in, out)
}

// await waits a while for a connection to any member.
func (c *calls) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, connWait)
	defer cancel()
	for state := c.conn.GetState(); state != connectivity.Ready; state = c.conn.GetState() {
		c.conn.Connect()
		if !c.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// outgoing is the context with the client's metadata, its credentials among them,
// for a member.
func outgoing(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	md = md.Copy()
	for key := range md {
		if strings.HasPrefix(key, ":") {
			delete(md, key)
		}
	}
	delete(md, "user-agent")
	delete(md, "content-type")
	return metadata.NewOutgoingContext(ctx, md)
}

// forth passes the client's messages to the member until the client has no more.
func forth(in grpc.ServerStream, out grpc.ClientStream) error {
	for {
		var m mem.BufferSlice
		if err := in.RecvMsg(&m); errors.Is(err, io.EOF) {
			return out.CloseSend()
		} else if err != nil {
			return err
		}
		if out.SendMsg(&m) != nil {
			return nil // back learns the reason
		}
	}
}

// back passes the member's messages to the client, and at the end its status.
func back(in grpc.ServerStream, out grpc.ClientStream) error {
	if header, err := out.Header(); err == nil {
		if err := in.SendHeader(header); err != nil {
			return err
		}
	}
	for {
		var m mem.BufferSlice
		if err := out.RecvMsg(&m); err != nil {
			in.SetTrailer(out.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := in.SendMsg(&m); err != nil {
			return err
		}
	}
}

// raw leaves messages as they are.
type raw struct{}

var _ encoding.CodecV2 = raw{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return *v.(*mem.BufferSlice), nil
}

// Unmarshal keeps the message, which the caller of Unmarshal is going to free.
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	data.Ref()
	*v.(*mem.BufferSlice) = data
	return nil
}

// Name is that of the codec whose place it takes: it is sent as the content's type.
func (raw) Name() string { return "proto" }
