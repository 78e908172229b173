package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"flotilla/internal/fault"
	"flotilla/internal/tunnel/tunneltest"
)

func TestExitCodes(t *testing.T) {
	w := newWorld(t, func(s *tunneltest.Server) {
		s.Handle = func(session *tunneltest.Session) int {
			if session.Command == "die" {
				_, _ = session.SendRequest("exit-signal", false, ssh.Marshal(struct {
					Signal           string
					Core             bool
					Message, Langage string
				}{"TERM", false, "", ""}))
			}
			return len(session.Command)
		}
	})
	c := w.dial()
	for line, want := range map[string]int{"": 0, "x": 1, "seven..": 7, "die": 143} {
		if _, code := w.run(c, line); code != want {
			t.Errorf("%q: %d, want %d", line, code, want)
		}
	}
}

func TestStreams(t *testing.T) {
	w := newWorld(t)
	var out, errs bytes.Buffer
	code, err := w.dial().Run(t.Context(), Command{
		Line: "tr a-z A-Z; echo warning >&2; exit 3", Stdin: strings.NewReader("hello\n"), Stdout: &out, Stderr: &errs,
	})
	if err != nil || code != 3 || out.String() != "HELLO\n" || errs.String() != "warning\n" {
		t.Errorf("%d, %v, stdout %q, stderr %q", code, err, &out, &errs)
	}
}

// Without a command the shell reads its commands from standard input.
func TestShellFromAPipe(t *testing.T) {
	w := newWorld(t)
	var out bytes.Buffer
	code, err := w.dial().Run(t.Context(), Command{Stdin: strings.NewReader("echo one\necho two\nexit 5\n"), Stdout: &out})
	if err != nil || code != 5 || out.String() != "one\ntwo\n" {
		t.Errorf("%d, %v, %q", code, err, &out)
	}
}

func TestScreen(t *testing.T) {
	sizes := make(chan [2]int)
	w := newWorld(t, func(s *tunneltest.Server) {
		s.Handle = func(session *tunneltest.Session) int {
			_, _ = io.WriteString(session, session.Term)
			sizes <- <-session.Sizes
			sizes <- <-session.Sizes
			return 0
		}
	})
	resized := make(chan Size)
	done := make(chan struct{})
	var out bytes.Buffer
	c := w.dial()
	go func() {
		defer close(done)
		code, err := c.Run(t.Context(), Command{Stdout: &out, Screen: &Screen{Type: "xterm", Size: Size{80, 24}, Resized: resized}})
		if code != 0 || err != nil {
			t.Errorf("%d, %v", code, err)
		}
	}()
	if got := <-sizes; got != [2]int{80, 24} {
		t.Errorf("at first %v", got)
	}
	resized <- Size{120, 40}
	if got := <-sizes; got != [2]int{120, 40} {
		t.Errorf("then %v", got)
	}
	<-done
	if out.String() != "xterm" {
		t.Errorf("TERM %q", &out)
	}
}

