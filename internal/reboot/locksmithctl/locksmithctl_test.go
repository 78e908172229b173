package locksmithctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"flotilla/client/keys"
	"flotilla/internal/applet"
	"flotilla/internal/kv/member/membertest"
	"flotilla/internal/reboot/lock"
)

// machine is one of the imagination. The zero value is root on a machine that reboots
// as told.
type machine struct {
	notRoot   bool
	noID      bool
	inhibited []string
	stuck     error // why Reboot fails
	did       []string
}

func (m *machine) ID() (string, error) {
	if m.noID {
		return "", errors.New("open /etc/machine-id: no such file or directory")
	}
	return "m1", nil
}
func (m *machine) BootID() (string, error) { return "boot-1", nil }
func (m *machine) Hostname() string        { return "web-1" }
func (m *machine) IsRoot() bool            { return !m.notRoot }
func (m *machine) Reboot(context.Context) error {
	m.did = append(m.did, "reboot")
	return m.stuck
}
func (m *machine) Blockers(context.Context) ([]string, error) { return m.inhibited, nil }
func (m *machine) SendNeedReboot(context.Context) error {
	m.did = append(m.did, "send")
	return nil
}

// run runs a command line and returns the exit code and what it wrote.
func run(t *testing.T, m *machine, url, line string) string {
	t.Helper()
	var out, errs strings.Builder
	env := applet.Env{
		Args: append([]string{"-endpoint", url}, strings.Fields(line)...), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		LookupEnv: func(string) (string, bool) { return "", false },
	}
	code := Run(t.Context(), env, m)
	return fmt.Sprintf("%d %s%s", code, out.String(), errs.String())
}

