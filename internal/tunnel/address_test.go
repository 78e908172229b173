package tunnel

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Address
		bad  string // part of the error
	}{
		{"10.10.1.1", Address{Host: "10.10.1.1"}, ""},
		{"10.10.1.1:2222", Address{Host: "10.10.1.1", Port: 2222}, ""},
		{"core@web-1", Address{User: "core", Host: "web-1"}, ""},
		{"a@b@web-1.example:22", Address{User: "a@b", Host: "web-1.example", Port: 22}, ""},
		{"::1", Address{Host: "::1"}, ""},
		{"[::1]", Address{Host: "::1"}, ""},
		{"[fe80::1%eth0]:22", Address{Host: "fe80::1%eth0", Port: 22}, ""},
		{"fe80::1%eth0", Address{Host: "fe80::1%eth0"}, ""},
		{"", Address{}, "names no host"},
		{"core@", Address{}, "names no host"},
		{"@web", Address{}, "before the @"},
		{":22", Address{}, "names no host"},
		{"web:", Address{}, `port ""`},
		{"web:ssh", Address{}, `port "ssh"`},
		{"web:0", Address{}, `port "0"`},
		{"web:65536", Address{}, `port "65536"`},
		{"web:22:23", Address{}, "neither a host"},
		{"[web]", Address{Host: "web"}, ""},
		{"[::g]", Address{}, "no IPv6 address"},
		{"web 1", Address{}, "blanks"},
		{"ssh://web", Address{}, `port "//web"`},
		{"web/1", Address{}, "no host's name"},
	} {
		got, err := ParseAddress(c.in)
		switch {
		case c.bad == "" && (err != nil || got != c.want):
			t.Errorf("%q: %+v, %v, want %+v", c.in, got, err, c.want)
		case c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)):
			t.Errorf("%q: %+v, %v, want an error with %q", c.in, got, err, c.bad)
		}
	}
}

// What is read is written so that it is read again as the same.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"10.10.1.1", "core@web:22", "[::1]:22", "fe80::1%eth0", ":", "a@b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		again, err := ParseAddress(a.String())
		if err != nil || again != a {
			t.Fatalf("%q is %+v, written %q, read again %+v, %v", s, a, a.String(), again, err)
		}
		if a.Host == "" || a.Port < 0 || a.Port > 65535 {
			t.Fatalf("%q: %+v", s, a)
		}
	})
}
