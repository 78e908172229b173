package member

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A call in which the engine panics fails, and is counted as through.
func TestInterceptPanic(t *testing.T) {
	c := newInflight()
	_, err := c.intercept(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/etcdserverpb.Maintenance/Status"},
		func(context.Context, any) (any, error) { panic("failed to find local ID in cluster members") })
	if status.Code(err) != codes.Internal {
		t.Errorf("got %v, want an internal error", err)
	}
	c.wait(t.Context())
}
