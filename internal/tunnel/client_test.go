package tunnel

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"flotilla/internal/fault"
	"flotilla/internal/tunnel/tunneltest"
)

// world is a server, and a person with a home directory who has a key to it.
type world struct {
	*testing.T
	server *tunneltest.Server
	cfg    Config // reaches the server, with the key in a file
	pem    []byte // the private key
	signer ssh.Signer
	mu     sync.Mutex
	told   strings.Builder // what the person was told
}

func newWorld(t *testing.T, change ...func(*tunneltest.Server)) *world {
	t.Helper()
	w := &world{T: t}
	private, signer, err := tunneltest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	w.pem, w.signer = pem.EncodeToMemory(block), signer
	w.server = &tunneltest.Server{Users: map[string][]ssh.PublicKey{"core": {signer.PublicKey()}}}
	for _, c := range change {
		c(w.server)
	}
	if err := w.server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	home := t.TempDir()
	write(t, filepath.Join(home, ".ssh", "id_ed25519"), string(w.pem))
	w.cfg = Config{
		Server:     Address{Host: "127.0.0.1", Port: w.server.Port()},
		KnownHosts: filepath.Join(home, ".fleetctl", "known_hosts"),
		AnyHostKey: true,
		Home:       home,
		Warn: func(format string, args ...any) {
			w.mu.Lock()
			defer w.mu.Unlock()
			fmt.Fprintf(&w.told, format+"\n", args...)
		},
	}
	return w
}

func (w *world) toldText() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told.String()
}

// dial connects, and wants that to succeed.
func (w *world) dial() *Client {
	w.Helper()
	c, err := Dial(w.Context(), w.cfg)
	if err != nil {
		w.Fatalf("%v %q", err, fault.Hints(err))
	}
	w.Cleanup(func() { c.Close() })
	return c
}

// fails wants connecting to fail with these words in the error or its hints.
func (w *world) fails(words ...string) error {
	w.Helper()
	c, err := Dial(w.Context(), w.cfg)
	if err == nil {
		c.Close()
		w.Fatal("it connected")
	}
	text := strings.Join(append([]string{err.Error()}, fault.Hints(err)...), "\n")
	for _, word := range words {
		if !strings.Contains(text, word) {
			w.Errorf("%q is not in\n%s", word, text)
		}
	}
	return err
}

// run runs a command and returns what it printed and its exit code.
func (w *world) run(c *Client, line string) (string, int) {
	w.Helper()
	var out bytes.Buffer
	code, err := c.Run(w.Context(), Command{Line: line, Stdout: &out})
	if err != nil {
		w.Fatal(err)
	}
	return out.String(), code
}

// startAgent serves an agent with the keys on a socket.
func startAgent(t *testing.T, keys ...any) string {
	t.Helper()
	keyring := agent.NewKeyring()
	for _, k := range keys {
		if err := keyring.Add(agent.AddedKey{PrivateKey: k}); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(shortDir(t), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = agent.ServeAgent(keyring, conn)
				conn.Close()
			}()
		}
	}()
	return socket
}

// shortDir is a directory for sockets, whose paths have at most 107 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tun")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// person answers questions, in order.
type person struct {
	answers []string
	asked   []string
	pause   time.Duration // before each answer
}

func (p *person) Ask(_ context.Context, question string, echo bool) (string, error) {
	p.asked = append(p.asked, fmt.Sprintf("%t %s", echo, question))
	time.Sleep(p.pause)
	if len(p.answers) == 0 {
		return "", errors.New("nothing more to say")
	}
	a := p.answers[0]
	p.answers = p.answers[1:]
	return a, nil
}

func TestKeyFromAFile(t *testing.T) {
	w := newWorld(t)
	c := w.dial()
	if want := fmt.Sprintf("core@127.0.0.1:%d", w.server.Port()); c.Name() != want {
		t.Errorf("name %q, want %q", c.Name(), want)
	}
	if out, code := w.run(c, "echo hello"); out != "hello\n" || code != 0 {
		t.Errorf("%q, %d", out, code)
	}
}

