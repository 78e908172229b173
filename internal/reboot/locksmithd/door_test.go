package locksmithd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/kv/kvtest"
	"flotilla/internal/reboot/fleetlock"
	"flotilla/internal/reboot/sema"
)

// openDoor runs the door's listener until the test ends, and returns where it listens.
func openDoor(t *testing.T, cfg Config) string {
	t.Helper()
	_, client := startStore(t)
	log := &logBuffer{}
	parts, err := cfg.door(client, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- parts[0].Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	return regexp.MustCompile(`at=(\S+)`).FindStringSubmatch(log.String())[1]
}

// Clients have to show a certificate, unless it has been said that whoever comes is
// served.
func TestDoorCertificates(t *testing.T) {
	a, err := kvtest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.Issue("m1")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name               string
		authority, showing bool
		want               string // the status, or part of the error
	}{
		{"a client with a certificate", true, true, "200 OK"},
		{"a client without", true, false, "certificate required"},
		{"whoever comes", false, false, "200 OK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Defaults()
			cfg.FleetLockListen, cfg.FleetLockCertFile, cfg.FleetLockKeyFile = "127.0.0.1:0", cert, key
			if c.authority {
				cfg.FleetLockCAFile = a.CA()
			}
			conf := &tls.Config{RootCAs: a.Pool}
			if c.showing {
				conf.Certificates = []tls.Certificate{pair}
			}
			tr := &http.Transport{TLSClientConfig: conf}
			defer tr.CloseIdleConnections()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+openDoor(t, cfg)+"/v1/pre-reboot",
				strings.NewReader(`{"client_params":{"id":"a","group":"default"}}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("fleet-lock-protocol", "true")
			resp, err := tr.RoundTrip(r)
			got := fmt.Sprint(err)
			if err == nil {
				resp.Body.Close()
				got = resp.Status
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// A certificate that is renewed is shown to whoever comes next: the daemon is not started
// again. Files that are half written change nothing.
func TestDoorShowsRenewedCertificate(t *testing.T) {
	a, err := kvtest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	issue := func() (cert, key string) {
		t.Helper()
		if cert, key, err = a.Issue("m1"); err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	cfg := Defaults()
	cfg.FleetLockListen, cfg.FleetLockCAFile = "127.0.0.1:0", a.CA()
	cfg.FleetLockCertFile, cfg.FleetLockKeyFile = issue()
	addr := openDoor(t, cfg)
	shown := func() int64 {
		t.Helper()
		pair, err := tls.LoadX509KeyPair(cfg.FleetLockCertFile, cfg.FleetLockKeyFile)
		conf := &tls.Config{RootCAs: a.Pool}
		if err == nil {
			conf.Certificates = []tls.Certificate{pair}
		}
		conn, err := tls.Dial("tcp", addr, conf)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	first := shown()
	issue()
	renewed := shown()
	if renewed == first {
		t.Error("the certificate of before is shown")
	}
	if err := os.Truncate(cfg.FleetLockCertFile, 100); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got != renewed {
		t.Errorf("half a certificate: number %d is shown, not %d", got, renewed)
	}
}

// A client that sends its header, or reads its answer, a byte now and then is cut off.
func TestDoorIsHeldUpByNobody(t *testing.T) {
	s := newServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if s.ReadHeaderTimeout == 0 || s.ReadTimeout == 0 || s.WriteTimeout <= s.ReadTimeout || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 {
		t.Errorf("it waits for ever: %+v", s)
	}
	s.ReadHeaderTimeout = 50 * time.Millisecond
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(ln)
	defer s.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /v1/pre-reboot HTTP/1.1\r\nHost: x\r\nFleet")
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it is not cut off: %v", err)
	}
}

// A daemon that does nothing but serve FleetLock looks after the holders of all groups:
// nobody else may.
func TestDoorLooksAfterAllGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := map[string]*memStore{"": newMemStore(), "db": newMemStore(), "ours": newMemStore()}
		for group, s := range stores {
			s.change(t, func(l sema.Semaphore) (sema.Semaphore, error) {
				return l.Acquire("gone-"+group, sema.Detail{Phase: sema.Rebooting, Timeout: int(fleetlock.DefaultTimeout / time.Second)})
			})
		}
		all := locks{
			open:   func(group string) (fleetlock.Locker, error) { return &memLock{memStore: stores[group]}, nil },
			groups: func(context.Context) ([]string, error) { return []string{"db", "ours"}, nil },
		}
		began := time.Now()
		w := warden{now: func() time.Duration { return time.Since(began) }, log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.observeGroups(ctx, all, sema.HolderTimeout, func(group string) bool { return group == "ours" })
		time.Sleep(25 * time.Minute)
		for group, s := range stores {
			if s.now().Stopped != nil {
				t.Errorf("group %q: stopped too early: %s", group, s.now().Encode())
			}
		}
		time.Sleep(10 * time.Minute)
		for group, s := range stores {
			stop := s.now().Stopped
			switch {
			case group == "ours":
				if stop != nil {
					t.Error("the group that the daemon itself looks after is looked after twice")
				}
			case stop == nil:
				t.Errorf("group %q: held for ever: %s", group, s.now().Encode())
			case !strings.Contains(stop.Why, "gone-"+group+": no sign of life for 30m") || !strings.Contains(stop.Why, "fleetlock_holder_timeout"):
				t.Errorf("group %q: stopped: %s", group, stop.Why)
			}
		}
	})
}

// The program serves FleetLock, and looks after its clients, also with the strategy off.
func TestDoorWithStrategyOff(t *testing.T) {
	cfg := Defaults()
	cfg.Strategy, cfg.FleetLockListen = Off, "127.0.0.1:0"
	_, client := startStore(t)
	parts, err := cfg.door(client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range parts {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, ", "); got != "fleetlock, fleetlock observer" {
		t.Errorf("parts: %s", got)
	}
	if cfg.observes() {
		t.Error("with the strategy off its own group is nobody else's")
	}
}