func read(t *testing.T, url string) lock.State {
	t.Helper()
	c, err := keys.New(keys.Config{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := lock.New(c, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The commands of one machine, in this order.
func TestReboot(t *testing.T) {
	url := membertest.Start(t)
	for _, c := range []struct {
		name, line, want string
		m                machine
		reboots          bool
		holders          string // afterwards, with phases and reasons
	}{
		{name: "not root", line: "reboot", m: machine{notRoot: true},
			want: "1 locksmithctl: only root may reboot the machine\nhint: sudo locksmithctl reboot\n"},
		{name: "forbidden: no slot is taken", line: "reboot", m: machine{inhibited: []string{"apt: upgrade"}},
			want: "1 locksmithctl: the reboot is forbidden by apt: upgrade\nhint: systemd-inhibit --list shows them\n"},
		{name: "which machine", line: "lock", m: machine{noID: true},
			want: "1 Error locking: which machine? open /etc/machine-id: no such file or directory\nhint: name one: its id is in its /etc/machine-id\n"},
		{name: "it fails: the slot is given back", line: "reboot", m: machine{stuck: errors.New("reboot: no bus")}, reboots: true,
			want: "1 locksmithctl: reboot: no bus\n"},
		{name: "by hand, this one", line: "lock --why disks", want: "0 ", holders: "m1 web-1 by-hand disks boot-1"},
		{name: "a holder goes on, and is what it was if it fails", line: "reboot", m: machine{stuck: errors.New("reboot: no bus")}, reboots: true,
			want: "1 locksmithctl: reboot: no bus\n", holders: "m1 web-1 by-hand disks boot-1"},
		{name: "and again", line: "reboot --why kernel", reboots: true, want: "0 ", holders: "m1 web-1 rebooting kernel boot-1"},
		{name: "this one", line: "unlock", want: "0 "},
		{name: "another", line: "lock m2", want: "0 ", holders: "m2  by-hand locked by hand "},
		{name: "full", line: "reboot",
			want:    "1 Error locking: semaphore is at 0\nhint: max is 1, held by m2, by-hand\n",
			holders: "m2  by-hand locked by hand "},
	} {
		got := run(t, &c.m, url, c.line)
		if got != c.want {
			t.Errorf("%s: %s\ngot  %q\nwant %q", c.name, c.line, got, c.want)
		}
		if (len(c.m.did) == 1) != c.reboots {
			t.Errorf("%s: %q", c.name, c.m.did)
		}
		if holders := holdersOf(read(t, url)); holders != c.holders {
			t.Errorf("%s: held by %q, want %q", c.name, holders, c.holders)
		}
	}
	if got := complete(t, url, "unlock", ""); !strings.HasPrefix(got, "0 m2\n:4\n") {
		t.Errorf("who can be unlocked: %q", got)
	}
}

// The groups that have a lock, for people, programs and shells.
func TestGroups(t *testing.T) {
	url := membertest.Start(t)
	for _, c := range []struct{ line, want string }{
		{"groups", "0 "},
		{"groups --json", "0 []\n"},
		{"-group prod/db set-max 2", "0 Old-Max: 1\nMax: 2\n"},
		{"-group a\x1b[2J set-max 1", "0 Old-Max: 1\nMax: 1\n"},
		{"groups", "0 a?[2J\nprod/db\n"},
		{"groups --json", "0 [\n  \"a\\u001b[2J\",\n  \"prod/db\"\n]\n"},
		{"groups x", "1 locksmithctl: groups takes no arguments\nhint: usage: locksmithctl groups [flags]\n"},
	} {
		if got := run(t, &machine{}, url, c.line); got != c.want {
			t.Errorf("%s: %q, want %q", c.line, got, c.want)
		}
	}
	if got := complete(t, url, "status", "--group", "p"); !strings.Contains(got, "prod/db\n:4\n") {
		t.Errorf("what may stand behind --group: %q", got)
	}
}

// The manual has every command and every flag, and no other command.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../../docs/cli/locksmithctl.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	s := &session{machine: &machine{}}
	root := s.root()
	has := map[string]bool{}
	for _, c := range root.Commands() {
		has[c.Name()] = true
		if !strings.Contains(manual, "| `"+c.Name()) {
			t.Errorf("%s is not in the manual", c.Name())
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !strings.Contains(manual, "--"+f.Name) && !strings.Contains(manual, "[-"+f.Shorthand+" ") {
				t.Errorf("--%s of %s is not in the manual", f.Name, c.Name())
			}
		})
	}
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(manual, "`-"+f.Name+"`") {
			t.Errorf("-%s is not in the manual", f.Name)
		}
	})
	_, table, _ := strings.Cut(manual, "## Commands")
	table, _, _ = strings.Cut(table, "## ")
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)").FindAllStringSubmatch(table, -1) {
		if !has[row[1]] {
			t.Errorf("%s is in the manual, and is no command", row[1])
		}
	}
}

// complete is what a shell is told behind these words.
func complete(t *testing.T, url string, words ...string) string {
	t.Helper()
	var out, errs strings.Builder
	env := applet.Env{Args: append([]string{"__complete", "-endpoint", url}, words...), Stdout: &out, Stderr: &errs}
	code := Run(t.Context(), env, &machine{})
	return fmt.Sprintf("%d %s%s", code, out.String(), errs.String())
}

func holdersOf(s lock.State) string {
	var out []string
	for _, h := range s.Holders {
		d := s.Details[h]
		out = append(out, fmt.Sprintf("%s %s %s %s %s", h, d.Hostname, d.Phase, d.Why, d.Boot))
	}
	return strings.Join(out, "; ")
}

func TestSendNeedReboot(t *testing.T) {
	m := machine{notRoot: true}
	want := "1 locksmithctl: nobody believes it of another user than root\nhint: sudo locksmithctl send-need-reboot\n"
	if got := run(t, &m, "http://127.0.0.1:1", "send-need-reboot"); got != want || len(m.did) != 0 {
		t.Errorf("not root: %q, %q", got, m.did)
	}
	m = machine{}
	if got := run(t, &m, "http://127.0.0.1:1", "send-need-reboot"); got != "0 " || len(m.did) != 1 {
		t.Errorf("%q, %q", got, m.did)
	}
}

// A reason from another machine cannot steer the terminal.
func TestPlain(t *testing.T) {
	if got, want := plain("a\x1b[2J\u202eb\n\tc\r"), "a?[2J?b\n\tc?"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
