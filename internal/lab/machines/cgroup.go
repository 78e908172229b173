package machines

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cgroup is one mounted hierarchy: a controller of version 1, or version 2.
type cgroup struct {
	Path string
	V2   bool
}

// cgroups finds the hierarchies in the text of /proc/self/mountinfo (proc(5)). One
// that is mounted twice counts once, where it was mounted first.
func cgroups(mountinfo string) []cgroup {
	var out []cgroup
	seen := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 1 || seen[left[2]] {
			continue
		}
		if right[0] == "cgroup" || right[0] == "cgroup2" {
			seen[left[2]] = true // major:minor names the hierarchy
			out = append(out, cgroup{Path: left[4], V2: right[0] == "cgroup2"})
		}
	}
	return out
}

// makeCgroups makes a cgroup called name in every hierarchy and returns the files
// that a process writes its pid to, to be in them.
//
// A machine must not share any of them: systemd names cgroups by unit, so with a
// shared parent the same unit on two machines is one cgroup, and stopping it on one
// kills it on the other. Where systemd is PID 1 it makes a scope for each machine
// and this is not called.
func makeCgroups(hierarchies []cgroup, name string) ([]string, error) {
	var out []string
	for _, h := range hierarchies {
		dir := filepath.Join(h.Path, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make cgroup: %w", err)
		}
		if err := inheritCpuset(h.Path, dir); err != nil {
			return nil, fmt.Errorf("make cgroup %s: %w", dir, err)
		}
		out = append(out, filepath.Join(dir, "cgroup.procs"))
	}
	return out, nil
}

// inheritCpuset gives a version 1 cpuset its parent's processors and memory: a new
// one has none, and nothing can run in it. Other hierarchies have no such files.
func inheritCpuset(parent, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the named cgroup and those below it from every hierarchy.
// What has just been killed may take a moment to leave.
func removeCgroups(ctx context.Context, hierarchies []cgroup, name string) error {
	for _, h := range hierarchies {
		dir := filepath.Join(h.Path, name)
		var last error
		err := until(ctx, 5*time.Second, func(context.Context) bool {
			last = removeTree(dir)
			return last == nil
		})
		if err != nil {
			return fmt.Errorf("remove cgroup: %w", last)
		}
	}
	return nil
}

// removeTree removes a cgroup directory and all below, deepest first. The files in
// it are the kernel's and go with it.
func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// payload returns the directory of the version 2 hierarchy that holds a machine's
// processes and not its systemd-nspawn, given the text of its PID 1's
// /proc/PID/cgroup. systemd-nspawn calls it "payload".
func payload(hierarchies []cgroup, procCgroup string) (string, error) {
	i := slices.IndexFunc(hierarchies, func(h cgroup) bool { return h.V2 })
	if i < 0 {
		return "", errors.New("no version 2 cgroup hierarchy is mounted")
	}
	for line := range strings.Lines(procCgroup) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		if before, _, ok := strings.Cut(path+"/", "/payload/"); ok {
			return filepath.Join(hierarchies[i].Path, before, "payload"), nil
		}
	}
	return "", errors.New("the machine has no payload cgroup")
}
