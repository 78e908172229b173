package registry

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// away tells a store that does not answer from one that says no.
func away(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var etcd rpctypes.EtcdError
	if errors.As(err, &etcd) {
		return unavailable(etcd.Code())
	}
	s, ok := status.FromError(err)
	return ok && unavailable(s.Code())
}

func unavailable(c codes.Code) bool {
	return c == codes.Unavailable || c == codes.DeadlineExceeded
}
