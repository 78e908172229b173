// Package tunneltest is an SSH server for tests: it runs commands on this machine,
// connects to its ports and sockets, and can be told to refuse, to fall silent and to
// break off.
package tunneltest

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Server is one SSH server. Set its fields before Start.
type Server struct {
	// HostKeys are what it proves itself with. Empty: a new Ed25519 key.
	HostKeys []ssh.Signer
	// Listen is the address to listen on. "" is a free port of loopback.
	Listen string
	// Users are who may log in, with the keys of each.
	Users map[string][]ssh.PublicKey
	// Authority is the key whose user certificates are good. nil: none are.
	Authority ssh.PublicKey
	// Passwords takes no keys: it asks for a password, and none is right.
	Passwords bool
	// NoSockets refuses to connect to unix sockets, NoPorts to TCP ports.
	NoSockets, NoPorts bool
	// Env is added to the environment of commands.
	Env []string
	// Handle runs a command. nil: sh does.
	Handle func(*Session) (exit int)

	listener net.Listener
	mu       sync.Mutex
	conns    []*pausable
	opened   []string // channels that were asked for
	running  sync.WaitGroup
}

// Session is a command, or a shell where Command is "".
type Session struct {
	ssh.Channel
	Command string
	Term    string      // "" without a terminal
	Sizes   chan [2]int // columns and rows: at the start, and from then on
	Agent   bool        // the client lends its agent
	Conn    *ssh.ServerConn

	env []string
}

// NewKey makes a new Ed25519 key.
func NewKey() (private ed25519.PrivateKey, signer ssh.Signer, err error) {
	_, private, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	signer, err = ssh.NewSignerFromKey(private)
	return private, signer, err
}

// Start listens.
func (s *Server) Start() error {
	if len(s.HostKeys) == 0 {
		_, key, err := NewKey()
		if err != nil {
			return err
		}
		s.HostKeys = []ssh.Signer{key}
	}
	address := s.Listen
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s.listener = l
	s.running.Go(s.accept)
	return nil
}

// Addr is where it listens, as HOST:PORT.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Port is the port where it listens.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// Opened are the types of the channels that clients have asked for.
func (s *Server) Opened() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.opened)
}

// Silence makes it neither read nor write on the connections there are, as a machine
// without power does.
func (s *Server) Silence() {
	s.each(func(c *pausable) { c.pause() })
}

// Break breaks the connections there are.
func (s *Server) Break() {
	s.each(func(c *pausable) { c.Close() })
}

// Reinstall is what a machine that is installed anew does to its clients: from now on
// the host key is another one. The server goes on listening where it is, and forgets
// what it was asked for.
func (s *Server) Reinstall() error {
	_, key, err := NewKey()
	if err != nil {
		return err
	}
	s.Break()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.HostKeys, s.opened = []ssh.Signer{key}, nil
	return nil
}

// Close ends the server and its connections.
func (s *Server) Close() {
	s.listener.Close()
	s.Break()
	s.running.Wait()
}

func (s *Server) each(do func(*pausable)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		do(c)
	}
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		p := &pausable{Conn: conn, paused: make(chan struct{}), closed: make(chan struct{})}
		s.mu.Lock()
		s.conns = append(s.conns, p)
		s.mu.Unlock()
		s.running.Go(func() { s.serve(p) })
	}
}

func (s *Server) serve(conn net.Conn) {
	defer conn.Close()
	cfg := &ssh.ServerConfig{PublicKeyCallback: s.authenticate, MaxAuthTries: 6}
	if s.Passwords {
		cfg.PublicKeyCallback = nil
		cfg.PasswordCallback = func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, errors.New("wrong") }
	}
	s.mu.Lock()
	keys := s.HostKeys
	s.mu.Unlock()
	for _, k := range keys {
		cfg.AddHostKey(k)
	}
	server, channels, requests, err := ssh.NewServerConn(conn, cfg)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for ch := range channels {
		s.mu.Lock()
		s.opened = append(s.opened, ch.ChannelType())
		s.mu.Unlock()
		go s.open(server, ch)
	}
}

func (s *Server) authenticate(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	checker := ssh.CertChecker{
		IsUserAuthority: func(auth ssh.PublicKey) bool {
			return s.Authority != nil && ssh.FingerprintSHA256(auth) == ssh.FingerprintSHA256(s.Authority)
		},
		UserKeyFallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			for _, k := range s.Users[c.User()] {
				if ssh.FingerprintSHA256(k) == ssh.FingerprintSHA256(key) {
					return nil, nil
				}
			}
			return nil, errors.New("no such key")
		},
	}
	return checker.Authenticate(c, key)
}

