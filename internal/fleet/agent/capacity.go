package agent

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// Capacity is what a machine has for units: cores in thousandths of a processor,
// memory in bytes.
//
// Without settings it is what the kernel gives this process: the processors that it
// may run on and the machine's memory, less where a cgroup that it is in allows less,
// as a container's does. A setting of more than 0 counts in place of that. With an
// error memory is 0: not known.
func Capacity(cores, memory int64) (milliCores, bytes int64, err error) {
	return capacity(os.DirFS("/"), runtime.NumCPU(), cores, memory)
}

func capacity(root fs.FS, processors int, cores, memory int64) (milliCores, bytes int64, err error) {
	limits := cgroupLimits(root)
	if cores <= 0 {
		cores = int64(processors) * 1000
		if limits.cores > 0 {
			cores = min(cores, limits.cores)
		}
	}
	if memory <= 0 {
		if memory, err = totalMemory(root); err != nil {
			return cores, 0, err
		}
		if limits.memory > 0 {
			memory = min(memory, limits.memory)
		}
	}
	return cores, memory, nil
}

// totalMemory is the machine's, in bytes.
func totalMemory(root fs.FS) (int64, error) {
	f, err := root.Open("proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("how much memory the machine has: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if kb, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(kb, "kB")), 10, 64)
			return n * 1024, err
		}
	}
	return 0, fmt.Errorf("how much memory the machine has: /proc/meminfo does not say")
}

// limits are those of the cgroups that this process is in; 0: none.
type limits struct{ cores, memory int64 }

// cgroupLimits reads the limits of every cgroup from this process's up to the root:
// the lowest counts. Both layouts are read; what is not there limits nothing. The
// cgroup of a service is left out: its limits are for this daemon, not for units.
func cgroupLimits(root fs.FS) limits {
	var low limits
	data, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(data)) {
		// cgroups(7): ID:CONTROLLERS:PATH
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, dir, _ := strings.Cut(rest, ":")
		for dir = path.Clean("/" + dir); ; dir = path.Dir(dir) {
			if !strings.HasSuffix(dir, ".service") {
				low.lower(readLimits(root, controllers, dir))
			}
			if dir == "/" {
				break
			}
		}
	}
	return low
}

func (l *limits) lower(other limits) {
	if other.cores > 0 && (l.cores == 0 || other.cores < l.cores) {
		l.cores = other.cores
	}
	if other.memory > 0 && (l.memory == 0 || other.memory < l.memory) {
		l.memory = other.memory
	}
}

func readLimits(root fs.FS, controllers, dir string) (l limits) {
	number := func(mount, file string) (first, second int64) {
		data, _ := fs.ReadFile(root, path.Join("sys/fs/cgroup", mount, dir, file))
		words := append(strings.Fields(string(data)), "", "")
		first, _ = strconv.ParseInt(words[0], 10, 64) // "max" is 0: none
		second, _ = strconv.ParseInt(words[1], 10, 64)
		return first, second
	}
	share := func(quota, period int64) int64 {
		if quota <= 0 || period <= 0 {
			return 0
		}
		return max(1, quota*1000/period)
	}
	for controller := range strings.SplitSeq(controllers, ",") {
		switch controller {
		case "": // the unified hierarchy
			l.lower(limits{cores: share(number("", "cpu.max"))})
			memory, _ := number("", "memory.max")
			l.lower(limits{memory: memory})
		case "cpu":
			quota, _ := number(controllers, "cpu.cfs_quota_us")
			period, _ := number(controllers, "cpu.cfs_period_us")
			l.lower(limits{cores: share(quota, period)})
		case "memory":
			memory, _ := number(controllers, "memory.limit_in_bytes")
			l.lower(limits{memory: memory})
		}
	}
	return l
}
