package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"flotilla/internal/fault"
)

// dialSocket connects to a unix socket on the server: by the channel that there is
// for it, or by a command there where the server does not do that. sshd gives the
// same answer to "not allowed" and to "cannot connect"; the command tells.
func (c *Client) dialSocket(ctx context.Context, path string) (net.Conn, error) {
	if !c.noSockets.Load() {
		conn, err := c.ssh.DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		var refused *ssh.OpenChannelError
		if !errors.As(err, &refused) {
			return nil, fmt.Errorf("reach %s through %s: %w", path, c.name, c.lost(err))
		}
		c.noSockets.Store(true)
	}
	return c.forwardFD(path)
}

// forwardFD runs "fleetctl fd-forward SOCKET" on the server and makes a connection of
// its standard input and output.
func (c *Client) forwardFD(path string) (net.Conn, error) {
	fail := func(err error) error { return fmt.Errorf("reach %s through %s: %w", path, c.name, c.lost(err)) }
	session, err := c.ssh.NewSession()
	if err != nil {
		return nil, fail(err)
	}
	conn := &commandConn{session: session, where: c.name, command: "fleetctl fd-forward " + quote(path)}
	session.Stderr = &conn.stderr
	conn.in, err = session.StdinPipe()
	if err == nil {
		conn.out, err = session.StdoutPipe()
	}
	if err == nil {
		err = session.Start(conn.command)
	}
	if err != nil {
		session.Close()
		return nil, fail(err)
	}
	conn.wait = sync.OnceValue(func() error { return conn.ended(session.Wait()) })
	return conn, nil
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// commandConn is a connection that a command on the server makes.
type commandConn struct {
	session *ssh.Session
	where   string
	command string
	in      io.WriteCloser
	out     io.Reader
	stderr  tail
	wait    func() error // the command's end
}

var _ net.Conn = (*commandConn)(nil)

// Read returns the command's complaint in place of io.EOF if it failed.
func (c *commandConn) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if n == 0 && errors.Is(err, io.EOF) {
		if failed := c.wait(); failed != nil {
			return 0, failed
		}
	}
	return n, err
}

// ended makes an error of how the command ended.
func (c *commandConn) ended(err error) error {
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(c.stderr.String())
	var exit *ssh.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("%q on %s: %w", c.command, c.where, err)
	}
	err = fmt.Errorf("%q on %s failed: %s", c.command, c.where, first(said, exit.Error()))
	if exit.ExitStatus() == 127 {
		return fault.Hint(err, "fleetctl must be in the PATH there, or sshd allow the forwarding of unix sockets")
	}
	if strings.Contains(strings.ToLower(said), "permission denied") {
		return fault.Hint(err, "that user may not open the socket: be another one with --ssh-username, or join the socket's group there")
	}
	return err
}

// Write returns the command's complaint if it has failed.
func (c *commandConn) Write(p []byte) (int, error) {
	n, err := c.in.Write(p)
	if err != nil {
		if failed := c.wait(); failed != nil {
			return n, failed
		}
	}
	return n, err
}

func (c *commandConn) Close() error { return c.session.Close() }

// The rest of net.Conn. Neither net/http nor crypto/tls need deadlines: they close
// the connection.

func (c *commandConn) LocalAddr() net.Addr              { return &net.UnixAddr{Net: "unix", Name: "@"} }
func (c *commandConn) RemoteAddr() net.Addr             { return &net.UnixAddr{Net: "unix", Name: c.command} }
func (c *commandConn) SetDeadline(time.Time) error      { return errNoDeadline }
func (c *commandConn) SetReadDeadline(time.Time) error  { return errNoDeadline }
func (c *commandConn) SetWriteDeadline(time.Time) error { return errNoDeadline }

var errNoDeadline = errors.New("a command's input and output have no deadlines")

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// tailSize is enough for the complaint of a command.
const tailSize = 2048

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-tailSize):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

// Forward copies in to the unix socket and the socket to out, until the socket has no
// more to say. The end of in is passed on to the socket. It is the other side of a
// connection made by a command: "fleetctl fd-forward SOCKET".
func Forward(ctx context.Context, socket string, in io.Reader, out io.Writer) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	go func() {
		// That the socket does not take more is seen by reading from it.
		_, _ = io.Copy(conn, in)
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	if _, err := io.Copy(out, conn); err != nil {
		return fmt.Errorf("copy from %s: %w", socket, err)
	}
	return ctx.Err()
}
