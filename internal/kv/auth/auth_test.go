package auth

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

var day = time.Date(2015, 5, 1, 12, 0, 0, 0, time.UTC)

// fields are the lines of a section, split, without comments.
func fields(section []byte) [][]string {
	var out [][]string
	for line := range strings.Lines(string(section)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] != "#" {
			out = append(out, f)
		}
	}
	return out
}

// story is a state with the switch on, as the sections users and roles tell.
func story(a *txtar.Archive) *State {
	records := []Record{secretRecord()}
	for _, f := range a.Files {
		for _, words := range fields(f.Data) {
			switch f.Name {
			case "users":
				records = append(records, record(put(userPrefix+words[0], userRecord{"hash of " + words[0], words[1:]})))
			case "roles":
				records = append(records, record(put(rolePrefix+words[0], rolePermissions(words[1:]))))
			}
		}
	}
	return Load(records)
}

func secretRecord() Record { return record(putSwitch(make([]byte, SecretSize))) }

func record(w Write) Record { return Record{Key: w.Key, Value: w.Value} }

func rolePermissions(words []string) (p Permissions) {
	var list *[]string
	for _, w := range words {
		switch w {
		case "read":
			list = &p.KV.Read
		case "write":
			list = &p.KV.Write
		default:
			*list = append(*list, w)
		}
	}
	return p
}

// who is the user, identified once.
func who(name string) Who {
	if name == "guest" {
		return Guest()
	}
	return Who{name, "hash of " + name}
}

func TestAccess(t *testing.T) {
	a, err := txtar.ParseFile("testdata/access.txtar")
	if err != nil {
		t.Fatal(err)
	}
	s := story(a)
	for _, f := range a.Files {
		for _, words := range fields(f.Data) {
			line := strings.Join(words, " ")
			switch f.Name {
			case "asks":
				if got := s.Decide(who(words[0]), needIn(words[1], words[2])); got != verdicts[words[3]] {
					t.Errorf("%s: verdict %v", line, got)
				}
			case "ranges":
				r := Keys(key(words[2]), key(words[3]))
				if got := s.MayRange(who(words[0]), r, words[1] == "write"); got != (words[4] == "yes") {
					t.Errorf("%s: %v", line, got)
				}
			}
		}
	}
}

var verdicts = map[string]Verdict{"refused": Refused, "as-directory": AsDirectory, "granted": Granted}

func needIn(what, path string) Need {
	return Need{Path: path, Recursive: strings.HasSuffix(what, "-recursive"),
		Write: what == "post" || strings.HasPrefix(what, "write"), Inside: what == "post"}
}

func key(word string) string {
	if word == "-" {
		return ""
	}
	return strings.NewReplacer(`\0`, "\x00", `\xff`, "\xff").Replace(word)
}

// Off, everybody may do everything; and somebody whose password has changed is
// nobody.
func TestSwitchAndPassword(t *testing.T) {
	off := Load([]Record{record(put(userPrefix+"alice", userRecord{Password: "h"}))})
	if off.Enabled() || off.Decide(Guest(), Need{Path: "/", Write: true, Recursive: true}) != Granted || !off.MayRange(Guest(), Keys("\x00", "\x00"), true) {
		t.Error("something is refused while authentication is off")
	}
	on := Load([]Record{secretRecord(), record(put(userPrefix+"root", userRecord{Password: "new"}))})
	if old := (Who{"root", "old"}); on.IsRoot(old) || on.Knows(old) || on.Decide(old, Need{Path: "/a"}) != Refused || on.MayLease(old) {
		t.Error("an old password is good for something")
	}
	if w := on.ByCertificate("root"); !on.IsRoot(w) {
		t.Error("root's certificate is not root's")
	}
	if w := on.ByCertificate("stranger"); w != Guest() {
		t.Error("a stranger's certificate makes a user")
	}
}

