package unitshttp

import (
	"os"
	"strings"
	"testing"
)

// The manual has every resource with its methods.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../../docs/formats/fleet-api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range (&Server{}).resources() {
		name := "NAME"
		switch {
		case strings.HasPrefix(r.path, "/rolls"):
			name = "GROUP"
		case strings.HasPrefix(r.path, "/machines"):
			name = "ID"
		}
		for _, m := range r.methods {
			if want := "`" + m.verb + " " + strings.ReplaceAll(r.path, "*", name); !strings.Contains(string(b), want+"`") && !strings.Contains(string(b), want+"?") {
				t.Errorf("%s is not in the manual", want[1:])
			}
		}
	}
}
