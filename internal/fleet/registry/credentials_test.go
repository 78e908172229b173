package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flotilla/internal/logx"
)

// answering is a store that knows no request; it counts them.
type answering struct {
	*httptest.Server
	asked atomic.Int64
}

func newAnswering(t *testing.T, secure bool) *answering {
	t.Helper()
	m := &answering{}
	none := grpc.NewServer()
	m.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.asked.Add(1)
		none.ServeHTTP(w, r)
	}))
	m.Config.Protocols = new(http.Protocols)
	m.Config.Protocols.SetHTTP2(true)
	m.Config.Protocols.SetUnencryptedHTTP2(true)
	m.EnableHTTP2 = true
	if secure {
		m.StartTLS()
	} else {
		m.Start()
	}
	t.Cleanup(m.Close)
	return m
}

func trusting(m *answering) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(m.Certificate())
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func ask(t *testing.T, tlsConfig *tls.Config, endpoints ...string) {
	t.Helper()
	r, err := Open(Config{Endpoints: endpoints, TLS: tlsConfig}, logx.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 4 {
		_, err = r.Read(context.Background(), Everything)
		if status.Code(err) != codes.Unimplemented && !strings.Contains(err.Error(), "Unimplemented") {
			t.Fatalf("no member has answered: %v", err)
		}
	}
}

// This machine's own member over the loopback, the others over https: when the own
// one is away the others are asked.
func TestPlainAndSecureEndpointsTogether(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + ln.Addr().String()
	ln.Close()
	secure := newAnswering(t, true)
	ask(t, trusting(secure), closed, secure.URL)
	plain := newAnswering(t, false)
	ask(t, trusting(secure), "https://"+strings.TrimPrefix(closed, "http://"), plain.URL)
}

// The endpoint that is named first is the one to ask while it answers: the member
// on this machine is nearer than the others.
func TestFirstEndpointThatAnswersIsAsked(t *testing.T) {
	first, second := newAnswering(t, false), newAnswering(t, false)
	ask(t, nil, first.URL, second.URL)
	if first.asked.Load() == 0 || second.asked.Load() != 0 {
		t.Errorf("asked the first %d times and the second %d times", first.asked.Load(), second.asked.Load())
	}
}
