package gate

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"flotilla/internal/kv/auth"
)

// kind is what a right is about.
type kind int

const (
	onKeys  kind = iota // a range of keys
	onLease             // asking for leases
	asUser              // being somebody
	asRoot              // everything
)

// right is one thing that a request of the v3 API needs.
type right struct {
	kind  kind
	keys  auth.Range // of onKeys
	write bool       // likewise
}

// given reports whether w has the right.
func (r right) given(st *auth.State, w auth.Who) bool {
	switch r.kind {
	case onKeys:
		return st.MayRange(w, r.keys, r.write)
	case onLease:
		return st.MayLease(w)
	case asUser:
		return st.IsRoot(w) || w.User() != "" && st.Knows(w)
	}
	return st.IsRoot(w)
}

// attached is a lease whose keys the request touches, or shows: the rights that it
// needs hang on which keys those are.
type attached struct {
	lease int64
	write bool
}

// needs is all that a request has to have.
type needs struct {
	rights []right
	leases []attached
}

func (n *needs) add(r right) { n.rights = append(n.rights, r) }

func (n *needs) read(keys auth.Range)  { n.add(right{onKeys, keys, false}) }
func (n *needs) write(keys auth.Range) { n.add(right{onKeys, keys, true}) }

// attach is the right to put keys under a lease. Who cannot write all keys that are
// under it cannot revoke it, and nor could its owner with a key of somebody else's
// under it.
func (n *needs) attach(lease int64) {
	if a := (attached{lease, true}); lease != 0 && !slices.Contains(n.leases, a) {
		n.leases = append(n.leases, a)
	}
}

// needsOf is what a request of the v3 API needs. Nothing: it is free. What is not
// known here is for the role root alone.
func needsOf(req any) (n needs) {
	switch r := req.(type) {
	case *pb.RangeRequest:
		n.read(keys(r))
	case *pb.PutRequest:
		n.put(r)
	case *pb.DeleteRangeRequest:
		n.deleteRange(r)
	case *pb.TxnRequest:
		n.txn(r)
	case *pb.WatchRequest:
		if create := r.GetCreateRequest(); create != nil {
			n.read(keys(create))
		}
	case *pb.LeaseGrantRequest, *pb.LeaseKeepAliveRequest:
		n.add(right{kind: onLease})
	case *pb.LeaseRevokeRequest:
		n.add(right{kind: onLease})
		n.attach(r.GetID())
	case *pb.LeaseTimeToLiveRequest:
		n.add(right{kind: onLease})
		if r.GetKeys() {
			n.leases = append(n.leases, attached{r.GetID(), false})
		}
	case *pb.StatusRequest:
		n.add(right{kind: asUser})
	case *pb.MemberListRequest, *healthpb.HealthCheckRequest: // as /v2/members and /health
	default:
		n.recipe(req)
	}
	return n
}

// recipe is what locks and elections need, which the engine makes of keys below a name.
func (n *needs) recipe(req any) {
	switch r := req.(type) {
	case *v3lockpb.LockRequest:
		n.contend(r.GetName(), r.GetLease())
	case *v3lockpb.UnlockRequest:
		n.write(auth.Keys(string(r.GetKey()), ""))
	case *v3electionpb.CampaignRequest:
		n.contend(r.GetName(), r.GetLease())
	case *v3electionpb.ProclaimRequest:
		n.lead(r.GetLeader())
	case *v3electionpb.ResignRequest:
		n.lead(r.GetLeader())
	case *v3electionpb.LeaderRequest:
		n.read(auth.Below(string(r.GetName()) + "/"))
	default:
		n.add(right{kind: asRoot})
	}
}

func (n *needs) contend(name []byte, lease int64) {
	below := auth.Below(string(name) + "/")
	n.read(below)
	n.write(below)
	n.add(right{kind: onLease})
	n.attach(lease)
}

func (n *needs) lead(leader *v3electionpb.LeaderKey) {
	n.read(auth.Below(string(leader.GetName()) + "/"))
	n.write(auth.Keys(string(leader.GetKey()), ""))
	n.attach(leader.GetLease())
}

func (n *needs) put(r *pb.PutRequest) {
	n.write(auth.Keys(string(r.GetKey()), ""))
	if r.GetPrevKv() {
		n.read(auth.Keys(string(r.GetKey()), ""))
	}
	n.attach(r.GetLease())
}

func (n *needs) deleteRange(r *pb.DeleteRangeRequest) {
	n.write(keys(r))
	if r.GetPrevKv() {
		n.read(keys(r))
	}
}

// txn needs what each of its operations needs, done or not, and to read what is
// compared.
func (n *needs) txn(r *pb.TxnRequest) {
	for _, c := range r.GetCompare() {
		n.read(keys(c))
	}
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range ops {
			n.operation(op)
		}
	}
}

func (n *needs) operation(op *pb.RequestOp) {
	switch o := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		n.read(keys(o.RequestRange))
	case *pb.RequestOp_RequestPut:
		n.put(o.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		n.deleteRange(o.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		n.txn(o.RequestTxn)
	default:
		n.add(right{kind: asRoot})
	}
}

// keys is the range that a message names.
func keys(m interface {
	GetKey() []byte
	GetRangeEnd() []byte
}) auth.Range {
	return auth.Keys(string(m.GetKey()), string(m.GetRangeEnd()))
}
