package confload

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/tools/txtar"
)

type config struct {
	servers  []string
	metadata map[string]string
	ttl      time.Duration
	limit    int
	off      bool
	ip       string
}

func (c *config) settings() *Set {
	s := &Set{}
	s.List(&c.servers, "etcd_servers", "URLs")
	s.Pairs(&c.metadata, "metadata", "pairs")
	s.Duration(&c.ttl, time.Second, "agent_ttl", "time")
	s.Int(&c.limit, 1, 1000, "token_limit", "entries")
	s.Bool(&c.off, "disable_engine", "never lead")
	s.String(&c.ip, "public_ip", "address")
	s.Ignored("verify_units", "units are not signed any more")
	return s
}

// A variable that a file is the source of is told with its place there.
func TestPlace(t *testing.T) {
	var c config
	s := c.settings()
	s.Place = func(variable, value string) string {
		if variable == "FLEET_AGENT_TTL" {
			return "/etc/default/fleet:3"
		}
		return ""
	}
	vars := map[string]string{"FLEET_AGENT_TTL": "soon", "FLEET_TOKEN_LIMIT": "many"}
	s.Env("FLEET_", func(name string) (string, bool) { v, ok := vars[name]; return v, ok })
	want := `/etc/default/fleet:3: agent_ttl: "soon" is neither a time such as 30s nor a number of seconds
FLEET_TOKEN_LIMIT: token_limit: "many" is not a number from 1 to 1000`
	if err := s.Err(); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if s.Where("agent_ttl") != "/etc/default/fleet:3" || s.Where("public_ip") != "" {
		t.Errorf("at %q and %q", s.Where("agent_ttl"), s.Where("public_ip"))
	}
}

// Each file of testdata is a configuration, and what comes of it: the effective
// settings, notices and problems.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := map[string]string{}
			for _, f := range a.Files {
				parts[f.Name] = string(f.Data)
			}
			if got := outcome(parts["fleet.conf"], parts["env"], parts["flags"]); got != parts["want"] {
				t.Errorf("got\n%swant\n%s", got, parts["want"])
			}
		})
	}
}

func outcome(file, env, flags string) string {
	var c config
	s := c.settings()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.Flags(fs)
	if err := fs.Parse(strings.Fields(flags)); err != nil {
		return err.Error() + "\n"
	}
	s.File("fleet.conf", []byte(file))
	vars := map[string]string{}
	for line := range strings.Lines(env) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		vars[name] = value
	}
	s.Env("FLEET_", func(name string) (string, bool) { v, ok := vars[name]; return v, ok })
	s.FromFlags()
	var b strings.Builder
	if err := s.Err(); err != nil {
		fmt.Fprintf(&b, "%v\n", err)
	} else if err := s.Effective(&b); err != nil {
		return err.Error()
	}
	for _, n := range s.Notices() {
		fmt.Fprintf(&b, "notice: %v\n", n)
	}
	return b.String()
}

// What is effective, written as a file and read again, is effective.
func FuzzParseINI(f *testing.F) {
	f.Add("a=b\n")
	f.Add("metadata=\"a=b,c=d\" # x\n[sec]\nk=v")
	f.Add("x='\n;\n=\n")
	f.Fuzz(func(t *testing.T, text string) {
		out, problems := parseINI(text)
		lines := strings.Count(text, "\n") + 1
		if len(out)+len(problems) > lines {
			t.Errorf("%d lines, %d assignments and %d problems", lines, len(out), len(problems))
		}
		for _, a := range out {
			if strings.Contains(a.Value, "\n") || strings.ContainsAny(a.Value, `"'`) {
				continue
			}
			again, _ := parseINI("k=" + quote(a.Value))
			if len(again) != 1 || again[0].Value != a.Value {
				t.Errorf("%q is written %q and read as %v", a.Value, quote(a.Value), again)
			}
		}
	})
}
