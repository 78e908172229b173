package agent

import (
	"testing"
	"testing/fstest"
)

func TestCapacity(t *testing.T) {
	const gib = 1 << 30
	machine := map[string]string{"proc/meminfo": "MemTotal:        8388608 kB\nMemFree: 1 kB\n"} // 8 GiB
	for _, c := range []struct {
		name                  string
		files                 map[string]string
		cores, memory         int64
		wantCores, wantMemory int64
	}{
		{"a machine", map[string]string{"proc/self/cgroup": "0::/system.slice/fleet.service\n", "sys/fs/cgroup/system.slice/fleet.service/memory.max": "1048576\n", "sys/fs/cgroup/system.slice/memory.max": "max\n"}, 0, 0, 4000, 8 * gib},
		{"settings count", nil, 1500, 2 * gib, 1500, 2 * gib},
		{"a container", map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n", "sys/fs/cgroup/memory.max": "1073741824\n",
		}, 0, 0, 1500, gib},
		{"a limit further up", map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1073741824\n", "sys/fs/cgroup/a/b/memory.max": "2147483648\n",
			"sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
		}, 0, 0, 4000, gib},
		{"the old layout", map[string]string{
			"proc/self/cgroup": "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1\n",
			"sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us":  "50000\n",
			"sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
			"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes":  "1073741824\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":           "9223372036854771712\n",
		}, 0, 0, 500, gib},
	} {
		root := fstest.MapFS{}
		for _, files := range []map[string]string{machine, c.files} {
			for name, data := range files {
				root[name] = &fstest.MapFile{Data: []byte(data)}
			}
		}
		cores, memory, err := capacity(root, 4, c.cores, c.memory)
		if err != nil || cores != c.wantCores || memory != c.wantMemory {
			t.Errorf("%s: %d, %d, %v; want %d, %d", c.name, cores, memory, err, c.wantCores, c.wantMemory)
		}
	}
	if cores, memory, err := Capacity(0, 0); err != nil || cores < 1 || memory < 1<<20 {
		t.Errorf("here: %d, %d, %v", cores, memory, err)
	}
}
