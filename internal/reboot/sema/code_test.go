package sema_test

import (
	"strings"
	"testing"

	"flotilla/internal/reboot/sema"
)

// What was read is written back: classic fields first, ours where they say
// something, those of others behind.
func TestReadAndWrite(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"as classic clients create it", `{"semaphore":1,"max":1,"holders":null}`, `{"semaphore":1,"max":1,"holders":null}`},
		{"as their manual prints it", `{"semaphore":1,"max":1,"holders":[]}`, `{"semaphore":1,"max":1,"holders":[]}`},
		{"with blanks, in any order", ` {"holders": ["b", "a"], "max": 4, "semaphore": 2} `, `{"semaphore":2,"max":4,"holders":["a","b"]}`},
		{"a holder twice is one", `{"semaphore":0,"max":2,"holders":["a","a"]}`, `{"semaphore":1,"max":2,"holders":["a"]}`},
		{"the count follows from the rest", `{"semaphore":7,"max":1,"holders":["a"]}`, `{"semaphore":0,"max":1,"holders":["a"]}`},
		{"more holders than slots", `{"semaphore":-1,"max":1,"holders":["a","b"]}`, `{"semaphore":-1,"max":1,"holders":["a","b"]}`},
		{"an empty object has no slot", `{}`, `{"semaphore":0,"max":0,"holders":null}`},
		{"ours", `{"semaphore":0,"max":1,"holders":["a"],"details":{"a":{"hostname":"web-1","since":"2026-05-01T12:00:00Z","why":"update","boot":"b","phase":"lost","seq":3}},"bad":[{"machine":"a","result":"lost","why":"silent","at":"2026-05-01T12:15:00Z"}],"stopped":{"why":"a: silent","at":"2026-05-01T12:15:00Z"},"stop_after":2}`, ""},
		{"details of who holds nothing", `{"semaphore":1,"max":1,"holders":[],"details":{"a":{"seq":1}}}`, `{"semaphore":1,"max":1,"holders":[]}`},
		{"the usual is not written", `{"semaphore":1,"max":1,"holders":[],"stop_after":1,"bad":[],"details":{}}`, `{"semaphore":1,"max":1,"holders":[]}`},
		{"a later release's fields", `{"zeal":{"x":[1]},"semaphore":1,"max":1,"holders":[],"age":7}`, `{"semaphore":1,"max":1,"holders":[],"age":7,"zeal":{"x":[1]}}`},
	} {
		if c.want == "" {
			c.want = c.in
		}
		s, err := sema.Decode([]byte(c.in))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if got := string(s.Encode()); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestNewIsWhatClassicClientsCreate(t *testing.T) {
	if got, want := string(sema.New().Encode()), `{"semaphore":1,"max":1,"holders":null}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNotASemaphore(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "unexpected end of JSON input",
		"1":                         "reboot lock: number, want an object",
		"[]":                        "reboot lock: array, want an object",
		"null":                      "not a JSON object",
		`{"max":"one"}`:             "reboot lock: max: string, want a whole number",
		`{"max":1e9}`:               "reboot lock: max: number 1e9, want a whole number",
		`{"max":1,"holders":[""]}`:  "a holder without a name",
		`{"max":1,"holders":"a"}`:   "reboot lock: holders: string, want a list",
		`{"max":1} x`:               "after top-level value",
		`{"max":1,"stopped":"yes"}`: "reboot lock: stopped: string, want an object",
		`{"x":"` + strings.Repeat("y", sema.MaxSize) + `"}`: "reboot lock: 1048584 bytes are more than 1048576",
		`{"max":1,"stopped":{"at":"soon"}}`:                 "cannot parse",
	} {
		if _, err := sema.Decode([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %q", in, err, want)
		}
	}
}

// Whatever can be read can be written, and is then what was read.
func FuzzDecode(f *testing.F) {
	for _, in := range []string{
		`{"semaphore":1,"max":1,"holders":null}`,
		`{"semaphore":0,"max":1,"holders":["a"],"details":{"a":{"since":"2026-05-01T12:00:00+02:00","phase":"lost","seq":3}},"bad":[{"machine":"a","result":"lost","why":"x"}],"stopped":{"why":"x"},"stop_after":0,"x":{"y":null}}`,
		`{"Max":2,"HOLDERS":["\ud800","b"],"":1}`,
	} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := sema.Decode(in)
		if err != nil {
			return
		}
		once := s.Encode()
		again, err := sema.Decode(once)
		if err != nil {
			t.Fatalf("%s\nbecame %s: %v", in, once, err)
		}
		if twice := again.Encode(); string(twice) != string(once) {
			t.Fatalf("%s\nbecame %s\nthen   %s", in, once, twice)
		}
		if next, err := s.Take("new", sema.Detail{}); err == nil && next.Free() != s.Free()-1 {
			t.Fatalf("took a slot of %s and got %s", once, next.Encode())
		}
	})
}
