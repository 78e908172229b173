package gate

import (
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"flotilla/internal/kv/auth"
)

// While authentication is off everybody may read everything through v3, but for what
// the records of users and roles say: it holds the hashes of passwords, which are
// to keep their worth until authentication is on again. The keys are shown, with
// empty values, so that counts, pages and revisions stay what they are; and no
// question about their values is answered.

// errWithheld refuses what would give a value away by and by.
var errWithheld = status.Error(codes.PermissionDenied,
	"etcdserver: the values below "+auth.RecordsStart+" are withheld while authentication is off: do not compare them, or sort by them")

// asksWithheld reports whether the request compares or sorts by values of records.
func asksWithheld(req any) bool {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return r.GetSortTarget() == pb.RangeRequest_VALUE && ofRecords(r)
	case *pb.TxnRequest:
		for _, c := range r.GetCompare() {
			if c.GetTarget() == pb.Compare_VALUE && ofRecords(c) {
				return true
			}
		}
		return anyAsks(r.GetSuccess()) || anyAsks(r.GetFailure())
	}
	return false
}

func anyAsks(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		if asksWithheld(op.GetRequestRange()) || asksWithheld(op.GetRequestTxn()) {
			return true
		}
	}
	return false
}

// ofRecords reports whether the range that a message names has records in it.
func ofRecords(m interface {
	GetKey() []byte
	GetRangeEnd() []byte
}) bool {
	return keys(m).Meets(auth.Records)
}

// withhold empties the records' values in a response.
func withhold(resp any) {
	switch r := resp.(type) {
	case *pb.RangeResponse:
		withholdAll(r.GetKvs())
	case *pb.RangeStreamResponse:
		withholdAll(r.GetRangeResponse().GetKvs())
	case *pb.PutResponse:
		if r.GetPrevKv() != nil {
			r.PrevKv = withheld(r.PrevKv)
		}
	case *pb.DeleteRangeResponse:
		withholdAll(r.GetPrevKvs())
	case *pb.TxnResponse:
		for _, op := range r.GetResponses() {
			withholdOp(op)
		}
	case *pb.WatchResponse:
		withholdEvents(r.GetEvents())
	case *v3electionpb.LeaderResponse:
		if r.GetKv() != nil {
			r.Kv = withheld(r.Kv)
		}
	}
}

func withholdOp(op *pb.ResponseOp) {
	switch o := op.GetResponse().(type) {
	case *pb.ResponseOp_ResponseRange:
		withhold(o.ResponseRange)
	case *pb.ResponseOp_ResponsePut:
		withhold(o.ResponsePut)
	case *pb.ResponseOp_ResponseDeleteRange:
		withhold(o.ResponseDeleteRange)
	case *pb.ResponseOp_ResponseTxn:
		withhold(o.ResponseTxn)
	}
}

func withholdAll(kvs []*mvccpb.KeyValue) {
	for i, kv := range kvs {
		kvs[i] = withheld(kv)
	}
}

// withholdEvents changes the list, which is the response's own, and not the events,
// which watchers share.
func withholdEvents(events []*mvccpb.Event) {
	for i, e := range events {
		if isRecord(e.GetKv()) {
			events[i] = &mvccpb.Event{Type: e.GetType(), Kv: withheld(e.GetKv()), PrevKv: withheld(e.GetPrevKv())}
		}
	}
}

// withheld is kv itself, or a copy without the value if it is a record.
func withheld(kv *mvccpb.KeyValue) *mvccpb.KeyValue {
	if !isRecord(kv) {
		return kv
	}
	kv = proto.CloneOf(kv)
	kv.Value = nil
	return kv
}

func isRecord(kv *mvccpb.KeyValue) bool {
	return kv != nil && strings.HasPrefix(string(kv.GetKey()), auth.RecordsStart)
}