func TestKeyFromTheAgent(t *testing.T) {
	w := newWorld(t)
	private, err := ssh.ParseRawPrivateKey(w.pem)
	if err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(filepath.Join(w.cfg.Home, ".ssh"))
	w.fails("accepts none of our keys (we have none)", "SSH_AUTH_SOCK is not set")
	w.cfg.AgentSocket = startAgent(t, private)
	w.dial()
}

// The agent holds more keys than the server has patience for; the one that
// ~/.ssh/config names goes first.
func TestConfiguredKeyGoesFirst(t *testing.T) {
	w := newWorld(t)
	var keys []any
	for range 10 {
		k, _, err := tunneltest.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	private, err := ssh.ParseRawPrivateKey(w.pem)
	if err != nil {
		t.Fatal(err)
	}
	w.cfg.AgentSocket = startAgent(t, append(keys, private)...)
	ssh1 := filepath.Join(w.cfg.Home, ".ssh")
	os.Remove(filepath.Join(ssh1, "id_ed25519"))
	w.fails()
	write(t, filepath.Join(ssh1, "work.pub"), string(ssh.MarshalAuthorizedKey(w.signer.PublicKey())))
	write(t, filepath.Join(ssh1, "config"), "Host 127.0.0.1\n  IdentityFile ~/.ssh/work\n  IdentitiesOnly yes\n")
	w.dial()
}

func TestPassphrase(t *testing.T) {
	w := newWorld(t)
	private, err := ssh.ParseRawPrivateKey(w.pem)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.cfg.Home, ".ssh", "id_ed25519")
	write(t, path, string(pem.EncodeToMemory(block)))
	w.fails("it has a passphrase, and there is no terminal")

	p := &person{answers: []string{"wrong", "open sesame"}}
	w.cfg.Terminal = p
	w.dial()
	if want := "false Enter passphrase for key '" + path + "': "; !slices.Equal(p.asked, []string{want, want}) {
		t.Errorf("asked %q", p.asked)
	}
	p.answers = []string{"a", "b", "c", "open sesame"}
	w.fails()
	if len(p.answers) != 1 {
		t.Errorf("%d answers are left", len(p.answers))
	}
	// A server that does not want the key is no reason to ask.
	p.asked, w.cfg.User = nil, "nobody"
	w.fails("nobody@127.0.0.1", "--ssh-username")
	if p.asked != nil {
		t.Errorf("asked %q", p.asked)
	}
}

func TestCertificate(t *testing.T) {
	_, authority, err := tunneltest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(s *tunneltest.Server) {
		s.Users, s.Authority = nil, authority.PublicKey()
	})
	w.fails()
	cert := &ssh.Certificate{Key: w.signer.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"core"}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.cfg.Home, ".ssh", "id_ed25519-cert.pub"), string(ssh.MarshalAuthorizedKey(cert)))
	w.dial()
}

func TestConfigFileNamesTheServer(t *testing.T) {
	w := newWorld(t)
	w.cfg.Server = Address{Host: "web"}
	write(t, filepath.Join(w.cfg.Home, ".ssh", "config"), fmt.Sprintf("Host web\n  HostName 127.0.0.1\n  Port %d\n  User core\n", w.server.Port()))
	w.dial()
	w.cfg.User = "else"
	w.fails("else@web") // what was said goes before the file
	write(t, filepath.Join(w.cfg.Home, ".ssh", "config"), "Match exec true\n")
	w.cfg.Server, w.cfg.User = Address{Host: "127.0.0.1", Port: w.server.Port()}, ""
	w.dial()
	if !strings.Contains(w.toldText(), "not used: ") {
		t.Errorf("told %q", w.toldText())
	}
}

func TestNobodyThere(t *testing.T) {
	w := newWorld(t)
	write(t, filepath.Join(w.cfg.Home, ".ssh", "config"), "Host *\n  ProxyCommand nc bastion\n")
	w.server.Close()
	w.fails("connect to core@127.0.0.1", "connection refused", `by the ProxyCommand "nc bastion"`)
}

// A host that asks for passwords alone: what is said is not about keys of ours.
func TestPasswordsAreNotAskedFor(t *testing.T) {
	w := newWorld(t, func(s *tunneltest.Server) { s.Passwords = true })
	w.fails("takes no keys, only a password or the like", fmt.Sprintf("ssh-copy-id -p %d core@127.0.0.1", w.server.Port()))
}

