package v2http

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"flotilla/internal/kv/gate"
	"flotilla/internal/kv/kvtest"
	"flotilla/internal/kv/mvcc"
)

// The scenarios in testdata/ours are where we do better than etcd 3.4, on
// purpose. Those in testdata are what etcd 3.4 answers, recorded with
//
//	go test ./internal/kv/v2http -run TestEtcd34 -record
//
// TestScenarios holds our handler to them; TestEtcd34 holds them to the etcd
// that the distribution packages.
var (
	record     = flag.Bool("record", false, "write etcd 3.4's answers into testdata")
	recordOurs = flag.Bool("record-ours", false, "write our answers into testdata/ours")
)

// firstIndex is the index that a store stands at when a scenario begins.
const firstIndex = 10

func TestScenarios(t *testing.T) {
	for _, file := range append(scenarios(t, "testdata/*.scenario"), scenarios(t, "testdata/ours/*.scenario")...) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			base := serveMember(t)
			if *recordOurs && filepath.Base(filepath.Dir(file)) == "ours" {
				write(t, file, base)
				return
			}
			compareScenario(t, file, base)
		})
	}
}

func TestEtcd34(t *testing.T) {
	binary := etcd34(t)
	for _, file := range scenarios(t, "testdata/*.scenario") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			base := startEtcd34(t, binary)
			if *record {
				write(t, file, base)
				return
			}
			compareScenario(t, file, base)
		})
	}
}

// etcd34 is the etcd that the distribution packages (scripts/need installs it).
func etcd34(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatalf("no etcd to compare with: %v (scripts/need etcd installs it)", err)
	}
	if out, _ := exec.Command(binary, "--version").Output(); !bytes.Contains(out, []byte("etcd Version: 3.4.")) {
		t.Fatalf("%s is no etcd 3.4, the last that speaks v2", binary)
	}
	return binary
}

func scenarios(t *testing.T, pattern string) []string {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("scenarios: %v, %v", files, err)
	}
	return files
}

func write(t *testing.T, file, base string) {
	if err := os.WriteFile(file, []byte(play(t, file, base)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func compareScenario(t *testing.T, file, base string) {
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), play(t, file, base)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

var discard = slog.New(slog.DiscardHandler)

// runStore runs a gateway on a store of its own until the test ends.
func runStore(t testing.TB) *mvcc.Store {
	t.Helper()
	return config(t).Store
}

// config is for a handler on a store of its own, which runs until the test ends.
func config(t testing.TB) Config {
	t.Helper()
	engine := kvtest.Start(t)
	store := mvcc.New(mvcc.Config{Client: kvtest.InProcess(t, engine), Engine: engine.Server, Log: discard})
	kvtest.Run(t, store)
	keeper := gate.New(gate.Config{Client: kvtest.InProcess(t, engine), Log: discard, Cost: bcrypt.MinCost})
	kvtest.Run(t, keeper)
	return Config{Store: store, Info: info{}, Log: discard, Origins: []string{"*"}, Gate: keeper}
}

// serve runs our handler on a store of its own.
func serve(t testing.TB) string {
	t.Helper()
	server := httptest.NewUnstartedServer(New(config(t)))
	t.Cleanup(server.Close)
	server.Start()
	return server.URL
}

// serveMember is serve with a lane in front, as a member has it.
func serveMember(t testing.TB) string {
	t.Helper()
	cfg := config(t)
	h := New(cfg)
	server := httptest.NewUnstartedServer(h)
	open := cfg.Gate.(*gate.Gate).Open
	server.Listener = NewLane(server.Listener, anyConn, deskFor(h, func(string) bool { return open() }))
	t.Cleanup(server.Close)
	server.Start()
	return server.URL
}

// info is a member on its own.
type info struct{}

func (info) ClusterID() uint64          { return 0xcafe }
func (info) RaftIndex() uint64          { return 42 }
func (info) RaftTerm() uint64           { return 2 }
func (info) Unhealthy() string          { return "" }
func (info) Versions() (string, string) { return "3.7.3", "3.7.0" }
func (info) Leader() (Member, bool)     { return info{}.Members()[0], true }
func (info) SelfStats() SelfStats {
	return SelfStats{Name: "default", ID: "beef", State: "StateLeader"}
}
func (info) LeaderStats() (LeaderStats, bool) {
	return LeaderStats{Leader: "beef", Followers: map[string]FollowerStats{}}, true
}

// The changes of members that the fake knows: port 2380 is taken, id dead was
// removed, id bad makes trouble, and there is no other but its own.
func (info) AddMember(_ context.Context, peerURLs []string) (Member, error) {
	if slices.Contains(peerURLs, "http://127.0.0.1:2380") {
		return Member{}, ErrPeerURLExists
	}
	return Member{ID: "f00d", PeerURLs: peerURLs, ClientURLs: []string{}}, nil
}

func (info) UpdateMember(_ context.Context, id uint64, peerURLs []string) error {
	if slices.Contains(peerURLs, "http://127.0.0.1:2380") {
		return ErrPeerURLExists
	}
	return known(id)
}

func (info) RemoveMember(_ context.Context, id uint64) error { return known(id) }

func known(id uint64) error {
	switch id {
	case 0xbeef:
		return nil
	case 0xdead:
		return ErrMemberRemoved
	case 0xbad:
		return errors.New("unhealthy cluster")
	case 0xbadd:
		return &Refused{errors.New("unhealthy cluster"), "wait"}
	}
	return ErrNoMember
}

func (info) Members() []Member {
	return []Member{{
		ID: "beef", Name: "default",
		PeerURLs: []string{"http://127.0.0.1:2380"}, ClientURLs: []string{"http://127.0.0.1:2379", "http://127.0.0.1:4001"},
	}}
}

// startEtcd34 runs the packaged etcd until the test ends.
func startEtcd34(t *testing.T, binary string) string {
	t.Helper()
	client, peer := "http://"+freeAddr(t), "http://"+freeAddr(t)
	cmd := exec.Command(binary, "--enable-v2=true", "--data-dir", t.TempDir(), "--log-level", "error",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	cmd.Stderr = io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp, err := http.Get(client + "/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return client
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("etcd 3.4 is not healthy after 20 s: %v", err)
		}
	}
}

func freeAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// play sends the requests of a scenario and returns the scenario with the
// answers that came. Lines of a scenario:
//
//	# a comment
//	> METHOD URL [Header: value] [| body]   a request; a body is a form unless a Content-Type is given
//	> METHOD URL as USER:PASSWORD [| body]  the same with credentials
//	> name = GET URL                        starts a watch
//	> name                                  waits for the watch's next event, or its end
//
// All other lines are answers.
func play(t *testing.T, file, base string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := player{t: t, base: base, watches: map[string]*bufio.Reader{}}
	p.align()
	var out strings.Builder
	// The index that users and roles cost is nobody's business.
	same := func(s string) string { return s }
	if strings.HasPrefix(filepath.Base(file), "auth") {
		same = withoutIndex
	}
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, "#") || line == "\n":
			out.WriteString(line)
		case strings.HasPrefix(line, "> "):
			out.WriteString(line)
			out.WriteString(same(p.do(strings.TrimSpace(line[2:]))))
		}
	}
	return out.String()
}

