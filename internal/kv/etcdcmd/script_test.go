package etcdcmd

import (
	"context"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"flotilla/client/keys"
	"flotilla/internal/applet"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"etcd": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			os.Exit(Applet().Run(ctx, applet.Env{
				Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv,
			}))
		},
	})
}

// The scripts run etcd as a process of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Values[heardKey{}] = make(chan string, 10)
			for _, name := range []string{"CLIENT", "PEER"} {
				addr, err := freeAddr()
				if err != nil {
					return err
				}
				env.Setenv(name, addr)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"put":    put,
			"want":   want,
			"notify": notify,
		},
	})
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// store waits until the store at $CLIENT answers.
func store(ts *testscript.TestScript) *keys.Client {
	c, err := keys.New(keys.Config{Endpoints: []string{ts.Getenv("CLIENT")}, Timeout: time.Second})
	ts.Check(err)
	ts.Defer(c.Close)
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := c.Get(context.Background(), "/", keys.GetOptions{Quorum: true})
		if err == nil {
			return c
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no store at %s: %v", ts.Getenv("CLIENT"), err)
		}
		time.Sleep(20 * time.Millisecond) // between tries
	}
}

// put is "put KEY VALUE".
func put(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: put KEY VALUE")
	}
	_, err := store(ts).Set(context.Background(), args[0], args[1], keys.SetOptions{})
	ts.Check(err)
}

// want is "want KEY VALUE".
func want(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: want KEY VALUE")
	}
	r, err := store(ts).Get(context.Background(), args[0], keys.GetOptions{})
	ts.Check(err)
	if *r.Node.Value != args[1] {
		ts.Fatalf("%s is %q, want %q", args[0], *r.Node.Value, args[1])
	}
}

// heardKey is where a script keeps what systemd would have heard.
type heardKey struct{}

// notify is "notify listen" and later "notify TEXT...": what systemd would hear.
func notify(ts *testscript.TestScript, neg bool, args []string) {
	heard := ts.Value(heardKey{}).(chan string)
	path := filepath.Join(os.TempDir(), "notify-"+strings.ReplaceAll(ts.Getenv("CLIENT"), ":", "-"))
	if args[0] == "listen" {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		ts.Check(err)
		ts.Defer(func() { conn.Close(); os.Remove(path) })
		ts.Setenv("NOTIFY_SOCKET", path)
		go func() {
			buf := make([]byte, 4096)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				heard <- string(buf[:n])
			}
		}()
		return
	}
	for _, text := range args {
		select {
		case got := <-heard:
			if !strings.Contains(got, text) {
				ts.Fatalf("systemd heard %q, want %q", got, text)
			}
		case <-time.After(20 * time.Second):
			ts.Fatalf("systemd never heard %q", text)
		}
	}
}
