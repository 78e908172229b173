package member

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// preface is what every HTTP/2 connection opens with (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// openingTimeout is how long a connection may take to show what it speaks. A
// client may keep one in reserve, so this is generous; it costs one goroutine.
const openingTimeout = 5 * time.Minute

// handshakeTimeout bounds the TLS handshake, in which a client has no reason to
// wait.
const handshakeTimeout = 10 * time.Second

// speaks is which of the two protocols a listening address serves.
type speaks struct{ http, grpc bool }

// door is one listening address of the front.
type door struct {
	net.Listener
	speaks
	tls *tls.Config // nil: plain
}

// front takes connections from all doors and hands each, once it has shown what
// it speaks, to the queue of one of the two servers.
type front struct {
	log  *slog.Logger
	http *queue
	grpc *queue

	mu      sync.Mutex
	opening map[net.Conn]struct{} // not yet handed on
	closed  bool
	wg      sync.WaitGroup
}

func newFront(log *slog.Logger, addr net.Addr) *front {
	return &front{log: log, http: newQueue(addr), grpc: newQueue(addr), opening: map[net.Conn]struct{}{}}
}

// serve accepts at one door until the door is closed.
func (f *front) serve(d door) {
	defer f.wg.Done()
	var pause time.Duration
	for {
		conn, err := d.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors: wait for some to be freed. Any other error of
			// accept(2) concerns one connection only.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			f.log.Warn("cannot accept a connection", "address", d.Addr().String(), "err", err, "next_try", pause)
			time.Sleep(pause)
			continue
		}
		pause = 0
		if !f.enter(conn) {
			conn.Close()
			continue
		}
		go f.open(d, conn)
	}
}

// enter notes a connection so that close finds it.
func (f *front) enter(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.opening[conn] = struct{}{}
		f.wg.Add(1)
	}
	return !f.closed
}

func (f *front) leave(conn net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.opening, conn)
	f.wg.Done()
}

// open finds out what the connection speaks and hands it on.
func (f *front) open(d door, raw net.Conn) {
	defer f.leave(raw)
	conn, err := handshake(raw, d.tls)
	if err != nil {
		f.log.Debug("TLS handshake failed", "remote", raw.RemoteAddr().String(), "err", err)
		raw.Close()
		return
	}
	conn.SetReadDeadline(time.Now().Add(openingTimeout))
	read, http2, err := sniff(conn)
	conn.SetReadDeadline(time.Time{})
	if err != nil {
		conn.Close()
		return
	}
	to := f.http
	if http2 {
		to = f.grpc
	}
	if (http2 && !d.speaks.grpc) || (!http2 && !d.speaks.http) || !to.put(&replay{Conn: conn, read: read}) {
		conn.Close()
	}
}

// close ends the connections that have not said anything yet and waits for the
// doors, which the caller has closed.
func (f *front) close() {
	f.mu.Lock()
	f.closed = true
	for conn := range f.opening {
		conn.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

func handshake(conn net.Conn, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return conn, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	secure := tls.Server(conn, config)
	return secure, secure.HandshakeContext(ctx)
}

// sniff reads until it is clear whether the connection opens with the HTTP/2
// preface. No method of HTTP/1 begins with "PRI", so for any of its requests three
// bytes are enough.
func sniff(conn net.Conn) (read []byte, http2 bool, err error) {
	buf := make([]byte, 0, len(preface))
	for len(buf) < len(preface) {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if string(buf) != preface[:len(buf)] {
			return buf, false, nil
		}
		if err != nil {
			return buf, false, err
		}
	}
	return buf, true, nil
}

// replay is a connection of which the first bytes were read already.
type replay struct {
	net.Conn
	read []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.read) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.read)
	r.read = r.read[n:]
	return n, nil
}

// queue is a listener whose connections somebody else accepted.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

var _ net.Listener = (*queue)(nil)

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// put hands a connection to the server; false when it no longer takes any.
func (q *queue) put(conn net.Conn) bool {
	select {
	case q.conns <- conn:
		return true
	case <-q.done:
		return false
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return q.addr }

// byProtocol makes a server choose what a client is spoken to in: a client that
// can speak HTTP/1.1 (a browser, curl) wants the v2 API, and only a client that
// offers HTTP/2 alone (gRPC) gets that.
func byProtocol(base *tls.Config) *tls.Config {
	one, two, front := base.Clone(), base.Clone(), base.Clone()
	one.NextProtos = []string{"http/1.1"}
	two.NextProtos = []string{"h2"}
	front.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, "h2") && !slices.Contains(hello.SupportedProtos, "http/1.1") {
			return two, nil
		}
		return one, nil
	}
	return front
}
