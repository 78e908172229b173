package machines

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

	"flotilla/internal/fault"
)

// spare is how far a machine's other address is from its first: beyond all machines,
// below the lab's own.
const spare = 100

// other is the address that a machine has after Readdress: 10.10.1.101 for
// 10.10.1.1, and the reverse.
func other(address string) string {
	n, err := strconv.Atoi(strings.TrimPrefix(address, machineNet))
	if err != nil {
		return address
	}
	if n > spare {
		return machineNet + strconv.Itoa(n-spare)
	}
	return machineNet + strconv.Itoa(n+spare)
}

// Readdress gives machines that are off other addresses, as a network does that hands
// them out anew: what on a machine holds its own address (a boot writes it from what
// the network said) has the new one, and names lead there. Whatever else remembers
// the old address, such as a member's data and the list its cluster was founded with,
// is left as it is.
func (l *Lab) Readdress(ctx context.Context, names ...string) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := l.load()
	if err != nil {
		return err
	}
	for _, name := range names {
		i := slices.IndexFunc(s.Machines, func(m Machine) bool { return m.Name == name })
		if i < 0 {
			return l.noMachine(name, s)
		}
		if initOf(l.disk(name).root()) != 0 {
			return fault.Hint(fmt.Errorf("%s is on: a machine gets its address when it boots", name), "flotilla lab kill %s", name)
		}
		old := s.Machines[i].Address
		s.Machines[i].Address = other(old)
		if err := errors.Join(l.replug(ctx, s.Machines[i]), l.rewriteOwn(s.Machines[i], old)); err != nil {
			return fmt.Errorf("give %s another address: %w", name, err)
		}
	}
	for _, m := range s.Machines {
		if err := l.disk(m.Name).write(map[string]string{"/etc/hosts": hosts(s.Machines)}, 0o644); err != nil {
			return fmt.Errorf("tell %s the addresses: %w", m.Name, err)
		}
	}
	return l.save(s)
}

// rewriteOwn puts the machine's address in the place of its old one.
func (l *Lab) rewriteOwn(m Machine, old string) error {
	d := l.disk(m.Name)
	for _, path := range []string{"/etc/default/etcd", "/etc/fleet/fleet.conf", "/etc/environment"} {
		b, err := os.ReadFile(filepath.Join(d.root(), path))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := d.write(map[string]string{path: withOwn(string(b), old, m.Address)}, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// own begins the settings that hold a machine's own address.
var own = []string{"ETCD_LISTEN_", "ETCD_ADVERTISE_", "ETCD_INITIAL_ADVERTISE_", "public_ip=", "COREOS_"}

// withOwn replaces an address in the settings that are the machine's own.
func withOwn(text, old, new string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if slices.ContainsFunc(own, func(prefix string) bool { return strings.HasPrefix(line, prefix) }) {
			line = replaceAddress(line, old, new)
		}
		b.WriteString(line)
	}
	return b.String()
}

// replaceAddress replaces whole addresses: 10.10.1.1 is not the beginning of
// 10.10.1.10.
func replaceAddress(line, old, new string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(line, old)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		if after != "" && (after[0] == '.' || after[0] >= '0' && after[0] <= '9') {
			b.WriteString(old)
		} else {
			b.WriteString(new)
		}
		line = after
	}
}
