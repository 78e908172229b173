package cloudinitcmd

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"flotilla/internal/applet"
	"flotilla/internal/cloudinit/apply"
	"flotilla/internal/cloudinit/source"
)

// The manual page has every flag and every platform.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../../docs/cli/coreos-cloudinit.md")
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string) {
		if !strings.Contains(string(text), "`"+what) {
			t.Errorf("docs/cli/coreos-cloudinit.md does not have %s", what)
		}
	}
	newCommand(applet.Env{}, apply.Programs{}).Flags().VisitAll(func(f *pflag.Flag) { want("-" + f.Name) })
	for _, name := range source.OEMs() {
		want(name + "`")
	}
}
