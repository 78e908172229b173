package etcdcmd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flotilla/internal/kv/tokentls"
)

// Three members and a proxy that have nothing in common but a token are a cluster, and
// whoever lacks the token is refused on both ports. (Addresses of loopback need no TLS:
// here they stand for others, so the plan is made by hand.)
func TestTokenCluster(t *testing.T) {
	token, ok := tokentls.TokenOf(secretToken)
	if !ok {
		t.Fatal("not a token")
	}
	const members = 3
	var clients, peers, cluster []string
	for i := range members + 1 {
		c, err1 := freeAddr()
		p, err2 := freeAddr()
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		clients, peers = append(clients, "https://"+c), append(peers, "https://"+p)
		if i < members {
			cluster = append(cluster, fmt.Sprintf("m%d=%s", i, peers[i]))
		}
	}
	run := func(i int, proxy string, ready chan<- int) {
		args := []string{"--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(t.TempDir(), "data"), "--proxy", proxy,
			"--listen-client-urls", clients[i], "--advertise-client-urls", clients[i], "--listen-peer-urls", peers[i],
			"--initial-advertise-peer-urls", peers[i], "--initial-cluster", strings.Join(cluster, ",")}
		o, err := parsed(t, nil, args...)
		if err != nil {
			t.Fatal(err)
		}
		o.token = token
		start(t, o, func() { ready <- i })
	}
	ready := make(chan int, members+1)
	for i := range members {
		run(i, proxyOff, ready)
	}
	for n := range members + 1 {
		if n == members {
			run(members, proxyOn, ready)
		}
		select {
		case <-ready:
		case <-time.After(30 * time.Second):
			t.Fatal("the cluster is not ready after 30 s")
		}
	}
	machine := client(t, token)
	putKey(t, machine, clients[0])
	putKey(t, machine, clients[members])
	for _, to := range []string{clients[0], clients[members], peers[0]} {
		for name, c := range map[string]*tls.Config{
			// Not to look at the server's certificate: it is to be the server that refuses.
			"without a certificate": {InsecureSkipVerify: true},
			"with another token's":  machineTLS(t, strings.Repeat("0", 32)),
		} {
			if err := refusal(to, c, 10*time.Second); err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
				t.Errorf("%s does not refuse somebody %s: %v", to, name, err)
			}
		}
		if err := refusal(to, machineTLS(t, token), 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s refuses a machine that has the token: %v", to, err)
		}
	}
}

// refusal is what a server says to a client that connects and asks for nothing. One that
// lets it in says nothing, and the time runs out.
func refusal(url string, c *tls.Config, within time.Duration) error {
	conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), c)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// start runs what the options say until the test ends.
func start(t *testing.T, o *options, ready func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.run(ctx, slog.New(slog.DiscardHandler), ready) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", o.cfg.Engine.Name, err)
		}
	})
}

// client is an HTTP client on a machine with a token.
func client(t *testing.T, token string) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: machineTLS(t, token)}}
}

// machineTLS is how a machine with a token connects. It does not look at the server's
// certificate: that the server is ours is known by the port, and what is tested is whom
// it lets in.
func machineTLS(t *testing.T, token string) *tls.Config {
	t.Helper()
	f, err := tokentls.Write(t.TempDir(), token, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}
}

func putKey(t *testing.T, c *http.Client, at string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, at+"/v2/keys/joined?value=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); resp.StatusCode/100 != 2 || err != nil {
		t.Errorf("%s: %s: %s %v", at, resp.Status, body, err)
	}
}
