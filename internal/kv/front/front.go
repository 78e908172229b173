package front

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
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

// Config says where a front listens. Log is required, and one URL in Listen.
type Config struct {
	Listen []url.URL // http, https, unix or unixs; port 0: the system picks one
	// ListenHTTP are addresses for HTTP/1 alone; if there are any, those in Listen
	// serve gRPC alone.
	ListenHTTP []url.URL
	TLS        TLS // for https and unixs
	Sockets    transport.SocketOpts
	Log        *slog.Logger
}

// Front takes connections at all its addresses and hands each, once it has shown
// what it speaks, to one of two listeners. Listen makes one.
type Front struct {
	log   *slog.Logger
	doors []door
	urls  []url.URL
	http  *queue
	grpc  *queue

	mu      sync.Mutex
	opening map[net.Conn]struct{} // not yet handed on
	closed  bool
	wg      sync.WaitGroup
}

// Listen binds all addresses, or none and says why. Clients may connect from then
// on, and wait until Serve.
func Listen(cfg Config) (*Front, error) {
	doors, err := bind(cfg)
	if err != nil {
		return nil, err
	}
	addr := doors[0].Addr()
	return &Front{
		log: cfg.Log, doors: doors, urls: boundURLs(cfg, doors),
		http: newQueue(addr), grpc: newQueue(addr), opening: map[net.Conn]struct{}{},
	}, nil
}

// URLs is where the front listens, with the ports that were bound.
func (f *Front) URLs() []url.URL { return slices.Clone(f.urls) }

// HTTP is a listener for the connections that speak HTTP/1. Each call makes one:
// closing it leaves the front open, so that another server may take over, and what
// arrives in between waits.
func (f *Front) HTTP() net.Listener { return f.http.listener() }

// GRPC is a listener, as HTTP, for the connections that open with the HTTP/2
// preface. A server on it wants Credentials.
func (f *Front) GRPC() net.Listener { return f.grpc.listener() }

// DialGRPC is a connection of this process to whoever accepts from GRPC; it
// speaks from the preface on, without TLS.
func (f *Front) DialGRPC() (net.Conn, error) {
	ours, theirs := net.Pipe()
	if !f.grpc.put(theirs) {
		return nil, net.ErrClosed
	}
	return ours, nil
}

// Serve begins to accept. It returns at once.
func (f *Front) Serve() {
	for _, d := range f.doors {
		f.wg.Add(1)
		go f.serve(d)
	}
}

// serve accepts at one door until the door is closed.
func (f *Front) serve(d door) {
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
func (f *Front) enter(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.opening[conn] = struct{}{}
		f.wg.Add(1)
	}
	return !f.closed
}

func (f *Front) leave(conn net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.opening, conn)
	f.wg.Done()
}

// open finds out what the connection speaks and hands it on.
func (f *Front) open(d door, raw net.Conn) {
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

// Close stops listening, ends the connections that have not said anything yet and
// closes both listeners. Connections that were handed on are their servers'. It
// may be called again, and without Serve.
func (f *Front) Close() {
	closeDoors(f.doors)
	f.mu.Lock()
	f.closed = true
	for conn := range f.opening {
		conn.Close()
	}
	f.mu.Unlock()
	f.http.close()
	f.grpc.close()
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

// queue is connections that a front has accepted for a server.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// put hands a connection to whoever accepts; false when nobody will any more.
func (q *queue) put(conn net.Conn) bool {
	select {
	case q.conns <- conn:
		return true
	case <-q.done:
		return false
	}
}

func (q *queue) close() { q.once.Do(func() { close(q.done) }) }

func (q *queue) listener() net.Listener {
	return &listener{queue: q, closed: make(chan struct{})}
}

// listener is one server's view of a queue.
type listener struct {
	queue  *queue
	closed chan struct{}
	once   sync.Once
}

var _ net.Listener = (*listener)(nil)

func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.queue.conns:
		return conn, nil
	case <-l.closed:
	case <-l.queue.done:
	}
	return nil, net.ErrClosed
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.queue.addr }

// protocols are the configurations of a TLS server by what a client is spoken to in.
type protocols struct{ http, grpc *tls.Config }

func byProtocol(base *tls.Config) protocols {
	p := protocols{base.Clone(), base.Clone()}
	p.http.NextProtos = []string{"http/1.1"}
	p.grpc.NextProtos = []string{"h2"}
	return p
}

// forClient chooses: a client that can speak HTTP/1.1 (a browser, curl) wants the v2 API,
// and only a client that offers HTTP/2 alone (gRPC) gets that.
func (p protocols) forClient(hello *tls.ClientHelloInfo) *tls.Config {
	if slices.Contains(hello.SupportedProtos, "h2") && !slices.Contains(hello.SupportedProtos, "http/1.1") {
		return p.grpc
	}
	return p.http
}
