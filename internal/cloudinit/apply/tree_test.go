package apply

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flotilla/internal/cloudinit/plan"
)

func openTree(t *testing.T, links map[string]string) (string, *Tree) {
	t.Helper()
	dir := t.TempDir()
	for name, target := range links {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, file); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := OpenTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return dir, tree
}

// Links of an image lead to the image, wherever they say.
func TestLinksStayInTheTree(t *testing.T) {
	dir, tree := openTree(t, map[string]string{
		"abs": "/real", "up": "../../../../real", "here/rel": "../real", "a": "b", "b": "a",
	})
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/abs/1", "/up/2", "/here/rel/3", "/../../real/4", "/new/er/../../real/5"} {
		if err := tree.Write(p, []byte(p), 0o600, me()); err != nil {
			t.Error(err)
			continue
		}
		got, err := os.ReadFile(filepath.Join(dir, "real", filepath.Base(p)))
		if err != nil || string(got) != p {
			t.Errorf("%s: %q, %v", p, got, err)
		}
		if got, err := tree.ReadFile(p); err != nil || string(got) != p {
			t.Errorf("read %s: %q, %v", p, got, err)
		}
	}
	if err := tree.Write("/a/x", nil, 0o600, me()); !errors.Is(err, unix.ELOOP) {
		t.Errorf("loop: %v", err)
	}
	if _, err := tree.ReadFile("/a"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("read a loop: %v", err)
	}
}

// A link that a user has put into his directory is not followed by root.
func TestForeignLinksAreNotFollowed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("without root there are no links of others to make: only root can be bent")
		return
	}
	dir, tree := openTree(t, map[string]string{"home/bob/.ssh": "/etc", "home/bob/file": "/etc/secret"})
	const bob = 12345
	for _, l := range []string{"home/bob/.ssh", "home/bob/file"} {
		if err := os.Lchown(filepath.Join(dir, l), bob, bob); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tree.Write("/home/bob/.ssh/authorized_keys", []byte("x"), 0o600, me()); !errors.Is(err, errForeignLink) {
		t.Errorf("write through a user's link: %v", err)
	}
	if _, err := tree.ReadFile("/home/bob/file"); !errors.Is(err, errForeignLink) {
		t.Errorf("read through a user's link: %v", err)
	}
	if err := tree.Mkdir("/home/bob/.ssh", 0o700, Owner{bob, bob}); err == nil {
		t.Error("a link is taken for the directory")
	}
	if got := treeText(t, filepath.Join(dir, "etc")); strings.Count(got, "\n") > 1 {
		t.Errorf("something came to be in /etc:\n%s", got)
	}
}

// The file is there whole, with its mode, in place of what was there; a temporary file
// of a write that was cut goes.
func TestWriteReplaces(t *testing.T) {
	dir, tree := openTree(t, map[string]string{"etc/x": "/somewhere"})
	if err := os.WriteFile(filepath.Join(dir, "etc", tempName("x")), []byte("half a f"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := tree.Write("/etc/x", []byte("new"), 0o4755, me()); err != nil {
		t.Fatal(err)
	}
	if got, want := treeText(t, filepath.Join(dir, "etc")), "drwxr-xr-x ./\nurwxr-xr-x x \"new\"\n"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if err := tree.Symlink("/dev/null", "/etc/x"); err != nil {
		t.Fatal(err)
	}
	if to, err := tree.Readlink("/etc/x"); err != nil || to != "/dev/null" {
		t.Error(to, err)
	}
	for range 2 {
		if err := tree.Remove("/etc/x"); err != nil {
			t.Error(err)
		}
	}
	if err := tree.Write("/etc", nil, 0o644, me()); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a file in place of a directory: %v", err)
	}
	if err := tree.Write("/etc/"+strings.Repeat("n", maxName), nil, 0o644, me()); err != nil {
		t.Errorf("the longest name: %v", err)
	}
}

func TestReadRegularFilesAlone(t *testing.T) {
	dir, tree := openTree(t, nil)
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.ReadFile("/pipe"); err == nil || !strings.Contains(err.Error(), "is no regular file") {
		t.Errorf("a pipe: %v", err)
	}
	if _, err := tree.ReadFile("/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
}

func TestOwners(t *testing.T) {
	a := Accounts{map[string]plan.Account{"bob": {UID: 7, GID: 8}}, map[string]uint32{"staff": 50}}
	for text, want := range map[string]Owner{
		"": {1, 2}, "bob": {7, 2}, "bob:staff": {7, 50}, "bob:": {7, 8}, ":staff": {1, 50}, "3:4": {3, 4},
	} {
		if got, err := a.Owner(text, Owner{1, 2}); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"eve", "bob:eve"} {
		if _, err := a.Owner(text, Owner{}); err == nil || !strings.Contains(err.Error(), `"eve"`) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A user's keys go into sets, and authorized_keys keeps what is the user's own. A link
// in its place is an error.
func TestKeys(t *testing.T) {
	f, h := newFake(t)
	ssh := filepath.Join(f.dir, "home/bob/.ssh")
	if err := os.MkdirAll(ssh, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ssh, authFile), []byte("own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []plan.Step{{Set: "a", Keys: []string{"one", "two"}}, {Set: "b", Keys: []string{"two"}}, {Set: "a", Keys: []string{"three"}}} {
		s.Kind, s.Target, s.Mode = plan.Keys, "bob", 0o600
		if err := h.Do(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	want := "drwx------ ./\n-rw------- authorized_keys \"own\\ntwo\\nthree\\n\"\ndrwx------ authorized_keys.d/\n" +
		"-rw------- authorized_keys.d/a \"three\\n\"\n-rw------- authorized_keys.d/b \"two\\n\"\n"
	if got := treeText(t, ssh); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	file := filepath.Join(ssh, authFile)
	if err := errors.Join(os.Remove(file), os.Symlink("/etc/shadow", file)); err != nil {
		t.Fatal(err)
	}
	if err := h.Do(t.Context(), plan.Step{Kind: plan.Keys, Target: "bob", Set: "a", Keys: []string{"x"}}); !errors.Is(err, unix.ELOOP) {
		t.Errorf("through a link: %v", err)
	}
}
