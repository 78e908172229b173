package fleetd

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/registry"
)

var machineIDFormat = regexp.MustCompile(`^[0-9a-f]{32}$`)

const machineIDPath = "/etc/machine-id"

// machineID is the id that the configuration gives, else the machine's own.
func machineID(configured string) (string, error) {
	id, from := configured, "machine_id"
	if id == "" {
		b, err := os.ReadFile(machineIDPath)
		if err != nil {
			return "", fault.Hint(fmt.Errorf("machine id: %w", err), "run 'systemd-machine-id-setup', or set machine_id")
		}
		id, from = strings.TrimSpace(string(b)), machineIDPath
	}
	if !machineIDFormat.MatchString(id) {
		return "", fault.Hint(fmt.Errorf("machine id: %s holds %q, not 32 hexadecimal digits", from, id),
			"run 'systemd-machine-id-setup', or set machine_id")
	}
	return id, nil
}

func hostname(configured string) string {
	if configured != "" {
		return configured
	}
	name, err := os.Hostname()
	if err != nil {
		return "" // it is for people to read
	}
	return name
}

func (d *Daemon) inState(name string) string { return filepath.Join(d.cfg.StateDir, name) }

func makeDirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fault.Hint(err, "fleetd runs as root, or with state_dir and run_dir where it may write")
		}
	}
	return nil
}

// instanceToken tells this machine from another with the same id. It is made at
// the first start.
func instanceToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(b))) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("instance token: %w", err)
	}
	token := rand.Text()
	if err := atomicfile.Write(path, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("instance token: %w", err)
	}
	return token, nil
}

// address is the configured address, else that of the interface that the default
// route goes out of; "" if there is none.
func (d *Daemon) address() string {
	if d.cfg.PublicIP != "" {
		return d.cfg.PublicIP
	}
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return ""
	}
	defer f.Close()
	iface, err := net.InterfaceByName(defaultInterface(f))
	if err != nil {
		return ""
	}
	addrs, err := iface.Addrs()
	if err != nil {
		return ""
	}
	return firstGlobal(addrs)
}

// defaultInterface reads the kernel's IPv4 routes (proc(5), /proc/net/route) and
// returns the interface of the default route with the smallest metric.
func defaultInterface(routes io.Reader) string {
	best, metric := "", ""
	for scan := bufio.NewScanner(routes); scan.Scan(); {
		f := strings.Fields(scan.Text())
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		// Metrics are compared as numbers: by length, then digit by digit.
		if best == "" || len(f[6]) < len(metric) || len(f[6]) == len(metric) && f[6] < metric {
			best, metric = f[0], f[6]
		}
	}
	return best
}

func firstGlobal(addrs []net.Addr) string {
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}

func samePresence(a, b registry.Presence) bool {
	return a.IP == b.IP && a.PeerAddr == b.PeerAddr && a.Cores == b.Cores && a.Memory == b.Memory && maps.Equal(a.Metadata, b.Metadata)
}
