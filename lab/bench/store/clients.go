package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// clients are keep-alive connections of one thread, which waits for all of them at
// once: the least that a load generator can cost.
type clients struct {
	epoll  int
	conns  []conn
	events []unix.EpollEvent
	buf    []byte
}

// conn is one connection. It has one request under way at most.
type conn struct {
	fd      int
	answer  answer
	waiting bool // for the rest of an answer
}

// dial opens n connections to IPv4 addresses in turn.
func dial(addrs []string, n int) (*clients, error) {
	to := make([]netip.AddrPort, len(addrs))
	for i, addr := range addrs {
		var err error
		if to[i], err = netip.ParseAddrPort(addr); err != nil {
			return nil, err
		}
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	c := &clients{epoll: epoll, events: make([]unix.EpollEvent, 256), buf: make([]byte, 64<<10)}
	for i := range n {
		fd, err := connect(to[i%len(to)])
		if err == nil {
			c.conns = append(c.conns, conn{fd: fd})
			err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)})
		}
		if err != nil {
			c.close()
			return nil, fmt.Errorf("connection %d of %d to %s: %w", i+1, n, addrs[i%len(addrs)], err)
		}
	}
	return c, nil
}

func connect(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}

func (c *clients) close() {
	for i := range c.conns {
		unix.Close(c.conns[i].fd)
	}
	unix.Close(c.epoll)
}

// send writes a request; it is small, so the socket takes it whole.
func (c *clients) send(i int, request []byte) error {
	n, err := unix.Write(c.conns[i].fd, request)
	if err == nil && n < len(request) {
		err = errors.New("the socket is full")
	}
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	c.conns[i].waiting = true
	return nil
}

func (c *clients) sendAll(request []byte) error {
	for i := range c.conns {
		if err := c.send(i, request); err != nil {
			return err
		}
	}
	return nil
}

// exchange keeps one request under way on each connection until next returns nil, and
// returns when all are answered.
func (c *clients) exchange(ctx context.Context, next func() []byte, check func(*answer) error) error {
	for i := range c.conns {
		if request := next(); request != nil {
			if err := c.send(i, request); err != nil {
				return err
			}
		}
	}
	return c.each(ctx, (*answer).complete, func(i int) error {
		if err := check(&c.conns[i].answer); err != nil {
			return err
		}
		c.conns[i].answer.reset()
		c.conns[i].waiting = false
		if request := next(); request != nil {
			return c.send(i, request)
		}
		return nil
	})
}

// ask sends a request on all connections and waits for the heads of the answers.
func (c *clients) ask(ctx context.Context, request []byte) error {
	if err := c.sendAll(request); err != nil {
		return err
	}
	return c.each(ctx, func(a *answer) bool { return a.headed }, func(i int) error {
		c.conns[i].waiting = false
		return nil
	})
}

// receive waits for one whole answer on each connection.
func (c *clients) receive(ctx context.Context, check func(*answer) error) error {
	for i := range c.conns {
		c.conns[i].waiting = true
	}
	return c.each(ctx, (*answer).complete, func(i int) error {
		defer c.conns[i].answer.reset()
		c.conns[i].waiting = false
		return check(&c.conns[i].answer)
	})
}

// each reads until no connection waits any more. It calls enough when more of an
// answer has come, and then when it says so; then has to end the waiting.
func (c *clients) each(ctx context.Context, enough func(*answer) bool, then func(i int) error) error {
	waiting := 0
	for i := range c.conns {
		if c.conns[i].waiting {
			waiting++
		}
	}
	for waiting > 0 {
		n, err := unix.EpollWait(c.epoll, c.events, 1000)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range c.events[:max(n, 0)] {
			conn := &c.conns[e.Fd]
			if err := conn.read(c.buf); err != nil {
				return err
			}
			if !conn.waiting || !enough(&conn.answer) {
				continue
			}
			if err := then(int(e.Fd)); err != nil {
				return err
			}
			if !conn.waiting {
				waiting--
			}
		}
	}
	return nil
}

func (c *conn) read(buf []byte) error {
	n, err := unix.Read(c.fd, buf)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if n == 0 {
		return fmt.Errorf("the server closed the connection after %q", c.answer.raw)
	}
	return c.answer.add(buf[:n])
}

// answer is an HTTP/1.1 answer as far as it has come.
type answer struct {
	raw    []byte
	headed bool // the head is complete
	status int
	body   int // where it begins in raw
	length int // of the body, -1: chunked
}

func (a *answer) reset() { *a = answer{raw: a.raw[:0]} }

func (a *answer) add(more []byte) error {
	a.raw = append(a.raw, more...)
	if a.headed {
		return nil
	}
	end := bytes.Index(a.raw, []byte("\r\n\r\n"))
	if end < 0 {
		return nil
	}
	a.headed, a.body = true, end+4
	head := a.raw[:end+2]
	var err error
	if a.status, err = strconv.Atoi(string(head[len("HTTP/1.1 "):][:3])); err != nil {
		return fmt.Errorf("no status in %q", head)
	}
	a.length = -1
	if _, rest, ok := bytes.Cut(head, []byte("\r\nContent-Length: ")); ok {
		digits, _, _ := bytes.Cut(rest, []byte("\r"))
		if a.length, err = strconv.Atoi(string(digits)); err != nil {
			return fmt.Errorf("no length in %q", head)
		}
	}
	return nil
}

// complete reports whether all of the answer is there. What ends a chunked one
// cannot occur within a line of JSON.
func (a *answer) complete() bool {
	if a.length < 0 {
		return a.headed && bytes.HasSuffix(a.raw[a.body:], []byte("0\r\n\r\n"))
	}
	return a.headed && len(a.raw)-a.body >= a.length
}

// want checks the status.
func (a *answer) want(one, other int) error {
	if a.status != one && a.status != other {
		return fmt.Errorf("answered with %q", a.raw)
	}
	return nil
}
