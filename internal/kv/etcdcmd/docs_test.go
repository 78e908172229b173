package etcdcmd

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"flotilla/internal/applet"
)

// The manual has every flag once, with its default, and no other; and every variable of
// before.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../../docs/cli/etcd.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	_, tables, _ := strings.Cut(manual, "\n## Flags\n")
	tables, _, _ = strings.Cut(tables, "\n## ")
	said := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`--.*?) \\| (.*?) ?\\| .* \\|$").FindAllStringSubmatch(tables, -1) {
		for name := range strings.SplitSeq(row[1], ", ") {
			name = strings.Trim(name, "`-")
			if _, twice := said[name]; twice {
				t.Errorf("--%s is in the manual twice", name)
			}
			said[name] = strings.Trim(row[2], "`")
		}
	}
	newOptions().flags.VisitAll(func(f *flag.Flag) {
		value, ok := said[f.Name]
		if !ok || value != shown(f) {
			t.Errorf("--%s has the default %q, and in the manual %q (is there: %v)", f.Name, shown(f), value, ok)
		}
		delete(said, f.Name)
	})
	for name := range said {
		t.Errorf("--%s is in the manual, and is no flag", name)
	}
	for _, l := range legacies {
		if !strings.Contains(manual, "`ETCD_"+l.name+"`") {
			t.Errorf("ETCD_%s is not in the manual", l.name)
		}
	}
	for name := range gone {
		if !strings.Contains(manual, "`--"+name+"`") && !strings.Contains(manual, "`-"+name+"`") {
			t.Errorf("--%s, which is refused, is not in the manual", name)
		}
	}
}

// The manual has the flags of "etcd recover" as its help has them, and they are flags.
func TestManualOfRecover(t *testing.T) {
	b, err := os.ReadFile("../../../docs/cli/etcd.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "\n## etcd recover\n")
	table, _, _ = strings.Cut(table, "\n## ")
	for _, m := range regexp.MustCompile(`(?m)^  (?:-o, )?(--[a-z-]+)(?: (\S+))?  `).FindAllStringSubmatch(recoverUsage+"  ", -1) {
		if !strings.Contains(table, "| `"+m[1]) {
			t.Errorf("%s is not in the manual", m[1])
		}
	}
	env := applet.Env{
		Args:      []string{"recover", "--data-dir", "d", "--wal-dir", "w", "--dry-run", "--yes", "--output", "json", "-o", "json"},
		LookupEnv: func(string) (string, bool) { return "", false },
	}
	if r, err := parseRecovery(env); err != nil || r != (recovery{dir: "d", wal: "w", output: "json", yes: true, dry: true}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// shown is a flag's default as the manual has it: nothing for what is off or none.
func shown(f *flag.Flag) string {
	switch f.DefValue {
	case "false", "0", "0s":
		return ""
	}
	return f.DefValue
}
