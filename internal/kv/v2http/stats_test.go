package v2http

import (
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// counted is requests of every kind, and what they add to the counters.
const counted = `
PUT /v2/keys/s/a | value=1
PUT /v2/keys/s/a | value=2
PUT /v2/keys/s/a?prevExist=true | value=3
PUT /v2/keys/s/a?prevExist=false | value=4
PUT /v2/keys/s/b?prevExist=false | value=1
PUT /v2/keys/s/none?prevExist=true | value=1
PUT /v2/keys/s/a?prevValue=3 | value=4
PUT /v2/keys/s/a?prevValue=3 | value=5
PUT /v2/keys/s/a?prevIndex=1 | value=5
PUT /v2/keys/s?dir=true
POST /v2/keys/s/queue | value=1
POST /v2/keys/s/a | value=1
GET /v2/keys/s/a
GET /v2/keys/s?recursive=true
GET /v2/keys/s/none
GET /v2/keys/s/a?waitIndex=x
DELETE /v2/keys/s/b?prevValue=0
DELETE /v2/keys/s/b?prevValue=1
DELETE /v2/keys/s/b
DELETE /v2/keys/s
DELETE /v2/keys/s?recursive=true
PUT /v2/keys/s/short?ttl=1 | value=x
GET /v2/keys/s/short?wait=true&waitIndex=1000000
`

var wantCounts = storeCounts{
	GetsSuccess: 2, GetsFail: 1, SetsSuccess: 3, SetsFail: 1,
	DeleteSuccess: 1, DeleteFail: 2, UpdateSuccess: 1, UpdateFail: 1, CreateSuccess: 2, CreateFail: 2,
	CompareAndSwapSuccess: 1, CompareAndSwapFail: 2, CompareAndDeleteSuccess: 1, CompareAndDeleteFail: 1,
	Watchers: 1,
}

func countsOf(t *testing.T, p player) storeCounts {
	t.Helper()
	resp := p.send(http.MethodGet, "/v2/stats/store", nil, "")
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" || strings.HasSuffix(string(raw), "\n") {
		t.Errorf("answer: %d %s %q", resp.StatusCode, resp.Header.Get("Content-Type"), raw)
	}
	var c storeCounts
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// count sends the requests to a store that nobody else uses and returns what they
// were counted as, before the short-lived key has gone and after.
func count(t *testing.T, base string) (before, after storeCounts) {
	p := player{t: t, base: base}
	start := countsOf(t, p)
	for line := range strings.Lines(strings.TrimSpace(counted)) {
		request, body, _ := strings.Cut(strings.TrimSpace(line), " | ")
		method, url, _ := strings.Cut(request, " ")
		resp := p.send(method, url, nil, body)
		if !strings.Contains(url, "wait=true") {
			resp.Body.Close()
			continue
		}
		t.Cleanup(func() { resp.Body.Close() })
	}
	before = countsOf(t, p)
	before = before.since(start)
	gone := p.send(http.MethodGet, "/v2/keys/s/short?wait=true", nil, "") // ends when the key does
	defer gone.Body.Close()
	if _, err := io.ReadAll(gone.Body); err != nil {
		t.Fatal(err)
	}
	return before, countsOf(t, p).since(start)
}

// since is what was counted after old.
func (c storeCounts) since(old storeCounts) storeCounts {
	now, before := reflect.ValueOf(&c).Elem(), reflect.ValueOf(old)
	for i := range now.NumField() {
		now.Field(i).SetUint(now.Field(i).Uint() - before.Field(i).Uint())
	}
	return c
}

func TestStoreStats(t *testing.T) {
	before, after := count(t, serve(t))
	if diff := cmp.Diff(wantCounts, before); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if after.ExpireCount != 1 {
		t.Errorf("expired: %d", after.ExpireCount)
	}
}

// etcd 3.4 counts the same, but for three slips: each request costs it a failed get
// more, a create below a file is a failed set too, and a comparison that fails
// before a delete counts as a success.
func TestStoreStatsOfEtcd34(t *testing.T) {
	before, after := count(t, startEtcd34(t, etcd34(t)))
	want := wantCounts
	want.GetsFail = before.GetsFail
	want.SetsFail++
	want.CompareAndDeleteFail--
	want.CompareAndDeleteSuccess++
	if diff := cmp.Diff(want, before); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if after.ExpireCount != 1 {
		t.Errorf("expired: %d", after.ExpireCount)
	}
}

func TestPeerStats(t *testing.T) {
	base := serve(t)
	for path, want := range map[string]string{
		"/v2/stats/self":   `{"name":"default","id":"beef","state":"StateLeader","startTime":"0001-01-01T00:00:00Z","leaderInfo":{"leader":"","uptime":"","startTime":"0001-01-01T00:00:00Z"},"recvAppendRequestCnt":0,"sendAppendRequestCnt":0}`,
		"/v2/stats/leader": `{"leader":"beef","followers":{}}`,
	} {
		p := player{t: t, base: base}
		resp := p.send(http.MethodGet, path, nil, "")
		defer resp.Body.Close()
		got, _ := io.ReadAll(resp.Body)
		if string(got) != want {
			t.Errorf("%s:\ngot  %s\nwant %s", path, got, want)
		}
	}
}