type player struct {
	t       *testing.T
	base    string
	watches map[string]*bufio.Reader
}

// align brings the store to firstIndex, empty.
func (p *player) align() {
	index := 0
	for index < firstIndex-1 {
		index = p.index(http.MethodPut)
	}
	if index = p.index(http.MethodDelete); index != firstIndex {
		p.t.Fatalf("store begins at index %d", index)
	}
}

func (p *player) index(method string) int {
	resp := p.send(method, "/v2/keys/pad", nil, "")
	defer resp.Body.Close()
	n, err := strconv.Atoi(resp.Header.Get("X-Etcd-Index"))
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

func (p *player) do(line string) string {
	if r, ok := p.watches[line]; ok {
		return next(p.t, r)
	}
	name, request, isWatch := strings.Cut(line, " = ")
	if !isWatch {
		request = line
	}
	request, body, _ := strings.Cut(request, " | ")
	method, rest, _ := strings.Cut(request, " ")
	url, headerText, _ := strings.Cut(rest, " ")
	header := http.Header{}
	if k, v, ok := strings.Cut(headerText, ": "); ok {
		header.Set(k, v)
	}
	if login, ok := strings.CutPrefix(headerText, "as "); ok {
		header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(login)))
	}
	resp := p.send(method, url, header, body)
	if isWatch && resp.StatusCode == http.StatusOK {
		p.watches[name] = bufio.NewReader(resp.Body)
		p.t.Cleanup(func() { resp.Body.Close() })
		return head(resp)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("%s: %v", line, err)
	}
	return head(resp) + ended(normal(string(b)))
}

func (p *player) send(method, url string, header http.Header, body string) *http.Response {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.base+url, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	for k := range header {
		req.Header.Set(k, header.Get(k))
	}
	if body != "" && header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // redirects are answers, too
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp
}

// next reads one event. A watch that delivers nothing for 10 s fails the test.
func next(t *testing.T, r *bufio.Reader) string {
	lines := make(chan string, 1)
	go func() {
		line, err := r.ReadString('\n')
		if err != nil {
			line = "end\n"
		}
		lines <- line
	}()
	select {
	case line := <-lines:
		return ended(normal(line))
	case <-time.After(10 * time.Second):
		t.Error("no event after 10 s")
		return "nothing\n"
	}
}

// head is what counts of an answer's head, in one line.
func head(resp *http.Response) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", resp.StatusCode)
	for _, name := range []string{"Content-Type", "Allow", "Location", "X-Etcd-Index", "WWW-Authenticate"} {
		if v := resp.Header.Get(name); v != "" {
			fmt.Fprintf(&b, " %s=%s", name, v)
		}
	}
	for _, name := range []string{"X-Etcd-Cluster-Id", "X-Raft-Index", "X-Raft-Term", "Access-Control-Allow-Origin"} {
		if resp.Header.Get(name) != "" {
			b.WriteString(" " + name)
		}
	}
	return b.String() + "\n"
}

var expiration = regexp.MustCompile(`"expiration":"[^"]*"`)

var index = regexp.MustCompile(`(Index"?[=:]|"index":|/0{10})[0-9]*[1-9][0-9]*`)

// withoutIndex leaves out indexes other than 0.
func withoutIndex(s string) string { return index.ReplaceAllString(s, "${1}N") }

func normal(body string) string { return expiration.ReplaceAllString(body, `"expiration":"T"`) }

// ended makes visible that a body does not end in a newline, and drops empty
// lines at its end.
func ended(body string) string {
	if body == "" || strings.HasSuffix(body, "\n") {
		return strings.TrimRight(body, "\n") + body[max(0, len(body)-1):]
	}
	return body + "(no newline)\n"
}