func TestInterrupt(t *testing.T) {
	started := make(chan struct{})
	w := newWorld(t, func(s *tunneltest.Server) {
		s.Handle = func(session *tunneltest.Session) int {
			close(started)
			_, _ = session.Read(make([]byte, 1))
			return 0
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	input, output := net.Pipe()
	defer output.Close()
	if code, err := w.dial().Run(ctx, Command{Line: "wait", Stdin: input}); code != 130 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
}

func TestAgentForwarding(t *testing.T) {
	w := newWorld(t, func(s *tunneltest.Server) {
		s.Handle = func(session *tunneltest.Session) int {
			if !session.Agent {
				return 9
			}
			ch, requests, err := session.Conn.OpenChannel("auth-agent@openssh.com", nil)
			if err != nil {
				return 8
			}
			go ssh.DiscardRequests(requests)
			keys, err := agent.NewClient(ch).List()
			if err != nil {
				return 7
			}
			return len(keys)
		}
	})
	if code, err := w.dial().Run(t.Context(), Command{Line: "x", ForwardAgent: true}); err == nil || !strings.Contains(err.Error(), "SSH_AUTH_SOCK") {
		t.Errorf("without an agent: %d, %v", code, err)
	}
	var keys []any
	for range 3 {
		k, _, err := tunneltest.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	w.cfg.AgentSocket = startAgent(t, keys...)
	c := w.dial()
	if code, err := c.Run(t.Context(), Command{Line: "x", ForwardAgent: true}); err != nil || code != 3 {
		t.Errorf("%d, %v", code, err)
	}
	if _, code := w.run(c, "x"); code != 9 {
		t.Errorf("not asked for: %d", code)
	}
}

// serve answers HTTP on a listener with its name.
func serve(t *testing.T, l net.Listener) {
	t.Helper()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, "at "+r.URL.Path+": "+string(body))
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

// ask sends a request to the address through the client.
func ask(t *testing.T, c *Client, network, address string) (string, error) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return c.DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Post("http://fleet/v1", "text/plain", strings.NewReader(strings.Repeat("x", 100_000)))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return strings.TrimRight(string(b), "x"), err
}

func TestSocketThroughTheServer(t *testing.T) {
	socket := filepath.Join(shortDir(t), "fleet.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l)
	t.Run("by its own channel", func(t *testing.T) {
		w := newWorld(t)
		if got, err := ask(t, w.dial(), "unix", socket); err != nil || got != "at /v1: " {
			t.Errorf("%q, %v", got, err)
		}
		if got := w.server.Opened(); !slices.Equal(got, []string{"direct-streamlocal@openssh.com"}) {
			t.Errorf("channels %v", got)
		}
	})
	t.Run("by a command", func(t *testing.T) {
		w := newWorld(t, func(s *tunneltest.Server) { s.NoSockets, s.Handle = true, fdForward })
		c := w.dial()
		for range 2 {
			if got, err := ask(t, c, "unix", socket); err != nil || got != "at /v1: " {
				t.Errorf("%q, %v", got, err)
			}
		}
		// What the server has refused once it is not asked again.
		if got := w.server.Opened(); !slices.Equal(got, []string{"direct-streamlocal@openssh.com", "session", "session"}) {
			t.Errorf("channels %v", got)
		}
	})
}

// fdForward is "fleetctl fd-forward 'SOCKET'".
func fdForward(s *tunneltest.Session) int {
	socket, ok := strings.CutPrefix(s.Command, "fleetctl fd-forward ")
	if !ok {
		return 127
	}
	if err := Forward(context.Background(), strings.Trim(socket, "'"), s, s); err != nil {
		_, _ = io.WriteString(s.Stderr(), err.Error()+"\n")
		return 1
	}
	return 0
}

func TestSocketThatIsNotThere(t *testing.T) {
	for _, c := range []struct {
		name   string
		handle func(*tunneltest.Session) int
		words  []string
	}{
		{"no such socket", fdForward, []string{"fleetctl fd-forward '/no/such'", "no such file"}},
		{"no such command", func(*tunneltest.Session) int { return 127 }, []string{"status 127", "in the PATH there"}},
		{"not allowed", func(s *tunneltest.Session) int {
			_, _ = io.WriteString(s.Stderr(), "connect: permission denied\n")
			return 1
		}, []string{"permission denied", "--ssh-username"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(s *tunneltest.Server) { s.Handle = c.handle })
			_, err := ask(t, w.dial(), "unix", "/no/such")
			if err == nil {
				t.Fatal("there was an answer")
			}
			text := strings.Join(append(fault.Hints(err), err.Error()), "\n")
			for _, word := range c.words {
				if !strings.Contains(text, word) {
					t.Errorf("%q is not in\n%s", word, text)
				}
			}
		})
	}
}

func TestPortThroughTheServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l)
	if got, err := ask(t, newWorld(t).dial(), "tcp", l.Addr().String()); err != nil || got != "at /v1: " {
		t.Errorf("%q, %v", got, err)
	}
	closed := newWorld(t, func(s *tunneltest.Server) { s.NoPorts = true }).dial()
	if _, err := ask(t, closed, "tcp", l.Addr().String()); err == nil || !strings.Contains(err.Error(), "may not be reached through") {
		t.Error(err)
	}
	l.Close()
	if _, err := ask(t, newWorld(t).dial(), "tcp", l.Addr().String()); err == nil || !strings.Contains(err.Error(), "cannot be reached from core@") {
		t.Error(err)
	}
}

// A connection that waits for an answer is told that the server fell silent.
func TestConnectionOfAServerThatFallsSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := newWorld(t)
	w.cfg.KeepAlive = 30 * time.Millisecond
	conn, err := w.dial().DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w.server.Silence()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

func TestForwardWithoutASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if err := Forward(t.Context(), path, strings.NewReader(""), io.Discard); !os.IsNotExist(err) && !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"/run/fleet.sock": "'/run/fleet.sock'", "it's": `'it'\''s'`, "a b; rm -r /": "'a b; rm -r /'"} {
		if got := quote(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var tl tail
	_, _ = tl.Write(bytes.Repeat([]byte("a"), 5000))
	_, _ = tl.Write([]byte("end"))
	if s := tl.String(); len(s) != tailSize || !strings.HasSuffix(s, "aend") {
		t.Errorf("%d bytes: ...%s", len(s), s[len(s)-10:])
	}
}
