package locksmithd

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"flotilla/internal/applet"
	"flotilla/internal/unitfile"
)

// startedWith is what locksmithd complains of when systemd starts it with these files.
func startedWith(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	vars := map[string]string{}
	var names []string
	for i, text := range files {
		name := filepath.Join(dir, string(rune('a'+i)))
		names = append(names, name)
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		list, _ := unitfile.EnvFileVariables(text)
		for _, v := range list {
			vars[v.Name] = v.Value
		}
	}
	var stderr bytes.Buffer
	p := &program{cfg: Defaults(), env: applet.Env{Stderr: &stderr, LookupEnv: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }}}
	p.set = p.cfg.settings()
	p.set.Flags(pflag.NewFlagSet("", pflag.ContinueOnError))
	p.files = readEnvironment(names, os.ReadFile)
	p.set.Place = p.files.place
	err := p.load()
	text := stderr.String()
	if err != nil {
		text += err.Error() + "\n"
	}
	return strings.ReplaceAll(text, dir+"/", "")
}

// Each complaint names the line, and all come at once.
func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  []string // ends of lines
	}{
		{"nothing wrong", []string{"GROUP=stable\nSERVER=https://example.com/\nREBOOT_STRATEGY=etcd-lock\n"}, nil},
		{"one line", []string{"# mine\nGROUP=stable\nREBOOT_STRATEGY=sometimes\n"}, []string{
			`a:3: reboot_strategy: "sometimes" is none of off, reboot, best-effort, etcd-lock`}},
		{"the last line counts", []string{"REBOOT_STRATEGY=sometimes\n", "\nREBOOT_STRATEGY=often\n"}, []string{
			`b:2: reboot_strategy: "often" is none of off, reboot, best-effort, etcd-lock`}},
		{"what systemd took from it was another value", []string{"REBOOT_STRATEGY=sometimes\nREBOOT_STRATEGY=\n"}, nil},
		{"everything at once", []string{"REBOOT_STRATEGY=x\nREBOOT_WINDOW_START=\"Thy 4:00\"\nREBOOT_WINDOW_LENGTH=long\nREBOOT_WINDOW_TZ=Mars\n", "LOCKSMITHD_NOTICE=soon\nLOCKSMITHD_GROUP=..\n"}, []string{
			`a:1: reboot_strategy: "x" is none of off, reboot, best-effort, etcd-lock`,
			`b:1: notice: "soon" is neither a time such as 30s nor a number of seconds`,
			`a:4: reboot_window_tz: unknown time zone Mars`,
			`a:2: reboot window: window start "Thy 4:00": "Thy" is no day: Sun, Mon, Tue, Wed, Thu, Fri or Sat`,
			`a:3: reboot window: window length "long": want numbers with units h, m and s, such as 1h30m`,
			`b:2: group: ".." cannot be the name of one`}},
		{"half a window, the other half misspelt", []string{"REBOOT_WINDOW_START=4:00\nREBOOT_WINDOW_LENGHT=1h\n"}, []string{
			`at=a:2 why="unknown variable REBOOT_WINDOW_LENGHT, did you mean REBOOT_WINDOW_LENGTH?"`,
			`a:1: reboot_window_start and reboot_window_length: one without the other is no window`}},
		{"no assignment", []string{"REBOOT_STRATEGY: off\n"}, []string{
			`at=a:1 why="\"REBOOT_STRATEGY: off\" is no assignment NAME=VALUE"`}},
		{"of no use", []string{"LOCKSMITHD_ETCD_CERTFILE=/a\n"}, []string{
			`a:1: etcd_certfile and etcd_keyfile: one is of no use without the other`}},
	} {
		got := strings.Split(strings.TrimSuffix(startedWith(t, c.files...), "\n"), "\n")
		got = slices.DeleteFunc(got, func(l string) bool { return l == "" || l == "configuration:" })
		if !slices.EqualFunc(got, c.want, strings.HasSuffix) {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

// A variable that a file does not say is named alone, and so is a file that cannot be read.
func TestPlaceElsewhere(t *testing.T) {
	e := readEnvironment([]string{"none"}, func(string) ([]byte, error) { return nil, fs.ErrNotExist })
	if at := e.place("REBOOT_STRATEGY", "x"); at != "" || len(e.notices(nil)) > 0 {
		t.Errorf("at %q, %v", at, e.notices(nil))
	}
	err := errors.Join(about(errors.New("a"), "group"), errors.New("b"))
	got := placed(err, func(string) string { return "--group" })
	if got.Error() != "--group: a\nb" {
		t.Errorf("%v", got)
	}
}

// The files are those that the unit names, in its order.
func TestEnvironmentFiles(t *testing.T) {
	text, err := os.ReadFile("../../../dist/systemd/locksmithd.service")
	if err != nil {
		t.Fatal(err)
	}
	var of []string
	for line := range strings.Lines(string(text)) {
		if file, ok := strings.CutPrefix(strings.TrimSpace(line), "EnvironmentFile=-"); ok {
			of = append(of, file)
		}
	}
	if !slices.Equal(of, environmentFiles[:len(environmentFiles)-1]) {
		t.Errorf("the unit reads %v, the daemon looks into %v", of, environmentFiles)
	}
}