func TestJumpHosts(t *testing.T) {
	w, bastion, inner := newWorld(t), newWorld(t), newWorld(t)
	for _, other := range []*world{bastion, inner} {
		other.server.Users["core"] = append(other.server.Users["core"], w.signer.PublicKey())
	}
	w.cfg.AnyHostKey = true
	config := filepath.Join(w.cfg.Home, ".ssh", "config")
	write(t, config, fmt.Sprintf("Host bastion\n  HostName 127.0.0.1\n  Port %d\n\nHost *\n  ProxyJump bastion, ssh://core@127.0.0.2:%d\n",
		bastion.server.Port(), inner.server.Port()))
	w.fails("on the way to core@127.0.0.1", "connect to core@127.0.0.2", "cannot be reached from core@bastion")

	write(t, config, fmt.Sprintf("Host bastion\n  HostName 127.0.0.1\n  Port %d\n\nHost *\n  ProxyJump bastion\n", bastion.server.Port()))
	c := w.dial()
	if out, code := w.run(c, "echo hello"); out != "hello\n" || code != 0 {
		t.Errorf("%q, %d", out, code)
	}
	if got := bastion.server.Opened(); !slices.Equal(got, []string{"direct-tcpip", "direct-tcpip"}) {
		t.Errorf("through the bastion went %q, once in vain", got)
	}
	jump := c.jump
	c.Close()
	<-jump.gone.Done() // it ends with it
}

// Something accepts connections and says nothing.
func TestHandshakeTimeout(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.cfg.Server.Port = l.Addr().(*net.TCPAddr).Port
	w.cfg.Timeout = 50 * time.Millisecond
	w.fails("no handshake within 50ms")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.cfg.Timeout = time.Minute
	if _, err := Dial(ctx, w.cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// Who thinks about an answer is not cut off.
func TestQuestionsStopTheClock(t *testing.T) {
	w := newWorld(t)
	w.cfg.AnyHostKey = false
	w.cfg.Timeout = 500 * time.Millisecond
	w.cfg.Terminal = &person{answers: []string{"yes"}, pause: 700 * time.Millisecond}
	w.dial()
}

func TestServerGoesAway(t *testing.T) {
	for _, c := range []struct {
		how   string
		away  func(*tunneltest.Server)
		words string
	}{
		{"breaks", (*tunneltest.Server).Break, "the connection ended before the command did"},
		{"falls silent", (*tunneltest.Server).Silence, "does not answer any more"},
	} {
		t.Run(c.how, func(t *testing.T) {
			started := make(chan struct{})
			w := newWorld(t, func(s *tunneltest.Server) {
				s.Handle = func(session *tunneltest.Session) int {
					close(started)
					_, _ = session.Read(make([]byte, 1))
					return 0
				}
			})
			w.cfg.KeepAlive = 30 * time.Millisecond
			client := w.dial()
			go func() {
				<-started
				c.away(w.server)
			}()
			input, output := net.Pipe() // no input ever comes
			defer output.Close()
			code, err := client.Run(t.Context(), Command{Line: "wait", Stdin: input})
			if code != ExitNoAnswer || err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%d, %v", code, err)
			}
		})
	}
}

// A server that only has nothing to say is kept.
func TestKeepAliveKeeps(t *testing.T) {
	w := newWorld(t)
	w.cfg.KeepAlive = 10 * time.Millisecond
	if out, code := w.run(w.dial(), "sleep 0.2; echo there"); out != "there\n" || code != 0 {
		t.Errorf("%q, %d", out, code)
	}
}

// An agent that hangs does not hold up a connection for which there is a key in a file.
func TestAgentThatHangs(t *testing.T) {
	w := newWorld(t)
	w.cfg.AgentSocket, w.cfg.Timeout = filepath.Join(t.TempDir(), "agent"), time.Second
	ln, err := net.Listen("unix", w.cfg.AgentSocket) // nobody takes what is said there
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		c, err := Dial(t.Context(), w.cfg)
		if err == nil {
			c.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it hangs")
	}
}
