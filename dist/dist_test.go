package dist_test

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"flotilla/dist"
)

// A unit must not run a classic name, which may be another package's.
func TestUnitsRunTheProgramItself(t *testing.T) {
	for at, text := range dist.Units() {
		for line := range strings.Lines(text) {
			if run, ok := strings.CutPrefix(line, "ExecStart="); ok && !strings.HasPrefix(strings.TrimLeft(run, "-+"), "/usr/bin/flotilla ") {
				t.Errorf("%s: %s", at, line)
			}
		}
	}
}

// Whatever a cloud-config document writes is read after the defaults of a machine.
func TestDefaultsCountLeast(t *testing.T) {
	for at, text := range dist.Units() {
		files := ""
		for line := range strings.Lines(text) {
			if name, ok := strings.CutPrefix(line, "EnvironmentFile=-"); ok {
				files += name
			}
		}
		if i := strings.Index(files, "/etc/default/"); i >= 0 && strings.Contains(files[:i], "/etc/coreos/update.conf") {
			t.Errorf("%s reads a default after what a document writes:\n%s", at, files)
		}
	}
}

// What purging forgets is what "systemctl enable" can have made of our units.
func TestPurgeKnowsEveryUnit(t *testing.T) {
	script, err := os.ReadFile("package/postrm")
	if err != nil {
		t.Fatal(err)
	}
	_, patterns, _ := strings.Cut(string(script), `case $(basename "$(readlink "$link")") in`)
	patterns, _, _ = strings.Cut(patterns, ")")
	for at := range dist.Units() {
		known := false
		for pattern := range strings.FieldsFuncSeq(patterns, func(r rune) bool { return strings.ContainsRune("| \\\n\t", r) }) {
			match, err := path.Match(pattern, path.Base(at))
			known = known || match && err == nil
		}
		if !known {
			t.Errorf("%s is enabled by a link that postrm does not take away: it knows %s", at, patterns)
		}
	}
}

