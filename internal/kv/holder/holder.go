// Package holder finds out which process holds a port or a lock, to make an error
// message helpful. It looks in /proc; every failure to find out is the empty
// answer.
package holder

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// OfPort names the process that listens on the address, such as
// "process 1234 (etcd)", "" if it cannot be seen.
func OfPort(hostport string) string {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return ""
	}
	want, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return ""
	}
	ip, _ := netip.ParseAddr(host) // the zero address matches any
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		inode := listenerInode(f, ip, uint16(want))
		f.Close()
		if inode != "" {
			return Process(socketOwner("socket:[" + inode + "]"))
		}
	}
	return ""
}

// listenerInode finds the socket that listens on ip:port in a table of the form of
// /proc/net/tcp (proc(5)): second column local address, fourth the state (0A is
// LISTEN), tenth the inode.
func listenerInode(table io.Reader, ip netip.Addr, port uint16) string {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != "0A" {
			continue
		}
		addr, ok := parseProcAddr(f[1])
		if !ok || addr.Port() != port {
			continue
		}
		at := addr.Addr().Unmap()
		if !ip.IsValid() || ip.IsUnspecified() || at.IsUnspecified() || at == ip.Unmap() {
			return f[9]
		}
	}
	return ""
}

// parseProcAddr reads "0100007F:094B": the address in words of four bytes, each
// in the machine's (here: little-endian) order, and the port.
func parseProcAddr(s string) (netip.AddrPort, bool) {
	a, p, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(a)
	port, perr := strconv.ParseUint(p, 16, 16)
	if !ok || err != nil || perr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), ok
}

// socketOwner finds the process that has the link open, 0 if it cannot be seen.
func socketOwner(link string) int {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == link {
			pid, _ := strconv.Atoi(strings.Split(fd, "/")[2])
			return pid
		}
	}
	return 0
}

// OfLock names the process that holds a lock on the file, as OfPort.
func OfLock(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return ""
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer f.Close()
	return Process(lockPID(f, sys.Ino))
}

// lockPID finds the owner of a lock on the inode in a table of the form of
// /proc/locks (proc(5)): fifth column the process, sixth device and inode.
func lockPID(table io.Reader, inode uint64) int {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[1] == "->" { // "->": one that waits for it
			continue
		}
		if strings.HasSuffix(f[5], ":"+strconv.FormatUint(inode, 10)) {
			pid, _ := strconv.Atoi(f[4])
			return pid
		}
	}
	return 0
}

// Process is "process 1234 (name)", "" for none.
func Process(pid int) string {
	if pid <= 0 {
		return ""
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(string(name)))
}

// By is " by WHO" for an error text, "" where nobody can be seen.
func By(who string) string {
	if who == "" {
		return ""
	}
	return " by " + who
}
