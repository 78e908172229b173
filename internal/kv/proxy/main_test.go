package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"flotilla/client/keys"
	"flotilla/internal/applet"
	"flotilla/internal/kv/etcdcmd"
	"flotilla/internal/kv/front"
	"flotilla/internal/kv/proxy"
	"flotilla/internal/logx"
)

// beEtcd makes this binary the program "etcd": members that can be killed.
const beEtcd = "PROXY_TEST_ETCD"

func TestMain(m *testing.M) {
	if os.Getenv(beEtcd) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	os.Exit(etcdcmd.Applet().Run(ctx, applet.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv,
	}))
}

// node is one member, in a process of its own.
type node struct {
	name, client, peer, dir string
	args                    []string
	cmd                     *exec.Cmd
}

// trio is a cluster of several members.
type trio struct {
	t       *testing.T
	nodes   []*node
	initial string
}

// startTrio starts n members that serve when it returns. They are given args.
func startTrio(t *testing.T, n int, args ...string) *trio {
	t.Helper()
	c := &trio{t: t}
	var entries []string
	for i := range n {
		m := &node{name: fmt.Sprintf("m%d", i+1), client: freeURL(t), peer: freeURL(t), dir: filepath.Join(t.TempDir(), "data"), args: args}
		c.nodes = append(c.nodes, m)
		entries = append(entries, m.name+"="+m.peer)
	}
	c.initial = strings.Join(entries, ",")
	for _, m := range c.nodes {
		m.start(t, "--initial-cluster", c.initial)
		t.Cleanup(m.kill)
	}
	for _, m := range c.nodes {
		until(t, "member "+m.name+" serves", func() bool { return healthy(m.client) })
	}
	return c
}

// start runs the member's process.
func (m *node) start(t *testing.T, args ...string) {
	t.Helper()
	m.cmd = exec.Command(os.Args[0], append([]string{
		"--name", m.name, "--data-dir", m.dir, "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", m.client, "--listen-peer-urls", m.peer,
	}, append(m.args, args...)...)...)
	m.cmd.Env = append(os.Environ(), beEtcd+"=1")
	m.cmd.Stderr = os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill ends the member as a power cut does.
func (m *node) kill() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

func (c *trio) peers() []string {
	var out []string
	for _, m := range c.nodes {
		out = append(out, m.peer)
	}
	return out
}

// running is a proxy that runs.
type running struct {
	url  string
	stop func()
}

// startProxy runs a proxy in this process.
func startProxy(t *testing.T, change func(*proxy.Config), peers ...string) *running {
	t.Helper()
	u := types.MustNewURLs([]string{"http://127.0.0.1:0"})
	cfg := proxy.Config{
		Dir:   filepath.Join(t.TempDir(), "data"),
		Find:  func(context.Context) ([]string, error) { return peers, nil },
		Front: front.Config{Listen: u, Log: logx.Discard()},
	}
	if change != nil {
		change(&cfg)
	}
	p := proxy.New(cfg, logx.Discard())
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- p.Run(ctx, func() { close(ready) }) }()
	stopped := false
	r := &running{stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("proxy: %v", err)
		}
	}}
	t.Cleanup(r.stop)
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("proxy: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("the proxy is not ready")
	}
	r.url = p.ClientURLs()[0]
	return r
}

// client speaks to one URL alone.
func clientOf(t *testing.T, to string) *keys.Client {
	t.Helper()
	c, err := keys.New(keys.Config{Endpoints: []string{to}, Timeout: 15 * time.Second, TotalTimeout: 15 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func freeURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// until waits until something is the case, 20 s at most.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so after 20 s: %s", what)
		}
	}
}

func healthy(clientURL string) bool {
	status, _, err := get(clientURL + "/health")
	return err == nil && status == http.StatusOK
}

func get(at string) (int, string, error) { return do(http.MethodGet, at, nil) }

func do(method, at string, form url.Values) (int, string, error) {
	req, err := http.NewRequest(method, at, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
