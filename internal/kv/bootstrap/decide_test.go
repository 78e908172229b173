package bootstrap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// entries reads "id=value@created id=value@created ...".
func entries(text string) []Entry {
	var out []Entry
	for _, f := range strings.Fields(text) {
		var e Entry
		id, rest, _ := strings.Cut(f, ":")
		value, at, _ := strings.Cut(rest, "@")
		fmt.Sscan(at, &e.Created)
		e.ID, e.Value = id, value
		out = append(out, e)
	}
	return out
}

func TestDecide(t *testing.T) {
	member, ours := Self{ID: "b"}, Self{ID: "b", Registered: true}
	for _, test := range []struct {
		name    string
		size    string
		entries string
		self    Self
		want    string // step, cluster
		err     error
	}{
		{name: "first", size: "3", self: member, want: "register: 0 of 3 members have registered, we have not"},
		{name: "second", size: "3", entries: "a:d1=http://h:1@7", self: member, want: "register: 1 of 3 members have registered, we have not"},
		{name: "waits for one", size: "2", entries: "b:d1=http://h:1@7", self: ours, want: "wait: waiting for 1 more member"},
		{name: "waits for two", size: "3", entries: "b:d1=http://h:1@7", self: ours, want: "wait: waiting for 2 more members"},
		{name: "complete, by age", size: "2", entries: "b:d2=http://h:2@9 a:d1=http://h:1@7", self: ours, want: "form: d1=http://h:1,d2=http://h:2"},
		{name: "a member with two addresses", size: "1", entries: "b:d1=http://h:1,d1=http://h:2@7", self: ours, want: "form: d1=http://h:1,d1=http://h:2"},
		{name: "full, and not one of them", size: "1", entries: "a:d1=http://h:1@7", self: member, err: ErrFull},
		{name: "a moment too late", size: "1", entries: "b:d2=http://h:2@9 a:d1=http://h:1@7", self: ours, err: ErrFull},
		{name: "one too many is not in the cluster", size: "1", entries: "b:d1=http://h:1@7 c:d2=http://h:2@9", self: ours, want: "form: d1=http://h:1"},
		{name: "was there before, data lost", size: "3", entries: "b:d1=http://h:1@7", self: member, err: ErrDuplicateID},
		{name: "the note is there, the entry is not", size: "3", self: ours, want: "register: 0 of 3 members have registered, we have not"},
		{name: "same name twice", size: "2", entries: "a:d1=http://h:1@7 b:d1=http://h:2@8", self: ours, err: ErrDuplicateName},
		{name: "size no number", size: "x", self: member, err: ErrBadSize},
		{name: "size empty", size: "", self: member, err: ErrBadSize},
		{name: "size zero", size: "0", self: member, err: ErrBadSize},
		{name: "a proxy waits too", size: "2", entries: "a:d1=http://h:1@7", want: "wait: waiting for 1 more member"},
		{name: "a proxy takes the full cluster", size: "1", entries: "b:d2=http://h:2@9 a:d1=http://h:1@7", want: "form: d1=http://h:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := Decide(View{Size: test.size, Entries: entries(test.entries)}, test.self)
			if !errors.Is(err, test.err) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			got := fmt.Sprintf("%v: %s", d.Step, d.Why)
			if d.Step == Form {
				got = "form: " + d.Cluster
			}
			if err == nil && got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestNoCluster(t *testing.T) {
	_, err := Decide(View{Size: "1", Entries: []Entry{{ID: "a", Value: "nonsense"}}}, Self{})
	if err == nil || !strings.Contains(err.Error(), `"nonsense" are no cluster`) {
		t.Error(err)
	}
}

// All members of a token come to the same cluster, in whatever order they come and
// look, and those who are too many learn that.
func TestMembersAgree(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 0))
		size, n := 1+rng.IntN(5), 1+rng.IntN(8)
		clusters, full := race(t, rng, size, n)
		switch {
		case n >= size && (len(clusters) != 1 || full != n-size):
			t.Fatalf("seed %d: %d machines, size %d: clusters %v, %d too many", seed, n, size, clusters, full)
		case n < size && len(clusters)+full > 0:
			t.Fatalf("seed %d: %d machines are a cluster of %d: %v, %d too many", seed, n, size, clusters, full)
		}
	}
}

// race lets n machines use a token in random order until none has anything to do.
func race(t *testing.T, rng *rand.Rand, size, n int) (clusters map[string]int, full int) {
	view := View{Size: fmt.Sprint(size)}
	clusters = map[string]int{}
	running := make([]*Self, n)
	for i := range running {
		running[i] = &Self{ID: fmt.Sprint(i)}
	}
	for len(running) > 0 {
		i := rng.IntN(len(running))
		self := running[i]
		d, err := Decide(view, *self)
		switch {
		case errors.Is(err, ErrFull):
			full++
		case err != nil:
			t.Fatalf("machine %s: %v", self.ID, err)
		case d.Step == Register:
			value := fmt.Sprintf("d%s=http://h:%d", self.ID, 1+len(view.Entries))
			view.Entries = append(view.Entries, Entry{ID: self.ID, Value: value, Created: uint64(len(view.Entries) + 1)})
			self.Registered = true
			continue
		case d.Step == Form:
			clusters[d.Cluster]++
		case len(view.Entries) < n:
			continue // others may come
		}
		running = slices.Delete(running, i, i+1)
	}
	return clusters, full
}

func FuzzEntry(f *testing.F) {
	f.Add("d1=http://10.0.0.1:2380")
	f.Add("d1=http://10.0.0.1:2380,d1=http://[::1]:7001")
	f.Add("d1=,=http://,")
	f.Fuzz(func(t *testing.T, value string) {
		name, urls, err := parseEntry(value)
		if err != nil {
			return
		}
		again, urls2, err := parseEntry(entryOf(name, urls))
		if err != nil || again != name || strings.Join(urls, " ") != strings.Join(urls2, " ") {
			t.Errorf("%q reads as %q %v, which reads as %q %v (%v)", value, name, urls, again, urls2, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"action":"get","node":{"key":"/t","dir":true,"nodes":[{"key":"/t/a","value":"x"}]}}`))
	f.Add(404, []byte(`{"errorCode":100,"message":"Key not found","cause":"/t","index":3}`))
	f.Add(502, []byte(`<html>`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		a, err := parseAnswer(status, nil, body)
		if err == nil && a.Node == nil {
			t.Error("no error and no node")
		}
	})
}
