package faults

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/lab/machines"
)

// commandLimit is how long a command in a machine may take: some are slowed down on
// purpose, and this machine may have other work.
const commandLimit = time.Minute

// lever is how a fault begins and ends on one machine. end may be nil.
type lever struct {
	begin, end func(ctx context.Context, s *site, m machines.Machine) error
}

const (
	pipeRate = "256kbit" // a third of what a leader sends in these runs
	cpuShare = 5000      // µs of every 100,000
	diskRate = 10        // writes a second
)

var levers = map[Kind]lever{
	Crash:  {begin: in("systemctl", "kill", "--signal=KILL", "etcd")},
	Down:   {begin: in("sh", "-c", "systemctl kill --signal=KILL etcd; systemctl stop etcd"), end: in("systemctl", "start", "--no-block", "etcd")},
	Pause:  {begin: in("systemctl", "kill", "--signal=STOP", "etcd"), end: in("systemctl", "kill", "--signal=CONT", "etcd")},
	Freeze: {begin: onLab(freeze), end: onLab(thaw)},
	Power:  {begin: onLab((*machines.Lab).Kill), end: onLab((*machines.Lab).Boot)},
	Cut:    {begin: onLab((*machines.Lab).Cut), end: onLab((*machines.Lab).Heal)},
	Split:  {begin: split, end: unfilter},
	Deaf:   {begin: filter(`chain in { type filter hook input priority 0; iifname "eth0" drop; }`), end: unfilter},
	Mute:   {begin: filter(`chain out { type filter hook output priority 0; oifname "eth0" drop; }`), end: unfilter},
	Loss: {begin: filter(`chain in { type filter hook input priority 0; iifname "eth0" numgen random mod 5 == 0 drop; }
		chain out { type filter hook output priority 0; oifname "eth0" numgen random mod 5 == 0 drop; }`), end: unfilter},
	SlowNet:  {begin: in("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", pipeRate, "burst", "8kb", "latency", "400ms"), end: in("tc", "qdisc", "del", "dev", "eth0", "root")},
	SlowCPU:  {begin: slowCPU, end: fullCPU},
	SlowDisk: {begin: slowDisk, end: fullDisk},
}

// in runs a command in the machine.
func in(args ...string) func(context.Context, *site, machines.Machine) error {
	return func(ctx context.Context, s *site, m machines.Machine) error {
		_, err := s.lab.Output(ctx, m.Name, args...)
		return err
	}
}

func onLab(do func(*machines.Lab, context.Context, string) error) func(context.Context, *site, machines.Machine) error {
	return func(ctx context.Context, s *site, m machines.Machine) error { return do(s.lab, ctx, m.Name) }
}

func freeze(l *machines.Lab, _ context.Context, m string) error { return l.Freeze(m) }
func thaw(l *machines.Lab, _ context.Context, m string) error   { return l.Thaw(m) }

// filter drops packets by rules of nft(8), in a table of our own.
func filter(chains string) func(context.Context, *site, machines.Machine) error {
	return in("nft", "table inet flotilla_faults {\n"+chains+"\n}")
}

var unfilter = in("nft", "delete table inet flotilla_faults")

// split keeps the machine and the next one apart, which both still hear the rest.
func split(ctx context.Context, s *site, m machines.Machine) error {
	other := s.machines[(slices.Index(s.machines, m)+1)%len(s.machines)].Address
	return filter(fmt.Sprintf(`chain in { type filter hook input priority 0; ip saddr %s drop; }
		chain out { type filter hook output priority 0; ip daddr %s drop; }`, other, other))(ctx, s, m)
}

func slowCPU(ctx context.Context, s *site, m machines.Machine) error {
	return s.limit(ctx, m, "cpu", limits{v1: "cpu.cfs_quota_us", v1Value: strconv.Itoa(cpuShare), v2: "cpu.max", v2Value: fmt.Sprintf("%d 100000", cpuShare)})
}

func fullCPU(ctx context.Context, s *site, m machines.Machine) error {
	return s.limit(ctx, m, "cpu", limits{v1: "cpu.cfs_quota_us", v1Value: "-1", v2: "cpu.max", v2Value: "max"})
}

func slowDisk(ctx context.Context, s *site, m machines.Machine) error {
	d := s.disks[m.Name].number
	return s.limit(ctx, m, "blkio", limits{
		v1: "blkio.throttle.write_iops_device", v1Value: fmt.Sprintf("%s %d", d, diskRate),
		v2: "io.max", v2Value: fmt.Sprintf("%s wiops=%d", d, diskRate)})
}

func fullDisk(ctx context.Context, s *site, m machines.Machine) error {
	d := s.disks[m.Name].number
	return s.limit(ctx, m, "blkio", limits{v1: "blkio.throttle.write_iops_device", v1Value: d + " 0", v2: "io.max", v2Value: d + " wiops=max"})
}

// limits is a limit as the two versions of cgroups are told of it.
type limits struct{ v1, v1Value, v2, v2Value string }

// limit writes a limit for all processes of a machine.
func (s *site) limit(ctx context.Context, m machines.Machine, controller string, l limits) error {
	all, err := s.lab.Status(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(st machines.Status) bool { return st.Name == m.Name })
	if i < 0 || all[i].PID == 0 {
		return fmt.Errorf("%s is off", m.Name)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", all[i].PID))
	if err != nil {
		return err
	}
	v1, v2 := cgroupsOf(string(text), controller)
	if v1 != "" {
		return os.WriteFile(filepath.Join("/sys/fs/cgroup", controller, v1, l.v1), []byte(l.v1Value), 0)
	}
	err = os.WriteFile(filepath.Join("/sys/fs/cgroup", v2, l.v2), []byte(l.v2Value), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no cgroup controller %s for %s: %w", controller, m.Name, err)
	}
	return err
}

// cgroupsOf finds a machine's cgroup of a controller in its PID 1's /proc/PID/cgroup:
// that of version 1 (cgroups(7)), "" if it is not mounted, and that of version 2, in
// which PID 1 is alone in init.scope.
func cgroupsOf(text, controller string) (v1, v2 string) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[0] == "0" && f[1] == "":
			v2 = strings.TrimSuffix(f[2], "/init.scope")
		case slices.Contains(strings.Split(f[1], ","), controller):
			v1 = f[2]
		}
	}
	return v1, v2
}
