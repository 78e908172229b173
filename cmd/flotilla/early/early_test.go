package early

import (
	"os/exec"
	"strings"
	"testing"
)

// A heavy package among the imports would be initialised before the program runs,
// and the order of this package's init would be of no use.
func TestNothingHeavyIsLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.Lines(string(out)) {
		for _, heavy := range []string{"go.etcd.io/", "google.golang.org/", "github.com/prometheus/", "go.uber.org/zap"} {
			if strings.HasPrefix(path, heavy) {
				t.Errorf("links %s", strings.TrimSpace(path))
			}
		}
	}
}
