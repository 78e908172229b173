package etcdcmd

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/fault"
)

func TestOrigins(t *testing.T) {
	for _, test := range []struct{ given, compared string }{
		{"*", "*"},
		{"http://example.com", "http://example.com"},
		{"http://example.com:8080", "http://example.com:8080"},
		{"http://example.com/", "http://example.com"},
		{"http://example.com, https://b.example:8443", "http://example.com https://b.example:8443"},
		{"http://example.com,*", "* http://example.com"},
		{"http://example.com:80", "http://example.com http://example.com:80"}, // browsers leave it out
		{"https://example.com:443", "https://example.com https://example.com:443"},
		{"https://example.com:80", "https://example.com:80"},
		{"http://Example.com", "http://Example.com http://example.com"},
		{"http://[::1]:80", "http://[::1] http://[::1]:80"},
		{"chrome-extension://abcdef", "chrome-extension://abcdef"},
	} {
		o, err := parsed(t, nil, "--cors", test.given)
		if err != nil {
			t.Errorf("%s: %v", test.given, err)
			continue
		}
		if got := strings.Join(slices.Sorted(maps.Keys(o.cfg.Engine.CORS)), " "); got != test.compared {
			t.Errorf("%s: compared with %q, want %q", test.given, got, test.compared)
		}
	}
}

func TestNoOrigins(t *testing.T) {
	for _, given := range []string{"", "example.com", "null", "http://", "http://a.example/page", "http://a.example?x", "http://user@a.example", "http://a.example,,http://b.example", "http://[::1"} {
		_, err := parsed(t, nil, "--cors", given)
		if fault.ExitCode(err) != fault.ExitUsage || !strings.Contains(err.Error(), "cors") {
			t.Errorf("%q: %v", given, err)
		}
	}
}

func FuzzOrigins(f *testing.F) {
	f.Add("http://example.com:80,*")
	f.Fuzz(func(t *testing.T, s string) {
		sent, err := asSent(s)
		if err != nil {
			return
		}
		if again, err := asSent(sent); err != nil || again != sent {
			t.Errorf("%q is sent as %q, and that as %q: %v", s, sent, again, err)
		}
	})
}