func (s *Server) open(server *ssh.ServerConn, ch ssh.NewChannel) {
	switch ch.ChannelType() {
	case "session":
		s.session(server, ch)
	case "direct-tcpip":
		var to struct {
			Host   string
			Port   uint32
			Origin string
			From   uint32
		}
		s.forward(ch, &to, s.NoPorts, func() (net.Conn, error) {
			return net.Dial("tcp", net.JoinHostPort(to.Host, fmt.Sprint(to.Port)))
		})
	case "direct-streamlocal@openssh.com":
		var to struct {
			Path     string
			Reserved string
			Number   uint32
		}
		s.forward(ch, &to, s.NoSockets, func() (net.Conn, error) { return net.Dial("unix", to.Path) })
	default:
		_ = ch.Reject(ssh.UnknownChannelType, "unknown channel type")
	}
}

// forward copies between a channel and what dial connects to, which it may do after
// the request has been read into to.
func (s *Server) forward(ch ssh.NewChannel, to any, refuse bool, dial func() (net.Conn, error)) {
	if refuse {
		_ = ch.Reject(ssh.Prohibited, "open failed")
		return
	}
	err := ssh.Unmarshal(ch.ExtraData(), to)
	var conn net.Conn
	if err == nil {
		conn, err = dial()
	}
	if err != nil {
		_ = ch.Reject(ssh.ConnectionFailed, "open failed")
		return
	}
	defer conn.Close()
	channel, requests, err := ch.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	go func() {
		_, _ = io.Copy(channel, conn)
		channel.Close()
	}()
	_, _ = io.Copy(conn, channel)
}

func (s *Server) session(server *ssh.ServerConn, ch ssh.NewChannel) {
	channel, requests, err := ch.Accept()
	if err != nil {
		return
	}
	session := &Session{Channel: channel, Conn: server, Sizes: make(chan [2]int, 16), env: s.Env}
	started := false
	for r := range requests {
		ok := session.request(r)
		if start := r.Type == "exec" || r.Type == "shell"; start && ok && !started {
			started = true
			go session.run(s.Handle)
		}
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
	}
}

// request notes what a client wants and reports whether it gets that.
func (s *Session) request(r *ssh.Request) bool {
	switch r.Type {
	case "pty-req":
		var pty struct {
			Term                         string
			Columns, Rows, Width, Height uint32
			Modes                        string
		}
		if ssh.Unmarshal(r.Payload, &pty) != nil {
			return false
		}
		s.Term = pty.Term
		s.Sizes <- [2]int{int(pty.Columns), int(pty.Rows)}
	case "window-change":
		var size struct{ Columns, Rows, Width, Height uint32 }
		if ssh.Unmarshal(r.Payload, &size) != nil {
			return false
		}
		s.Sizes <- [2]int{int(size.Columns), int(size.Rows)}
	case "auth-agent-req@openssh.com":
		s.Agent = true
	case "exec":
		var line struct{ Line string }
		if ssh.Unmarshal(r.Payload, &line) != nil {
			return false
		}
		s.Command = line.Line
	case "shell":
	default:
		return false
	}
	return true
}

func (s *Session) run(handle func(*Session) int) {
	defer s.Close()
	if handle == nil {
		handle = (*Session).shell
	}
	exit := handle(s)
	_, _ = s.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(exit)}))
}

// shell runs the command, or what it reads, with sh.
func (s *Session) shell() int {
	var args []string
	if s.Command != "" {
		args = []string{"-c", s.Command}
	}
	cmd := exec.Command("sh", args...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = s, s.Stderr()
	in, err := cmd.StdinPipe()
	if err != nil {
		return 255
	}
	go func() {
		_, _ = io.Copy(in, s)
		in.Close()
	}()
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(s.Stderr(), err)
		return 127
	}
	return cmd.ProcessState.ExitCode()
}

// pausable is a connection that can fall silent for good.
type pausable struct {
	net.Conn
	once, closing  sync.Once
	paused, closed chan struct{}
}

func (p *pausable) pause() { p.once.Do(func() { close(p.paused) }) }

func (p *pausable) Close() error {
	p.closing.Do(func() { close(p.closed) })
	return p.Conn.Close()
}

// Read and Write hang when it is silent.
func (p *pausable) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	return n, p.hang(err)
}

func (p *pausable) Write(b []byte) (int, error) {
	if err := p.hang(nil); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

func (p *pausable) hang(err error) error {
	select {
	case <-p.paused:
		<-p.closed
		return net.ErrClosed
	default:
		return err
	}
}
