package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/user"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"flotilla/internal/fault"
)

// What a Config means that does not say otherwise.
const (
	DefaultTimeout   = 10 * time.Second
	DefaultKeepAlive = 15 * time.Second
	// DefaultUser is who one is on the machines of a cluster by custom.
	DefaultUser = "core"
)

// missedKeepAlives is how many intervals a server may stay silent.
const missedKeepAlives = 3

// Config says how to reach one server.
type Config struct {
	// Server is where it is. A user in it goes before User, a port before Port.
	Server Address
	// User is who to be there. "" means what ~/.ssh/config says, else DefaultUser.
	User string
	// Port is where it listens. 0 means what ~/.ssh/config says, else DefaultPort.
	Port int
	// Timeout limits connecting, and the handshake from one question to the person
	// at the terminal to the next. 0 means DefaultTimeout.
	Timeout time.Duration
	// KeepAlive is how often the server is asked whether it is still there; after
	// three times that without an answer the connection ends. 0 means
	// DefaultKeepAlive.
	KeepAlive time.Duration
	// KnownHosts is the file of the keys that servers must have. It need not exist.
	KnownHosts string
	// AnyHostKey connects whatever key the server has; nothing is remembered.
	AnyHostKey bool
	// Home is the directory that .ssh is in.
	Home string
	// AgentSocket is $SSH_AUTH_SOCK; "" means that there is no agent.
	AgentSocket string
	// Via reaches the server from another one. nil means from here.
	Via *Client
	// Terminal asks for passphrases and about unknown hosts. nil: nobody can be
	// asked.
	Terminal Asker
	// Warn tells the person at the terminal something, in lines without the last
	// newline. nil: nothing is told.
	Warn func(format string, args ...any)
}

// Asker asks a person.
type Asker interface {
	// Ask returns the answer without its newline. The answer is shown while it is
	// typed only if echo is set.
	Ask(ctx context.Context, question string, echo bool) (string, error)
}

// Client is a connection to an SSH server. It is safe for concurrent use.
type Client struct {
	name        string // user@host:port, for messages
	ssh         *ssh.Client
	agentSocket string
	jump        *Client // that ~/.ssh/config has us go through, and that ends with this one; nil: none
	stop        context.CancelCauseFunc
	gone        context.Context // done when the connection has ended, its cause says why
	noSockets   atomic.Bool     // the server has refused to connect to a socket itself
}

// ErrGone: the server does not answer any more.
var ErrGone = errors.New("the machine does not answer any more")

// Dial connects and authenticates. An error that has to do with the server's key is
// an ErrHostKey.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	d := &dialing{Config: cfg}
	d.defaults()
	jump, err := d.leap(ctx)
	if err != nil {
		return nil, err
	}
	c, err := d.dial(ctx)
	if err != nil {
		jump.Close()
		return nil, err
	}
	c.jump = jump
	return c, nil
}

// leap connects to the hosts that ~/.ssh/config names to go through, each from the one
// before, and has the server be reached from the last; nil if there are none. What is
// to be gone through has been said already where there is a Via. What the file has the
// hosts themselves go through is not done: all are in the one list.
func (d *dialing) leap(ctx context.Context) (last *Client, err error) {
	if d.Via != nil {
		return nil, nil
	}
	for _, word := range d.set.jumps {
		next := &dialing{Config: d.Config}
		next.User, next.Port = "", 0 // those of the server
		next.Server, err = ParseAddress(strings.TrimPrefix(strings.TrimSpace(word), "ssh://"))
		if err == nil && next.Server.Host == d.Server.Host {
			continue // "Host *" is about it, too
		}
		var c *Client
		if err == nil {
			next.defaults()
			c, err = next.dial(ctx)
		}
		if err != nil {
			last.Close()
			return nil, fmt.Errorf("on the way to %s (ProxyJump in ~/.ssh/config): %w", d.name(), err)
		}
		c.jump, last, d.Via = last, c, c
	}
	return last, nil
}

