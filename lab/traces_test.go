package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flotilla/internal/lab/machines"
)

// secondLab is a lab beside the scenarios' own.
func secondLab(t *testing.T) *machines.Lab {
	t.Helper()
	host, err := machines.Inspect()
	if err != nil {
		t.Fatal(err)
	}
	l, err := machines.New(*prefix+"x", host, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// tracesOf lists what is left of a lab: files, mounts, namespaces, cgroups.
func tracesOf(prefix string) string {
	var left []string
	for _, pattern := range []string{"/run/flotilla-lab/" + prefix + "*", "/run/netns/flotilla-lab-" + prefix + "*", "/sys/fs/cgroup/flotilla-lab-" + prefix + "*", "/sys/fs/cgroup/*/flotilla-lab-" + prefix + "*"} {
		found, _ := filepath.Glob(pattern) // the patterns are well formed
		left = append(left, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/run/flotilla-lab/"+prefix+"/") {
			left = append(left, strings.TrimSpace(line))
		}
	}
	return strings.Join(left, "\n")
}
