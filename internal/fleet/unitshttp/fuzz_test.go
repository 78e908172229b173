package unitshttp

import (
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/peer"
	"flotilla/internal/unitfile"
)

// What a request may say of entries is refused or within bounds.
func FuzzChooseEntries(f *testing.F) {
	f.Add("lines=5&since=1h&follow=true&priority=3&grep=a.*b")
	f.Add("lines=-2&since=2026-01-02T03:04:05Z")
	f.Add("since=-5s&grep=(")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		q, err := chooseEntries(values, now)
		if err != nil {
			return
		}
		if q.Lines < -1 || q.Lines > maxLines || q.Priority < 0 || q.Priority > peer.LeastUrgent {
			t.Errorf("%q is read as %+v", query, q)
		}
	})
}

// A unit that a request may store is one that the cluster can use when it reads it
// back, with the same hash.
func FuzzReadIntent(f *testing.F) {
	f.Add([]byte(`{"name":"a.service","desiredState":"launched","options":[{"section":"Service","name":"ExecStart","value":"/bin/true"}]}`))
	f.Add([]byte(`{"name":"a@1.service","options":[{"section":"X-Fleet","name":"Conflicts","value":"a@*"}],"dropIns":[{"name":"x.conf","options":[{"section":"Service","name":"A","value":"b\\\n#### y.conf"}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var u fleet.Unit
		if json.Unmarshal(body, &u) != nil {
			return
		}
		in, wrong := readIntent(u)
		if len(wrong) > 0 {
			return
		}
		stored := model.NewUnit(in.name, in.text.String(), in.want, 1)
		if stored.Hash != in.hash || len(stored.Req.Replaces) != len(in.req.Replaces) {
			t.Errorf("%s: stored as %q with hash %s, %s", body, stored.Text, stored.Hash, in.hash)
		}
		if _, err := unitfile.ParseBundle(in.text.String()); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	})
}

// A path matches a pattern if the pattern with the name in it is the path.
func FuzzMatch(f *testing.F) {
	f.Add("/units/*/journal", "/units/a.service/journal")
	f.Add("/units/*", "/units/")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		name, ok := match(pattern, path)
		if ok && name != "" && path != replaceFirst(pattern, name) {
			t.Errorf("%q is %q in %q", name, path, pattern)
		}
	})
}

func replaceFirst(pattern, name string) string {
	for i := range pattern {
		if pattern[i] == '*' {
			return pattern[:i] + name + pattern[i+1:]
		}
	}
	return pattern
}