// dial connects from here, or from Via.
func (d *dialing) dial(ctx context.Context) (*Client, error) {
	conn, err := d.connect(ctx)
	if err != nil {
		return nil, d.connectError(err)
	}
	client, err := d.handshake(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	gone, stop := context.WithCancelCause(context.Background())
	c := &Client{name: d.name(), ssh: client, agentSocket: d.set.agentSocket(d.Home, d.AgentSocket), stop: stop, gone: gone}
	go c.watch(d.KeepAlive)
	return c, nil
}

// dialing is one attempt to connect.
type dialing struct {
	Config
	set  settings
	keys *keyring
}

// defaults fills in what was not said. What was said here goes before the file.
func (d *dialing) defaults() {
	if d.Warn == nil {
		d.Warn = func(string, ...any) {}
	}
	set, err := readSettings(d.Home, d.Server.Host)
	if err != nil {
		d.Warn("not used: %v", err)
	}
	d.set = set
	d.User = first(d.Server.User, d.User, set.user, DefaultUser)
	d.Port = first(d.Server.Port, d.Port, set.port, DefaultPort)
	d.Timeout = first(max(d.Timeout, 0), DefaultTimeout)
	d.KeepAlive = first(max(d.KeepAlive, 0), DefaultKeepAlive)
}

// first returns the first value that says something.
func first[T comparable](values ...T) T {
	var zero T
	for _, v := range values {
		if v != zero {
			return v
		}
	}
	return zero
}

// address is where to connect, and the name under which the host's key is known.
func (d *dialing) address() string {
	return net.JoinHostPort(first(d.set.hostName, d.Server.Host), strconv.Itoa(d.Port))
}

func (d *dialing) name() string {
	return Address{User: d.User, Host: d.Server.Host, Port: d.Port}.String()
}

func (d *dialing) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	if d.Via != nil {
		return d.Via.DialContext(ctx, "tcp", d.address())
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", d.address())
}

func (d *dialing) connectError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v", d.Timeout)
	}
	err = fmt.Errorf("connect to %s: %w", d.name(), err)
	if d.set.command != "" {
		return fault.Hint(err, "~/.ssh/config reaches it by the ProxyCommand %q, which is not run here: ProxyJump or --tunnel does the like", d.set.command)
	}
	return err
}

// patience closes a connection when a time has passed, but not while a person is
// being asked.
type patience struct {
	limit time.Duration
	timer *time.Timer
	over  atomic.Bool
}

func newPatience(limit time.Duration, conn io.Closer) *patience {
	p := &patience{limit: limit}
	p.timer = time.AfterFunc(limit, func() {
		p.over.Store(true)
		conn.Close()
	})
	return p
}

// asking is the questions of the handshake, which stop the clock.
func (d *dialing) asking(ctx context.Context, p *patience) asker {
	if d.Terminal == nil {
		return nil
	}
	return func(question string, echo bool) (string, error) {
		p.timer.Stop()
		defer p.timer.Reset(p.limit)
		return d.Terminal.Ask(ctx, question, echo)
	}
}

func (d *dialing) handshake(ctx context.Context, conn net.Conn) (*ssh.Client, error) {
	p := newPatience(d.Timeout, conn)
	defer p.timer.Stop()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	ask := d.asking(ctx, p)
	check, algorithms, err := hostKeys{file: d.KnownHosts, lax: d.AnyHostKey, ask: ask, warn: d.Warn}.callback(d.address())
	if err != nil {
		return nil, err
	}
	d.keys = &keyring{
		socket: d.set.agentSocket(d.Home, d.AgentSocket), identitiesOnly: d.set.identitiesOnly, ask: ask,
		files:    d.set.identities(d.Home, d.Server.Host, d.User),
		patience: d.Timeout / 4, // there may be keys in files, and time for them is to be left
	}
	defer d.keys.close()
	var refused error // by us: the host's key
	client, channels, requests, err := ssh.NewClientConn(conn, d.address(), &ssh.ClientConfig{
		User: d.User,
		Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(d.keys.signers)},
		HostKeyCallback: func(hostname string, remote net.Addr, key ssh.PublicKey) error {
			refused = check(hostname, remote, key)
			return refused
		},
		HostKeyAlgorithms: algorithms,
		ClientVersion:     "SSH-2.0-flotilla",
	})
	switch {
	case err == nil:
		return ssh.NewClient(client, channels, requests), nil
	case refused != nil:
		return nil, refused
	case context.Cause(ctx) != nil:
		return nil, fmt.Errorf("connect to %s: %w", d.name(), context.Cause(ctx))
	case p.over.Load():
		return nil, fmt.Errorf("connect to %s: it is there, and no handshake within %v", d.name(), d.Timeout)
	}
	return nil, d.handshakeError(err)
}

