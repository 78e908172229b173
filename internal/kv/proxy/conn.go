package proxy

import (
	"context"
	"net"
	"os"
	"slices"
	"time"
)

// dialer is net.Dialer's method.
type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

// limited makes connections on which a read or a write takes at most so long; 0
// means without limit.
func limited(dial dialer, read, write time.Duration) dialer {
	if read == 0 && write == 0 {
		return dial
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &limitedConn{conn, read, write}, nil
	}
}

type limitedConn struct {
	net.Conn
	read, write time.Duration
}

func (c *limitedConn) Read(b []byte) (int, error) {
	if c.read > 0 {
		if err := c.SetReadDeadline(time.Now().Add(c.read)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

func (c *limitedConn) Write(b []byte) (int, error) {
	if c.write > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.write)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// equal compares without order.
func equal(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