// What cannot be read opens nothing.
func TestDamagedRecords(t *testing.T) {
	s := Load([]Record{
		{Key: SwitchKey, Value: "{"},
		{Key: userPrefix + "root", Value: "{"},
		{Key: userPrefix + "alice", Value: `{"password":"h","roles":["broken"]}`},
		{Key: rolePrefix + "broken", Value: `{"kv":{"read":"/*"}}`},
		{Key: rolePrefix + GuestRole, Value: "?"},
	})
	if !s.Enabled() {
		t.Error("a damaged switch is off")
	}
	if _, _, ok := s.PasswordHash("root"); ok {
		t.Error("a user without a password can log in")
	}
	for _, w := range []Who{Guest(), {"alice", "h"}} {
		if s.Decide(w, Need{Path: "/a"}) != Refused {
			t.Errorf("%q reads by a damaged role", w.User())
		}
	}
	if s.Token(Who{"alice", "h"}, day) != "" {
		t.Error("tokens are signed with nothing")
	}
}

func TestTokens(t *testing.T) {
	records := []Record{secretRecord(), record(put(userPrefix+"alice", userRecord{Password: "h"})), record(put(userPrefix+"bob", userRecord{Password: "h"}))}
	s := Load(records)
	alice := Who{"alice", "h"}
	token := s.Token(alice, day)
	if w, ok := s.ByToken(token, day.Add(-time.Second)); !ok || w != alice {
		t.Errorf("a good token is %v, %v", w, ok)
	}
	if _, ok := s.ByToken(token, day); ok {
		t.Error("a token is good after its end")
	}
	parts := strings.Split(token, ".")
	bob := base64.RawURLEncoding.EncodeToString([]byte("bob"))
	forged := []string{"", ".", "..", "a.b.c", token + "A", token[:len(token)-2], bob + "." + parts[1] + "." + parts[2],
		parts[0] + ".zzzzzzz." + parts[2], parts[0] + "." + parts[1] + ".", "." + parts[1] + "." + parts[2]}
	for _, f := range forged {
		if _, ok := s.ByToken(f, day.Add(-time.Hour)); ok {
			t.Errorf("forged token %q is good", f)
		}
	}
	changed := Load(append(slices.Clone(records), record(put(userPrefix+"alice", userRecord{Password: "new"}))))
	other := make([]byte, SecretSize)
	other[0] = 1
	switched := Load(append(slices.Clone(records), record(putSwitch(other))))
	for name, later := range map[string]*State{"password": changed, "switch": switched, "user": Load(records[:1]), "off": Load(records[1:])} {
		if _, ok := later.ByToken(token, day.Add(-time.Hour)); ok {
			t.Errorf("the token outlives its %s", name)
		}
	}
	if s.Token(Guest(), day) != "" || s.Token(Who{"alice", "old"}, day) != "" {
		t.Error("a token for nobody")
	}
}

func TestTargets(t *testing.T) {
	for rest, want := range map[string]Target{
		"/enable": {Kind: Switch}, "/users": {Kind: Users}, "/users/": {Kind: Users}, "/roles/": {Kind: Roles},
		"/users/a": {User, "a"}, "/users/a/": {User, "a"}, "/roles/r": {RoleKind, "r"}, "/roles/r/s": {Kind: Deeper},
	} {
		if got, ok := ParseTarget(rest); !ok || got != want {
			t.Errorf("%s: %v, %v", rest, got, ok)
		}
	}
	for _, rest := range []string{"", "/", "/enable/", "/user", "x/users", "/enablex"} {
		if got, ok := ParseTarget(rest); ok {
			t.Errorf("%s: %v", rest, got)
		}
	}
}

// FuzzRanges: a range is allowed if and only if every key in it is a path's and is
// covered by one of the patterns.
func FuzzRanges(f *testing.F) {
	f.Add("/a/*\n/b", "/a/", "/a0")
	f.Add("/a\n/a\x00*", "/a", "/b")
	f.Add("*\n\xff*\n/\xff*", "/\xff", "\x00")
	f.Add("/x*\n/y*", "/x", "/z")
	f.Add("/\n/*", "", "\x00")
	f.Fuzz(func(t *testing.T, list, start, end string) {
		var patterns []pattern
		for text := range strings.SplitSeq(list, "\n") {
			patterns = append(patterns, parsePattern(text))
		}
		r := Keys(start, end)
		allowed := covered(r, patterns)
		good := func(k string) bool {
			return strings.HasPrefix(k, "/") && slices.ContainsFunc(patterns, func(p pattern) bool { return p.covers(k) })
		}
		// A hole begins where the range does, or right behind a pattern's last key.
		witness := false
		for _, k := range candidates(patterns, start) {
			inside := k >= r.Start && (r.End == "" || k < r.End)
			if inside && allowed && !good(k) {
				t.Errorf("%q is allowed, with %q in it", r, k)
			}
			witness = witness || inside && !good(k)
		}
		if !allowed && !witness {
			t.Errorf("%q is refused, with nothing wrong in it", r)
		}
	})
}

