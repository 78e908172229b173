package member

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/kv/v2http"
)

// startTrio runs three members of ours that may change their cluster at any time.
func startTrio(t *testing.T) (base string) {
	t.Helper()
	var entries []string
	cfgs := make([]Config, 3)
	for i := range cfgs {
		name, peer := fmt.Sprintf("n%d", i+1), freeURL(t)
		cfgs[i] = alone(t, name, filepath.Join(t.TempDir(), name))
		cfgs[i].Engine.ListenPeerUrls = mustURLs(peer)
		cfgs[i].Engine.StrictReconfigCheck = false
		entries = append(entries, name+"="+peer)
	}
	members, readies := make([]*runningMember, len(cfgs)), make([]chan struct{}, len(cfgs))
	for i := range cfgs {
		cfgs[i].Engine.InitialCluster = strings.Join(entries, ",")
		members[i], readies[i], _ = launch(t, cfgs[i])
	}
	for i, ready := range readies {
		select {
		case <-ready:
		case <-time.After(30 * time.Second):
			t.Fatalf("member %d not ready\n%s", i+1, members[i].log)
		}
	}
	return members[0].ClientURLs()[0]
}

// startTrio34 is startTrio with the etcd that the distribution packages.
func startTrio34(t *testing.T) (base string) {
	t.Helper()
	binary, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatalf("no etcd to compare with: %v (package etcd-server)", err)
	}
	var clients, peers, entries []string
	for i := range 3 {
		clients, peers = append(clients, freeURL(t)), append(peers, freeURL(t))
		entries = append(entries, fmt.Sprintf("n%d=%s", i+1, peers[i]))
	}
	for i := range 3 {
		cmd := exec.Command(binary, "--enable-v2", "--strict-reconfig-check=false", "--log-level", "error",
			"--name", fmt.Sprintf("n%d", i+1), "--data-dir", t.TempDir(), "--initial-cluster", strings.Join(entries, ","),
			"--listen-client-urls", clients[i], "--advertise-client-urls", clients[i],
			"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i])
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
	return clients[0]
}

// whole waits until all three members have told the cluster where they serve
// clients.
func whole(t *testing.T, base string) []v2http.Member {
	t.Helper()
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-retry.C {
		resp, err := http.Get(base + "/v2/members")
		if err != nil {
			continue
		}
		var list struct{ Members []v2http.Member }
		err = json.NewDecoder(resp.Body).Decode(&list)
		resp.Body.Close()
		if err != nil {
			continue
		}
		started := 0
		for _, m := range list.Members {
			if len(m.ClientURLs) > 0 {
				started++
			}
		}
		if started == 3 {
			return list.Members
		}
	}
	t.Fatal("the cluster is not whole after 30 s")
	return nil
}

// ask sends a request with a JSON body and returns the answer in one line.
func ask(t *testing.T, method, url, body string) (line, raw string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, cluster := resp.Header["X-Etcd-Cluster-Id"]
	return fmt.Sprintf("%d %s cluster=%t allow=%s %q", resp.StatusCode, resp.Header.Get("Content-Type"), cluster, resp.Header.Get("Allow"), b), string(b)
}

// reconfigure takes a cluster of three through all that can be done to its members,
// and returns what was answered. ADDED is the member that it adds, FIRST one that
// was there.
func reconfigure(t *testing.T, base string) []string {
	first := whole(t, base)[0]
	added := ""
	var told []string
	for _, c := range []struct{ method, path, body string }{
		{"POST", "", `{"peerURLs":["http://127.0.0.9:7001"]}`},
		{"POST", "", `{"peerURLs":["http://127.0.0.9:7001"]}`},
		{"POST", "", `{"peerURLs":[]}`},
		{"POST", "", `{"peerURLs":["127.0.0.9:7001"]}`},
		{"POST", "", `{"peerURLs":["http://127.0.0.9:7001/x"]}`},
		{"POST", "", `{"peerURLs":`},
		{"POST", "", `{"peerURLs":7}`},
		{"POST", "", ``},
		{"PUT", "/ADDED", `{"peerURLs":["http://127.0.0.9:7002","http://127.0.0.9:7001"]}`},
		{"PUT", "/ADDED", `{"peerURLs":["` + first.PeerURLs[0] + `"]}`},
		{"PUT", "/ADDED", `{"peerURLs":[]}`},
		{"PUT", "/abc", `{"peerURLs":["http://127.0.0.9:7003"]}`},
		{"PUT", "/00abc", `{"peerURLs":["http://127.0.0.9:7003"]}`},
		{"PUT", "/xyz", `{`},
		{"PUT", "/", `{"peerURLs":["http://127.0.0.9:7003"]}`},
		{"PUT", "", `{"peerURLs":["http://127.0.0.9:7003"]}`},
		{"GET", "/ADDED", ``},
		{"GET", "/FIRST/x", ``},
		{"PATCH", "", ``},
		{"HEAD", "", ``},
		{"DELETE", "", ``},
		{"DELETE", "/abc", ``},
		{"DELETE", "/xyz", ``},
		{"DELETE", "/ADDED", ``},
		{"DELETE", "/ADDED", ``},
		{"PUT", "/ADDED", `{"peerURLs":["http://127.0.0.9:7004"]}`},
	} {
		path := strings.NewReplacer("ADDED", added, "FIRST", first.ID).Replace(c.path)
		line, raw := ask(t, c.method, base+"/v2/members"+path, c.body)
		if added == "" {
			var m v2http.Member
			if err := json.Unmarshal([]byte(raw), &m); err != nil || m.ID == "" {
				t.Fatalf("add: %s", line)
			}
			added = m.ID
		}
		line = strings.NewReplacer(added, "ADDED", first.ID, "FIRST", first.PeerURLs[0], "URL").Replace(line)
		// The id is made of addresses and the second, so the same again may be either.
		line = strings.ReplaceAll(line, v2http.ErrMemberExists.Error(), v2http.ErrPeerURLExists.Error())
		told = append(told, fmt.Sprintf("%s %s %s: %s", c.method, c.path, strings.ReplaceAll(c.body, first.PeerURLs[0], "URL"), line))
	}
	return told
}

// The words of the JSON parser differ from one version of Go to the next.
var parserText = regexp.MustCompile(`json: [^"]*`)

func TestMembersLikeEtcd34(t *testing.T) {
	t.Parallel()
	theirs, ours := startTrio34(t), startTrio(t)
	normal := cmp.Transformer("parser", func(s string) string { return parserText.ReplaceAllString(s, "json: ...") })
	if diff := cmp.Diff(reconfigure(t, theirs), reconfigure(t, ours), normal); diff != "" {
		t.Errorf("etcd 3.4 -, ours +\n%s", diff)
	}
	if diff := cmp.Diff(peerStats(t, theirs), peerStats(t, ours)); diff != "" {
		t.Errorf("etcd 3.4 -, ours +\n%s", diff)
	}
}

// What differs between two clusters that do the same.
var (
	figures = regexp.MustCompile(`("startTime":|"uptime":|"name":|:)("[^"{}]*[0-9][^"{}]*"|[0-9][0-9.e+-]*)`)
	ids     = regexp.MustCompile(`"[0-9a-f]{12,16}"`)
	rates   = regexp.MustCompile(`"(recv|send)(Pkg|Bandwidth)Rate":N,?`)
)

// peerStats is what the members of a cluster tell of their traffic: names and
// forms, without the figures.
func peerStats(t *testing.T, base string) []string {
	var told []string
	for _, m := range whole(t, base) {
		for _, path := range []string{"/v2/stats/self", "/v2/stats/leader"} {
			line, raw := ask(t, http.MethodGet, m.ClientURLs[0]+path, "")
			status, _, _ := strings.Cut(line, `"`)
			raw = ids.ReplaceAllString(strings.ReplaceAll(raw, m.ID, "SELF"), `"ID"`)
			raw = figures.ReplaceAllString(raw, "${1}N")
			raw = strings.ReplaceAll(rates.ReplaceAllString(raw, ""), ",}", "}")
			told = append(told, fmt.Sprintf("%s: %s%s", path, status, raw))
		}
	}
	slices.Sort(told)
	return told
}

// An update of the engine that renames its counters must not go unseen.
func TestEngineCounts(t *testing.T) {
	t.Parallel()
	m := start(t, alone(t, "n1", filepath.Join(t.TempDir(), "data")))
	var self v2http.SelfStats
	if _, raw := ask(t, http.MethodGet, m.ClientURLs()[0]+"/v2/stats/self", ""); json.Unmarshal([]byte(raw), &self) != nil {
		t.Fatalf("self: %s", raw)
	}
	if self.Name != "n1" || self.State != "StateLeader" || self.ID == "" || self.LeaderInfo.Leader != self.ID ||
		time.Since(self.StartTime) > time.Minute || time.Since(self.LeaderInfo.StartTime) > time.Minute {
		t.Errorf("self: %+v", self)
	}
	if _, raw := ask(t, http.MethodGet, m.ClientURLs()[0]+"/v2/stats/leader", ""); raw != `{"leader":"`+self.ID+`","followers":{}}` {
		t.Errorf("leader: %s", raw)
	}
}
