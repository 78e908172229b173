package fleetd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"flotilla/internal/endpoint"
	"flotilla/internal/fault"
)

// listenUnix makes the API's socket, for its owner alone: whoever may open it may
// start units, as root. (Who is to be let in besides is said where systemd makes the
// socket: SocketGroup= and SocketMode= of fleet.socket.) A socket that a daemon left
// behind is replaced; one that answers is not.
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
	return ln, nil
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
