package early

import (
	"os/exec"
	"strings"
	"testing"
)

// A heavy package among the imports would be initialised before the program runs,
// and the order of the inits would be of no use.
func TestNothingHeavyIsLinked(t *testing.T) {
	for pkg, heavy := range map[string][]string{
		".":       {"go.etcd.io/", "google.golang.org/", "github.com/prometheus/", "go.uber.org/zap"},
		"./agent": {"go.etcd.io/etcd/server/", "go.etcd.io/bbolt", "go.opentelemetry.io/"},
	} {
		out, err := exec.Command("go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		for path := range strings.Lines(string(out)) {
			for _, prefix := range heavy {
				if strings.HasPrefix(path, prefix) {
					t.Errorf("%s links %s", pkg, strings.TrimSpace(path))
				}
			}
		}
	}
}
