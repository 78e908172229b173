package machines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The machines' network, 10.10.1.0/24. It exists in the lab's own namespace alone;
// .254 is the lab's end of it, from where a person can probe the machines.
const (
	machineNet = "10.10.1."
	labAddress = "10.10.1.254"
	netnsDir   = "/run/netns" // where ip-netns(8) keeps namespaces
	maxMachine = 50
)

// Namespace is the network namespace that holds the lab's bridge: probe the machines
// from there ("ip netns exec").
func (l *Lab) Namespace() string { return mark + l.prefix }

func (l *Lab) machineNamespace(name string) string { return mark + name }

// NamespaceFile is what to open and hand to setns(2) to be on a machine's network: its
// loopback is the machine's. It stays the same while the machine is off.
func (l *Lab) NamespaceFile(machine string) string {
	return filepath.Join(netnsDir, l.machineNamespace(machine))
}

// makeNetwork makes the lab's namespace with a bridge in it. It is the machines' way out,
// by which they know which address is theirs, and leads nowhere: it forwards so that
// what is sent there is refused at once, not lost.
func (l *Lab) makeNetwork(ctx context.Context) error {
	ns := l.Namespace()
	err := ipAll(ctx,
		"netns add "+ns,
		"-n "+ns+" link set lo up",
		"-n "+ns+" link add lab type bridge",
		"-n "+ns+" addr add "+labAddress+"/24 dev lab",
		"-n "+ns+" link set lab up",
	)
	if err != nil {
		return err
	}
	_, err = command(ctx, "ip", "netns", "exec", ns, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	return err
}

// wayOut gives the machine its default route.
func (l *Lab) wayOut(machine string) string {
	return "-n " + l.machineNamespace(machine) + " route replace default via " + labAddress
}

// plug gives the machine a namespace with an eth0 whose other end, called like the
// machine, is at the bridge.
func (l *Lab) plug(ctx context.Context, m Machine) error {
	lab, ns := l.Namespace(), l.machineNamespace(m.Name)
	return ipAll(ctx,
		"netns add "+ns,
		"-n "+ns+" link set lo up",
		"-n "+lab+" link add "+m.Name+" type veth peer name eth0 netns "+ns,
		"-n "+lab+" link set "+m.Name+" master lab up",
		"-n "+ns+" addr add "+m.Address+"/24 dev eth0",
		"-n "+ns+" link set eth0 up",
		l.wayOut(m.Name),
	)
}

// replug gives the machine's eth0 another address in place of the one it had.
func (l *Lab) replug(ctx context.Context, m Machine) error {
	ns := l.machineNamespace(m.Name)
	return ipAll(ctx,
		"-n "+ns+" addr flush dev eth0",
		"-n "+ns+" addr add "+m.Address+"/24 dev eth0",
		l.wayOut(m.Name), // it went with the address
	)
}

// setLink puts the machine's end at the bridge up or down.
func (l *Lab) setLink(ctx context.Context, machine, state string) error {
	return ipAll(ctx, "-n "+l.Namespace()+" link set "+machine+" "+state)
}

// cutOff returns the machines whose end at the bridge is down.
func (l *Lab) cutOff(ctx context.Context) (map[string]bool, error) {
	out, err := command(ctx, "ip", "-j", "-n", l.Namespace(), "link", "show")
	if err != nil {
		return nil, err
	}
	var links []struct {
		Name  string   `json:"ifname"`
		Flags []string `json:"flags"`
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		return nil, fmt.Errorf("read what ip(8) says of the lab's links: %w", err)
	}
	down := map[string]bool{}
	for _, link := range links {
		down[link.Name] = !slices.Contains(link.Flags, "UP")
	}
	return down, nil
}

// removeNamespace deletes a namespace and the links in it; one that does not exist
// is no error.
func removeNamespace(ctx context.Context, name string) error {
	if _, err := os.Lstat(filepath.Join(netnsDir, name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return ipAll(ctx, "netns delete "+name)
}

// ipAll runs ip(8) once for each line of arguments and stops at the first failure.
func ipAll(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if _, err := command(ctx, "ip", strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}