// Removing and purging tell of all that stays, and of nothing else: every directory of a
// daemon's data, and every file of the owner's that a unit reads.
func TestRemovalTellsWhatStays(t *testing.T) {
	root := t.TempDir()
	told := func(what string) string {
		cmd := exec.Command("sh", "package/postrm", what)
		cmd.Env = append(os.Environ(), "DPKG_ROOT="+root)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("postrm %s: %v\n%s", what, err, out)
		}
		return string(out)
	}
	for _, what := range []string{"remove", "purge"} {
		if out := told(what); out != "" {
			t.Errorf("where nothing stays, postrm %s says\n%s", what, out)
		}
	}
	stays := append(readByUnits(), "/etc/fleet/fleet.conf", "/etc/flotilla/health.d/mine",
		"/var/lib/coreos-cloudinit/records/user.json", "/var/lib/coreos-install/user_data", "/var/lib/fleet/adopted/own.service")
	for _, at := range stays {
		if err := os.MkdirAll(filepath.Dir(root+at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+at, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, what := range []string{"remove", "purge"} {
		out := told(what)
		for _, at := range stays {
			if !tells(out, at) {
				t.Errorf("postrm %s does not say that %s stays:\n%s", what, at, out)
			}
			if _, err := os.Stat(root + at); err != nil {
				t.Errorf("after postrm %s: %v", what, err)
			}
		}
	}
}

// readByUnits is a file in each directory of data of a unit of ours, and the owner's files
// that units read.
func readByUnits() []string {
	var out []string
	for _, text := range dist.Units() {
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			value = strings.TrimPrefix(value, "-")
			switch {
			case name == "StateDirectory" && value != "fleet": // of which purging leaves what was adopted
				out = append(out, "/var/lib/"+value+"/data")
			case name == "EnvironmentFile" && strings.HasPrefix(value, "/etc/") && value != "/etc/environment": // the distribution's
				out = append(out, value)
			}
		}
	}
	return out
}

// tells says whether the text names a path as one that stays, or a directory above it.
func tells(text, at string) bool {
	for ; at != "/"; at = path.Dir(at) {
		if strings.Contains(text, "flotilla: "+at+" stays\n") {
			return true
		}
	}
	return false
}

// The figures of docs/package.md: how exposed systemd takes a daemon to be, at most.
func TestExposure(t *testing.T) {
	for unit, most := range map[string]string{"etcd": "15", "fleet": "34", "flotilla-discovery": "13", "locksmithd": "28"} {
		cmd := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold="+most, "systemd/"+unit+".service")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// machine is the root of a machine on which nothing runs, with the files by their path.
func machine(t *testing.T, files map[string]string) string {
	root := t.TempDir()
	for _, dir := range []string{"usr/bin", "usr/share/man/man1", "usr/lib/systemd/system"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, always := range []struct{ path, text string }{
		{"usr/share/flotilla/links", "etcd usr/bin/etcd flotilla\n" +
			"etcdctl usr/bin/etcdctl flotilla\netcdctl usr/share/man/man1/etcdctl.1.gz flotilla-etcdctl.1.gz\n" +
			"etcdctl usr/share/zsh/site-functions/_etcdctl _flotilla-etcdctl\n"},
		{"usr/lib/flotilla/systemd/etcd.service", "[Service]\nExecStart=/usr/bin/flotilla etcd\n"},
	} {
		put(t, root, always.path, always.text)
	}
	for path, text := range files {
		put(t, root, path, text)
	}
	return root
}

// put writes a file, or with "->" a link.
func put(t *testing.T, root, path, text string) {
	t.Helper()
	at := filepath.Join(root, path)
	err := os.MkdirAll(filepath.Dir(at), 0o755)
	if target, ok := strings.CutPrefix(text, "-> "); ok && err == nil {
		err = os.Symlink(target, at)
	} else if err == nil {
		err = os.WriteFile(at, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// look is the reverse of put; "" if there is nothing.
func look(root, path string) string {
	at := filepath.Join(root, path)
	if target, err := os.Readlink(at); err == nil {
		return "-> " + target
	}
	text, err := os.ReadFile(at)
	if err != nil {
		return ""
	}
	return string(text)
}

const (
	bin    = "usr/bin/"
	units  = "usr/lib/systemd/system/"
	manual = "usr/share/man/man1/etcdctl.1.gz"

	ours   = "[Service]\nExecStart=/usr/bin/flotilla etcd\n"
	older  = "[Service]\nExecStart=/usr/bin/flotilla etcd --older\n"
	theirs = "[Service]\nExecStart=/usr/bin/etcd\n"
)

// A classic name is taken where it is free, left alone where it is not, and given back.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		name, do   string
		have, want map[string]string
	}{
		{"a machine without any", "take", nil, map[string]string{
			bin + "etcd": "-> flotilla", bin + "etcdctl": "-> flotilla", manual: "-> flotilla-etcdctl.1.gz",
			units + "etcd.service": ours, units + "etcd2.service": "-> etcd.service",
			"usr/share/zsh/site-functions/_etcdctl": "", // no such directory: the other format's
		}},
		{"another package has them", "take",
			map[string]string{bin + "etcdctl": "theirs", manual: "theirs", units + "etcd.service": theirs},
			map[string]string{bin + "etcd": "-> flotilla", bin + "etcdctl": "theirs", manual: "theirs", units + "etcd.service": theirs, units + "etcd2.service": ""}},
		{"another package has the program but no manual", "take",
			map[string]string{bin + "etcdctl": "theirs"},
			map[string]string{bin + "etcdctl": "theirs", manual: ""}},
		{"a link of somebody else's that leads nowhere", "take",
			map[string]string{bin + "etcd": "-> /opt/etcd/etcd"},
			map[string]string{bin + "etcd": "-> /opt/etcd/etcd"}},
		{"another package came and took them", "take",
			map[string]string{bin + "etcdctl": "theirs", manual: "-> flotilla-etcdctl.1.gz", units + "etcd.service": theirs, units + "etcd2.service": "-> etcd.service"},
			map[string]string{bin + "etcdctl": "theirs", manual: "", units + "etcd.service": theirs, units + "etcd2.service": ""}},
		{"an upgrade brings a new unit", "take",
			map[string]string{units + "etcd.service": older},
			map[string]string{units + "etcd.service": ours}},
		{"another package's unit where /lib is a directory", "take",
			map[string]string{"lib/systemd/system/etcd.service": theirs},
			map[string]string{units + "etcd.service": ""}},
		{"ours are dropped", "drop",
			map[string]string{bin + "etcd": "-> flotilla", manual: "-> flotilla-etcdctl.1.gz", units + "etcd.service": older, units + "etcd2.service": "-> etcd.service"},
			map[string]string{bin + "etcd": "", manual: "", units + "etcd.service": "", units + "etcd2.service": ""}},
		{"theirs are not dropped", "drop",
			map[string]string{bin + "etcd": "theirs", bin + "etcdctl": "-> /opt/etcdctl", units + "etcd.service": theirs, units + "etcd2.service": "-> etcd.service"},
			map[string]string{bin + "etcd": "theirs", bin + "etcdctl": "-> /opt/etcdctl", units + "etcd.service": theirs, units + "etcd2.service": "-> etcd.service"}},
	} {
		root := machine(t, c.have)
		for range 2 { // the second time changes nothing
			cmd := exec.Command("/bin/sh", "package/names", c.do)
			cmd.Env = append(os.Environ(), "DPKG_ROOT="+root)
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: %v\n%s", c.name, err, out)
			}
			for path, want := range c.want {
				if got := look(root, path); got != want {
					t.Errorf("%s: %s is %q, want %q", c.name, path, got, want)
				}
			}
		}
	}
}

// history makes a repository whose commits are tagged so (none: "") and returns the version
// of each.
func history(t *testing.T, tags []string) []string {
	dir := t.TempDir()
	script, err := os.ReadFile("../scripts/version")
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "scripts/version", string(script))
	run := func(args ...string) string {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b.c", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b.c")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	out := []string{run("sh", "scripts/version")}
	run("git", "init", "-q")
	run("git", "add", "-A")
	for _, tag := range tags {
		run("git", "commit", "-q", "--allow-empty", "-m", "x")
		if tag != "" {
			run("git", "tag", "-a", "-m", tag, tag)
		}
		out = append(out, run("sh", "scripts/version"))
	}
	put(t, dir, "scripts/version", string(script)+"# changed\n")
	return append(out, run("sh", "scripts/version"))
}

// Versions sort as they were made, for dpkg and for rpm.
func TestVersions(t *testing.T) {
	versions := append([]string{"0~"}, history(t, []string{"", "", "", "", "", "", "", "", "", "", "", "v0.1.0-rc.1", "", "v0.1.0-rc.2", "v0.1.0", "", "v0.1.1", "v1.0.0", ""})[1:]...)
	for i, later := range versions[1:] {
		earlier := versions[i]
		if out, err := exec.Command("dpkg", "--compare-versions", earlier, "lt", later).CombinedOutput(); err != nil {
			t.Errorf("dpkg does not take %s for later than %s: %v %s", later, earlier, err, out)
		}
		out, err := exec.Command("rpm", "--eval", `%{lua: print(rpm.vercmp("`+earlier+`", "`+later+`"))}`).Output()
		if err != nil || strings.TrimSpace(string(out)) != "-1" {
			t.Errorf("rpm does not take %s for later than %s: %v %s", later, earlier, err, out)
		}
	}
	if got := history(t, []string{""})[0]; got != "0~unknown" {
		t.Errorf("without git: %s", got)
	}
	t.Logf("%s", strings.Join(versions, " < "))
}
