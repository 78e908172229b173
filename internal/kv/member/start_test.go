package member

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"

	"flotilla/internal/fault"
	"flotilla/internal/kv/holder"
	"flotilla/internal/logx"
)

// refused runs a member that must not start and returns the error with its hints.
func refused(t *testing.T, cfg Config) string {
	t.Helper()
	m := New(cfg, Deps{Log: logx.Discard()})
	err := m.Run(t.Context(), func() { t.Fatal("ready") })
	if err == nil {
		t.Fatal("no error")
	}
	return err.Error() + "\n" + strings.Join(fault.Hints(err), "\n")
}

func wantParts(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("error does not contain %q:\n%s", p, got)
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := "http://" + l.Addr().String()
	self := holder.Process(os.Getpid())

	for _, who := range []string{"client", "peer"} {
		t.Run(who, func(t *testing.T) {
			cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
			if who == "client" {
				cfg.Engine.ListenClientUrls = types.MustNewURLs([]string{"http://127.0.0.1:0", busy})
			} else {
				cfg.Engine.ListenPeerUrls = types.MustNewURLs([]string{busy})
			}
			wantParts(t, refused(t, cfg), busy, who, "in use by "+self, "--listen-"+who+"-urls")
			if _, err := os.Stat(cfg.Engine.Dir); !os.IsNotExist(err) {
				t.Errorf("the data directory was made: %v", err)
			}
		})
	}
}

func TestDataDirRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	m := start(t, alone(t, "n1", dir))

	wantParts(t, refused(t, alone(t, "n1", dir)), dir, "in use by "+holder.Process(os.Getpid()))
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	wantParts(t, refused(t, alone(t, "n2", dir)), dir, `belongs to member "n1"`, `not to "n2"`, "--name n1")
	if after := snapshot(t, dir); after != before {
		t.Errorf("a refused start changed the data directory:\nbefore %s\nafter %s", before, after)
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantParts(t, refused(t, alone(t, "n1", file)), file, "not a directory", "--data-dir")
	wantParts(t, refused(t, alone(t, "n1", filepath.Join(file, "below"))), file, "--data-dir")

	torn := filepath.Join(t.TempDir(), "torn")
	wal := filepath.Join(torn, "member", "wal")
	if err := os.MkdirAll(wal, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(wal, "0000000000000000-0000000000000000.wal"), []byte("not a log"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantParts(t, refused(t, alone(t, "n1", torn)), torn, "remove this member")
}

// snapshot is the names, sizes and times of the files below dir.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, st os.FileInfo, err error) error {
		if err == nil && !st.IsDir() {
			b.WriteString(path + " " + st.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A cluster that cannot be founded leaves no half-made data directory.
func TestFailedBootstrapLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := alone(t, "n1", dir)
	cfg.Engine.ListenPeerUrls = types.MustNewURLs([]string{freeURL(t)})
	cfg.Engine.InitialCluster = "other=http://127.0.0.1:9"
	wantParts(t, refused(t, cfg), dir, "--initial-cluster", "n1=")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the data directory is still there: %v", err)
	}
}

func freeURL(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestExposureReportsAll(t *testing.T) {
	cfg := Defaults()
	cfg.Engine.ListenClientUrls = mustURLs("http://10.0.0.1:1,https://10.0.0.1:2")
	cfg.Engine.ListenPeerUrls = mustURLs("http://10.0.0.1:3")
	got := refused(t, cfg)
	wantParts(t, got, "http://10.0.0.1:1", "https://10.0.0.1:2", "http://10.0.0.1:3", "--allow-plain-http", "--allow-anonymous-https")
}

func TestPortZeroIsForOneAlone(t *testing.T) {
	cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	cfg.Engine.InitialCluster = "n1=http://127.0.0.1:1,n2=http://127.0.0.1:2"
	wantParts(t, refused(t, cfg), "port 0", "--listen-peer-urls")
}

func TestHTTPSWantsACertificate(t *testing.T) {
	cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	cfg.Engine.ListenClientUrls = mustURLs("https://127.0.0.1:0")
	wantParts(t, refused(t, cfg), "https://127.0.0.1:0", "--cert-file", "--auto-tls")
}

func TestHostWhitelist(t *testing.T) {
	t.Parallel()
	cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	cfg.Engine.HostWhitelist = map[string]struct{}{"127.0.0.1": {}}
	m := start(t, cfg)
	for host, want := range map[string]int{"": http.StatusOK, "evil.example": http.StatusMisdirectedRequest} {
		req, _ := http.NewRequest(http.MethodGet, m.ClientURLs()[0]+"/readyz", nil)
		if host != "" {
			req.Host = host
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("Host %q: %d, want %d", host, resp.StatusCode, want)
		}
	}
}

// What to try is said where the engine names the cause alone.
func TestHintsOfTheStart(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*embed.Config)
		want   []string
	}{
		{"no such token", func(e *embed.Config) { e.AuthToken = "paseto" }, []string{"invalid auth options", "--auth-token is simple, or jwt,pub-key=FILE"}},
		{"nobody to join", func(e *embed.Config) {
			e.ClusterState = embed.ClusterStateFlagExisting
			e.ListenPeerUrls = mustURLs(freeURL(t))
		},
			[]string{"could not retrieve cluster information", "lists members that run"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
			test.change(cfg.Engine)
			wantParts(t, refused(t, cfg), test.want...)
		})
	}
}