// handshakeError says which keys were of no use. The library has no type for that.
func (d *dialing) handshakeError(err error) error {
	if !strings.Contains(err.Error(), "unable to authenticate") {
		return fmt.Errorf("connect to %s: %w", d.name(), err)
	}
	if !d.keys.asked {
		return fault.Hint(fmt.Errorf("%s takes no keys, only a password or the like, which is not asked for here", d.name()),
			"give it a key with 'ssh-copy-id -p %d %s', and sshd there PubkeyAuthentication yes", d.Port, Address{User: d.User, Host: d.Server.Host})
	}
	err = fmt.Errorf("%s accepts none of our keys (%s)", d.name(), first(strings.Join(d.keys.names, ", "), "we have none"))
	for _, n := range d.keys.notes {
		err = fault.Hint(err, "%s", n)
	}
	return fault.Hint(err, "the key must be in ~/.ssh/authorized_keys of user %s there; another user: --ssh-username (here you are %s)", d.User, localUser())
}

func localUser() string {
	u, err := user.Current()
	if err != nil {
		return "somebody without a name"
	}
	return u.Username
}

// watch asks the server for a sign of life and ends the connection without one.
func (c *Client) watch(interval time.Duration) {
	go func() {
		err := c.ssh.Wait()
		c.stop(errors.Join(errors.New("the connection ended"), err))
	}()
	answers := make(chan error, 1)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	asked, missed := false, 0
	for {
		select {
		case <-c.gone.Done():
			return
		case <-answers:
			asked, missed = false, 0
		case <-tick.C:
			if missed++; missed > missedKeepAlives {
				c.stop(ErrGone)
				c.ssh.Close()
				return
			}
			if !asked {
				asked = true
				go func() {
					// Whatever it answers, it is there.
					_, _, err := c.ssh.SendRequest("keepalive@openssh.com", true, nil)
					answers <- err
				}()
			}
		}
	}
}

// Name is the server as user@host:port.
func (c *Client) Name() string { return c.name }

// Close ends the connection and all that runs over it. That of no client is none.
func (c *Client) Close() error {
	if c == nil {
		return nil
	}
	c.stop(net.ErrClosed)
	return errors.Join(c.ssh.Close(), c.jump.Close())
}

// lost says of an error of the connection why the connection has ended, if it has.
func (c *Client) lost(err error) error {
	if cause := context.Cause(c.gone); errors.Is(cause, ErrGone) {
		return fmt.Errorf("%s: %w", c.name, cause)
	}
	return err
}

// DialContext connects to a port ("tcp") or a unix socket ("unix") as seen from the
// server.
func (c *Client) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	var err error
	if network == "unix" {
		conn, err = c.dialSocket(ctx, address)
	} else if conn, err = c.ssh.DialContext(ctx, network, address); err != nil {
		err = c.dialError(address, err)
	}
	if err != nil {
		return nil, err
	}
	return &carried{Conn: conn, by: c}, nil
}

// carried is a connection over the server, whose end may be the server's.
type carried struct {
	net.Conn
	by *Client
}

// Read returns an ErrGone where the server has gone silent.
func (c *carried) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		err = c.by.lost(err)
	}
	return n, err
}

func (c *Client) dialError(address string, err error) error {
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) && refused.Reason == ssh.Prohibited {
		return fault.Hint(fmt.Errorf("%s may not be reached through %s: %s", address, c.name, refused.Message),
			"sshd there needs AllowTcpForwarding yes")
	}
	if errors.As(err, &refused) {
		return fmt.Errorf("%s cannot be reached from %s: %s", address, c.name, first(refused.Message, refused.Reason.String()))
	}
	return fmt.Errorf("reach %s through %s: %w", address, c.name, c.lost(err))
}
