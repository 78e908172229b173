package fleetd

import (
	"errors"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"

	"flotilla/internal/fleet/access"
)

// peerOf reads SO_PEERCRED and SO_PEERGROUPS (unix(7)): the process that made the
// connection, as it was then.
func peerOf(conn *net.UnixConn) (access.Process, error) {
	var p access.Process
	raw, err := conn.SyscallConn()
	if err != nil {
		return p, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			failed = err
			return
		}
		p.PID, p.UID = int(cred.Pid), int(cred.Uid)
		var groups []int
		if groups, failed = peerGroups(fd); failed == nil {
			p.Groups = append(groups, int(cred.Gid))
		}
	})
	return p, errors.Join(err, failed)
}

// peerGroups are the supplementary groups of a unix socket's other end. The kernel
// says how much room it needs when there is too little.
func peerGroups(fd uintptr) ([]int, error) {
	ids := make([]uint32, 64)
	for {
		size := uint32(len(ids)) * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&ids[0])), uintptr(unsafe.Pointer(&size)), 0)
		n := int(size / 4)
		switch {
		case errno == unix.ERANGE && n > len(ids):
			ids = make([]uint32, n)
		case errno != 0:
			return nil, errno
		default:
			out := make([]int, n)
			for i, id := range ids[:n] {
				out[i] = int(id)
			}
			return out, nil
		}
	}
}
