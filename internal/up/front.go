package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"flotilla/internal/endpoint"
)

// front serves DIR/run/fleet.sock by handing each connection to a machine that is
// alive, so that the API outlives any one machine.
func (u *Up) front(ctx context.Context, ready func()) error {
	l, err := endpoint.ListenUnix(u.cfg.runPath(endpoint.FleetSocket))
	if err != nil {
		return err
	}
	var open sync.WaitGroup
	defer open.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	ready()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		open.Go(func() { u.forward(ctx, conn) })
	}
}

// forward copies both ways until either side is done. A connection that no machine
// can take is closed: the client sees the daemon as away, which it is.
func (u *Up) forward(ctx context.Context, client net.Conn) {
	defer client.Close()
	server, err := u.hosts.dialAny()
	if err != nil {
		u.log.Debug("no machine takes the API's connection", "err", err)
		return
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { pipe(server, client) })
	both.Go(func() { pipe(client, server) })
	both.Wait()
}

// pipe copies until from ends and passes the end on.
func pipe(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(*net.UnixConn); ok && err == nil {
		half.CloseWrite()
		return
	}
	to.Close()
	from.Close()
}
