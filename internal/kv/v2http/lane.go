package v2http

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Lane stands between a listener and an HTTP server and answers what most clients
// send most of the time by itself: a small GET, PUT, POST or DELETE of a key, with
// nothing in it that needs thought. A connection on which anything else arrives (a
// watch, an escape, an unknown header, a large body, a mistake) is handed on to
// the server, with that request unread, and stays there.
//
// The answers are those of the handler. What the server does for every request
// costs more than twice of what the store does for a read, which is why there is a
// lane.
//
// A Lane is a [net.Listener] for the server; it starts with the first Accept.
type Lane struct {
	listener net.Listener
	mine     func(net.Conn) bool
	open     func(host string) Desk
	idle     time.Duration

	start  sync.Once
	passed chan net.Conn
	ended  chan struct{} // closed with err set: no more connections will come
	err    error

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	wg     sync.WaitGroup // of those connections
}

// laneIdle is how long a connection may say nothing, or leave an answer unread.
const laneIdle = 5 * time.Minute

// laneRequest is how large a request may be that the lane answers, in bytes.
const laneRequest = 4096

// Desk is where a request of the lane is answered.
type Desk interface {
	Keys() *Handler
	Context() context.Context // of the request
	Leave()                   // the request is answered
}

// NewLane makes a lane. mine reports whether a connection is one for the lane: not
// one on which TLS tells who the client is. open is asked for each request where it shall be answered:
// nil, if that host is not served, if who sends it has to be looked at, or if
// nothing is open, is with the server.
func NewLane(l net.Listener, mine func(net.Conn) bool, open func(host string) Desk) *Lane {
	return &Lane{
		listener: l, mine: mine, open: open, idle: laneIdle,
		passed: make(chan net.Conn), ended: make(chan struct{}), conns: map[net.Conn]struct{}{},
	}
}

var _ net.Listener = (*Lane)(nil)

// Accept waits for a connection that the server has to serve.
func (l *Lane) Accept() (net.Conn, error) {
	l.start.Do(func() { go l.accept() })
	select {
	case conn := <-l.passed:
		return conn, nil
	case <-l.ended:
		return nil, l.err
	}
}

// Addr is the listener's.
func (l *Lane) Addr() net.Addr { return l.listener.Addr() }

// Close closes the listener. Connections end after the request that they are
// at; Shutdown waits for them.
func (l *Lane) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for conn := range l.conns {
		conn.SetReadDeadline(time.Unix(1, 0)) // wakes who waits for a request
	}
	return l.listener.Close()
}

// Shutdown closes the lane and waits for the requests that run until ctx is done,
// then it cuts their connections.
func (l *Lane) Shutdown(ctx context.Context) error {
	l.Close()
	idle := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		conn.Close()
	}
	return ctx.Err()
}

func (l *Lane) accept() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			l.err = err
			close(l.ended)
			return
		}
		if !l.mine(conn) {
			go l.hand(conn)
			continue
		}
		if !l.enter(conn) {
			conn.Close()
			continue
		}
		go l.serve(conn)
	}
}

func (l *Lane) enter(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.conns[conn] = struct{}{}
		l.wg.Add(1)
	}
	return !l.closed
}

func (l *Lane) leave(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
	l.wg.Done()
}

// serve answers requests until one comes that is not for the lane.
func (l *Lane) serve(conn net.Conn) {
	c := laneConn{Lane: l, conn: conn, in: make([]byte, 0, laneRequest)}
	hand := c.run()
	l.leave(conn)
	if !hand {
		conn.Close()
		return
	}
	conn.SetDeadline(time.Time{})
	l.hand(&unread{Conn: conn, read: c.in})
}

// hand gives a connection to the server, unless that takes none any more.
func (l *Lane) hand(conn net.Conn) {
	select {
	case l.passed <- conn:
	case <-l.ended:
		conn.Close()
	}
}

// unread is a connection of which the first bytes were read already.
type unread struct {
	net.Conn
	read []byte
}

