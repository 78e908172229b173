package etcdctl

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
)

// oldSnapshot is a store as etcd 0.4 wrote it, made by the engine's own v2 store.
func oldSnapshot(t testing.TB, now time.Time) []byte {
	t.Helper()
	st := v2store.New()
	set := func(key, value string, expires time.Time) {
		t.Helper()
		if _, err := st.Set(key, false, value, v2store.TTLOptionSet{ExpireTime: expires}); err != nil {
			t.Fatal(err)
		}
	}
	set("/b", "2", v2store.Permanent)
	set("/a/x", "1", v2store.Permanent)
	set("/a/_secret", "s", v2store.Permanent)
	set("/a/empty", "", v2store.Permanent)
	set("/short", "3", now.Add(time.Minute))
	set("/long", "4", now.Add(time.Hour))
	set("/_hidden/y", "5", v2store.Permanent)
	set("/_other/z", "6", v2store.Permanent)
	if _, err := st.Set("/dir", true, "", v2store.TTLOptionSet{ExpireTime: v2store.Permanent}); err != nil {
		t.Fatal(err)
	}
	raw, err := st.Save()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// asFile wraps a store the way etcd 0.4 did in its files.
func asFile(t testing.TB, state []byte) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"lastIndex": 7, "lastTerm": 1, "peers": []string{}, "state": state, "path": "snapshot/1_7.ss"})
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte("deadbeef\n"), raw...)
}

func TestOldKeys(t *testing.T) {
	now := time.Now()
	bare := oldSnapshot(t, now)
	for _, test := range []struct {
		name   string
		raw    []byte
		hidden []string
		now    time.Time
		want   string
	}{
		{"bare", bare, nil, now, `/a/empty="" 0s; /a/x="1" 0s; /b="2" 0s; /long="4" 1h0m0s; /short="3" 5m0s`},
		{"a file", asFile(t, bare), nil, now, `/a/empty="" 0s; /a/x="1" 0s; /b="2" 0s; /long="4" 1h0m0s; /short="3" 5m0s`},
		{"some have expired", bare, nil, now.Add(2 * time.Minute), `/a/empty="" 0s; /a/x="1" 0s; /b="2" 0s; /long="4" 58m0s`},
		{"hidden", bare, []string{"/_hidden", "a/_secret"}, now.Add(2 * time.Hour), `/a/empty="" 0s; /a/x="1" 0s; /b="2" 0s; /_hidden/y="5" 0s; /a/_secret="s" 0s`},
	} {
		files, err := oldKeys(test.raw, test.hidden, test.now)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		var got []string
		for _, f := range files {
			got = append(got, fmt.Sprintf("%s=%q %v", f.key, f.value, f.ttl.Round(time.Second)))
		}
		if diff := cmp.Diff(test.want, strings.Join(got, "; ")); diff != "" {
			t.Errorf("%s: -want +got\n%s", test.name, diff)
		}
	}
}

func TestNoSnapshot(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                 "not a snapshot of etcd 0.4",
		"deadbeef\n{}":                     "there is no tree in it",
		`{"state":"e30="}`:                 "there is no tree in it",
		`{"state":"eA=="}`:                 "its state",
		"deadbeef\nnothing":                "not a snapshot of etcd 0.4",
		string(oldSnapshot(t, time.Now())): "--hidden /_none: no such key",
	} {
		if _, err := oldKeys([]byte(raw), []string{"/_none"}, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: error %v, want %q", raw, err, want)
		}
	}
}

// Whatever is in the file, each key that comes of it is a clean path.
func FuzzOldKeys(f *testing.F) {
	bare := oldSnapshot(f, time.Now())
	f.Add(bare)
	f.Add(asFile(f, bare))
	f.Add([]byte(`{"Root":{"Children":{"..":null,"a/b":{"Children":{"":{}}}}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		files, _ := oldKeys(raw, nil, time.Now())
		for _, k := range files {
			if !strings.HasPrefix(k.key, "/") || strings.Contains(k.key, "//") || strings.Contains(k.key+"/", "/../") {
				t.Errorf("key %q", k.key)
			}
		}
	})
}
