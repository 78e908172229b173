package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"flotilla/internal/cloudinit/plan"
)

// fake is a machine whose files are below a directory, and whose programs are models of
// the real ones.
type fake struct {
	t        *testing.T
	dir      string
	hostname string
	active   map[string]bool
	enabled  map[string]bool
	loaded   string   // the unit files when systemd has read them last
	log      []string // what was run
	fails    string   // a command that begins so fails
}

func newFake(t *testing.T) (*fake, *Host) {
	f := &fake{t: t, dir: t.TempDir(), active: map[string]bool{}, enabled: map[string]bool{}}
	for name, text := range map[string]string{
		"etc/passwd":   fmt.Sprintf("root:x:%d:%d:root:/root:/bin/bash\nbob:x:%[1]d:%[2]d::/home/bob:/bin/sh\n", os.Geteuid(), os.Getegid()),
		"etc/group":    fmt.Sprintf("root:x:%d:\nadm:x:%[1]d:bob\n", os.Getegid()),
		"etc/shadow":   "root:*:::\nbob:!:::\n",
		"etc/hostname": "blank\n",
		"home/bob/x":   "",
	} {
		file := filepath.Join(f.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := OpenTree(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return f, &Host{Dir: "/", Tree: tree, Cmd: f, Live: true, Boot: "boot1",
		Hostname: func() (string, error) { return f.hostname, nil }}
}

func (f *fake) append(file, text string) {
	file = filepath.Join(f.dir, file)
	old, _ := os.ReadFile(file)
	if err := os.WriteFile(file, append(old, text...), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) Run(_ context.Context, stdin, name string, args ...string) (string, error) {
	line := name + " " + strings.Join(args, " ")
	if f.fails != "" && strings.HasPrefix(line, f.fails) {
		return "", fmt.Errorf("%s: told to fail", line)
	}
	last := args[len(args)-1]
	switch name {
	case "hostnamectl":
		f.hostname = last
		return "", os.WriteFile(filepath.Join(f.dir, "etc/hostname"), []byte(last+"\n"), 0o644)
	case "useradd":
		f.append("etc/passwd", fmt.Sprintf("%s:x:%d:%d::/home/%[1]s:/bin/bash\n", last, os.Geteuid(), os.Getegid()))
		f.append("etc/shadow", last+":*:::\n")
		return "", os.MkdirAll(filepath.Join(f.dir, "home", last), 0o755)
	case "chpasswd":
		return "", f.chpasswd(stdin)
	case "systemctl":
		if args[0] == "show" {
			return f.show(args[slices.Index(args, "--")+1:]), nil
		}
		f.systemctl(args, last)
	}
	f.log = append(f.log, line)
	return "", nil
}

func (f *fake) chpasswd(stdin string) error {
	user, hash, _ := strings.Cut(strings.TrimSpace(stdin), ":")
	file := filepath.Join(f.dir, "etc/shadow")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(string(text), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, user+":") {
			lines[i] = user + ":" + hash + ":::\n"
		}
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "")), 0o644)
}

func (f *fake) systemctl(args []string, unit string) {
	switch verb := args[slices.IndexFunc(args, func(a string) bool { return !strings.HasPrefix(a, "--") })]; verb {
	case "enable", "disable":
		f.enabled[unit] = verb == "enable"
	case "daemon-reload":
		f.loaded = f.unitFiles()
	case "stop":
		f.active[unit] = false
	default:
		if f.loaded != f.unitFiles() {
			f.t.Errorf("%v before systemd has read the files that changed", args)
		}
		f.active[unit] = true
	}
}

func (f *fake) show(units []string) string {
	var blocks []string
	for _, u := range units {
		active, enabled := "inactive", "disabled"
		if f.active[u] {
			active = "active"
		}
		if f.enabled[u] {
			enabled = "enabled"
		}
		blocks = append(blocks, "LoadState=loaded\nActiveState="+active+"\nUnitFileState="+enabled+"\nNeedDaemonReload=no\n")
	}
	return strings.Join(blocks, "\n")
}

// unitFiles is all that systemd reads, as one text.
func (f *fake) unitFiles() string {
	var b strings.Builder
	for _, dir := range []string{"etc/systemd/system", "run/systemd/system"} {
		b.WriteString(treeText(f.t, filepath.Join(f.dir, dir)))
	}
	return b.String()
}

// treeText is a directory tree as a person can compare it: a line for each entry.
func treeText(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) || errors.Is(err, syscall.ENOTDIR) {
				return nil
			}
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case d.IsDir():
			fmt.Fprintf(&b, "%s %s/\n", info.Mode(), rel)
		case info.Mode()&os.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			fmt.Fprintf(&b, "%s -> %s\n", rel, to)
		default:
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s %s %q\n", info.Mode(), rel, text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var _ Commander = (*fake)(nil)

// recorded is a host that keeps its record in its own workspace.
type recorded struct {
	*Host
	store Store
}

func (r recorded) Save(p plan.Record) error { return r.store.Save(p) }
