package fleetd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"flotilla/internal/endpoint"
	"flotilla/internal/fault"
)

// listenUnix makes the API's socket, for its owner and the group fleet: whoever may
// open it may start units, as root. (Where systemd makes the socket, SocketGroup= and
// SocketMode= of fleet.socket say the same.) A socket that a daemon left behind is
// replaced; one that answers is not.
func listenUnix(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fault.Hint(fmt.Errorf("API socket %s: another daemon answers there", path),
			"stop it ('systemctl stop fleet'), or set api_socket to another path")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("API socket: %w", err)
	}
	ln, err := endpoint.ListenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("API socket: %w", err)
	}
	if err := letGroupIn(path); err != nil {
		ln.Close()
		return nil, fmt.Errorf("API socket: %w", err)
	}
	return ln, nil
}

// letGroupIn opens a socket of root's to the group fleet, where there is one.
func letGroupIn(path string) error {
	group := groupID()
	if os.Geteuid() != 0 || group < 0 {
		return nil
	}
	return errors.Join(os.Chown(path, -1, group), os.Chmod(path, 0o660))
}

// listenPeers listens for other machines; nil where that is off.
func listenPeers(address string) (net.Listener, error) {
	if address == "" || address == "off" {
		return nil, nil
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fault.Hint(fmt.Errorf("listen for other machines: %w", err),
			"set peer_listen to a free address, or to off: then logs and statuses of other machines' units cannot be asked for")
	}
	return ln, nil
}

// peerAddr is where other machines find a listener: at its own address, or at the
// machine's where it listens on all. "" while the machine has none.
func peerAddr(bound net.Addr, machineIP string) string {
	host, port, err := net.SplitHostPort(bound.String())
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = machineIP
	}
	if host == "" {
		return ""
	}
	return net.JoinHostPort(host, port)
}