func candidates(patterns []pattern, start string) []string {
	keys := []string{start, start + "\x00", "", "/", "0", "0\x00", "\xff", ".v2/auth/enabled"}
	for _, p := range patterns {
		keys = append(keys, p.text, p.text+"\x00", p.text+"\x00\x00", p.text+"/", p.text+"/x", p.text+"\xff", after(p.text))
		if p.text != "" {
			keys = append(keys, p.text[:len(p.text)-1], p.text[:len(p.text)-1]+"\xff")
		}
	}
	return keys
}

// FuzzAgree: what a user may read of one key through v3, they may through v2.
func FuzzAgree(f *testing.F) {
	f.Add("/a/*", "/a/b")
	f.Add("/a/", "/a")
	f.Add("*", "/")
	f.Fuzz(func(t *testing.T, text, path string) {
		if !strings.HasPrefix(path, "/") || len(path) > 1 && strings.HasSuffix(path, "/") {
			return
		}
		s := Load([]Record{secretRecord(), record(put(rolePrefix+GuestRole, rolePermissions([]string{"read", text, "write", text})))})
		for _, write := range []bool{false, true} {
			v3 := s.MayRange(Guest(), Keys(path, ""), write)
			v2 := s.Decide(Guest(), Need{Path: path, Write: write}) == Granted
			if v2 != v3 {
				t.Errorf("pattern %q, key %q, write %v: v2 %v, v3 %v", text, path, write, v2, v3)
			}
		}
	})
}

// FuzzBodies: whatever is sent, the answer is a whole one, and what is written
// stays below the records' prefix and moves the version.
func FuzzBodies(f *testing.F) {
	for _, body := range []string{`{"user":"u","password":"p"}`, `{"user":"u","grant":["a"]}`, `{"role":"u","permissions":{"kv":{"read":["/a"]}}}`,
		`{"role":"u","revoke":{"kv":{"write":["/a"]}}}`, `{"user":"u","roles":null,"grant":[null]}`, "{", "null", `[]`} {
		f.Add(body, "u")
	}
	f.Fuzz(func(t *testing.T, body, name string) {
		s := Load([]Record{record(put(userPrefix+"u", userRecord{"h", nil})), record(put(rolePrefix+"u", Permissions{}))})
		for _, kind := range []Kind{User, RoleKind} {
			r := Request{Method: "PUT", Target: Target{kind, name}, Body: []byte(body), Hash: "h"}
			a, writes := s.Administer(Guest(), r)
			if a.Status < 200 || a.Status > 409 || (a.Status > 201) != strings.HasPrefix(a.Body, `{"message":`) {
				t.Errorf("%d %s", a.Status, a.Body)
			}
			if len(writes) > 0 && writes[len(writes)-1].Key != RevisionKey {
				t.Error("a change does not move the version")
			}
			for _, w := range writes {
				if !strings.HasPrefix(w.Key, RecordsStart) || w.Key == SwitchKey {
					t.Errorf("writes %q", w.Key)
				}
			}
		}
	})
}

// FuzzTokens: who does not know the secret makes no token; who holds one cannot make
// another user's or a longer one of it.
func FuzzTokens(f *testing.F) {
	s := Load([]Record{secretRecord(), record(put(userPrefix+"alice", userRecord{Password: "h"})), record(put(userPrefix+"root", userRecord{Password: "h"}))})
	good := s.Token(Who{"alice", "h"}, day)
	f.Add(good)
	f.Add("cm9vdA.zzzzzz.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		w, ok := s.ByToken(token, day.Add(-time.Hour))
		if ok && (w.User() != "alice" || !strings.Contains(token, strings.Split(good, ".")[1])) {
			t.Errorf("%q is a token of %q", token, w.User())
		}
	})
}