func (u *unread) Read(p []byte) (int, error) {
	if len(u.read) == 0 {
		u.read = nil
		return u.Conn.Read(p)
	}
	n := copy(p, u.read)
	u.read = u.read[n:]
	return n, nil
}

// laneConn is a connection that the lane serves.
type laneConn struct {
	*Lane
	conn     net.Conn
	in       []byte // read and not answered
	out      []byte // the answer, and its body
	body     []byte
	host     string // that the last request named
	deadline time.Time
}

// run returns whether the server shall go on with the connection.
func (c *laneConn) run() (hand bool) {
	for {
		if !c.extend(time.Now()) {
			return false
		}
		n, err := c.conn.Read(c.in[len(c.in):cap(c.in)])
		c.in = c.in[:len(c.in)+n]
		for {
			r, size := parseSimple(c.in)
			if size < 0 || size == 0 && len(c.in) == cap(c.in) {
				return true
			}
			if size == 0 {
				break
			}
			desk := c.desk(r)
			if desk == nil {
				return true
			}
			if !c.answer(r, desk) {
				return false
			}
			c.in = append(c.in[:0], c.in[size:]...)
		}
		if err != nil {
			return false
		}
	}
}

// extend gives the client time to go on, now and then: to do that for every
// request would cost as much as a read of the store. It is false when the lane is
// closed.
func (c *laneConn) extend(now time.Time) bool {
	if c.deadline.Sub(now) > c.idle {
		return true
	}
	c.deadline = now.Add(2 * c.idle)
	c.mu.Lock() // or Close would set its deadline before this one
	defer c.mu.Unlock()
	return !c.closed && c.conn.SetDeadline(c.deadline) == nil
}

// desk asks where the request may be answered.
func (c *laneConn) desk(r simple) Desk {
	if c.host != string(r.host) {
		c.host = string(r.host)
	}
	return c.open(c.host)
}

// answer carries out the request and writes the reply. It is false when the
// client cannot be told.
func (c *laneConn) answer(r simple, desk Desk) bool {
	defer desk.Leave()
	now, h := time.Now(), desk.Keys()
	reply := h.carryOut(desk.Context(), r.method, r.path, r.request, true) // the desk is open to everybody
	c.body = reply.appendBody(c.body[:0])
	c.out = h.appendHead(c.out[:0], reply, len(c.body), now)
	c.out = append(c.out, c.body...)
	_, err := c.conn.Write(c.out)
	if cap(c.out) > 16*laneRequest { // a long listing
		c.out, c.body = nil, nil
	}
	return err == nil && c.extend(now)
}

// appendHead appends the head of an answer as net/http would send it.
func (h *Handler) appendHead(b []byte, r reply, length int, now time.Time) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(r.status)...)
	if h.anyOrigin { // else who names an origin is with the server
		b = append(b, corsForAll...)
	}
	b = append(b, "\r\nContent-Type: application/json\r\nX-Etcd-Cluster-Id: "...)
	b = strconv.AppendUint(b, h.Info.ClusterID(), 16)
	b = appendHeader(b, "\r\nX-Etcd-Index: ", r.index)
	if r.event != nil {
		b = appendHeader(b, "\r\nX-Raft-Index: ", h.Info.RaftIndex())
		b = appendHeader(b, "\r\nX-Raft-Term: ", h.Info.RaftTerm())
	}
	b = now.UTC().AppendFormat(append(b, "\r\nDate: "...), http.TimeFormat)
	b = appendHeader(b, "\r\nContent-Length: ", uint64(length))
	return append(b, "\r\n\r\n"...)
}

func appendHeader(b []byte, name string, value uint64) []byte {
	return strconv.AppendUint(append(b, name...), value, 10)
}

const corsForAll = "\r\nAccess-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE" +
	"\r\nAccess-Control-Allow-Origin: *" +
	"\r\nAccess-Control-Allow-Headers: accept, content-type, authorization"
