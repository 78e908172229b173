package supervisor

import (
	"bytes"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/unitfile"
)

// specifiers is the table of systemd.unit(5), "Specifiers", for one unit.
func specifiers(name string) func(byte) (string, bool) {
	prefix, instance, _ := unitfile.Split(name)
	stem := name[:max(0, strings.LastIndexByte(name, '.'))]
	last := prefix[strings.LastIndexByte(prefix, '-')+1:]
	return func(c byte) (string, bool) {
		switch c {
		case 'n':
			return name, true
		case 'N':
			return stem, true
		case 'p':
			return prefix, true
		case 'P':
			return unescape(prefix), true
		case 'i':
			return instance, true
		case 'I':
			return unescape(instance), true
		case 'j':
			return last, true
		case 'J':
			return unescape(last), true
		case 'f':
			if strings.Contains(name, "@") {
				return "/" + strings.TrimPrefix(unescape(instance), "/"), true
			}
			return "/" + strings.TrimPrefix(unescape(prefix), "/"), true
		}
		return machineSpecifier(c)
	}
}

func machineSpecifier(c byte) (string, bool) {
	switch c {
	case 'H':
		h, err := os.Hostname()
		return h, err == nil
	case 'l':
		h, err := os.Hostname()
		h, _, _ = strings.Cut(h, ".")
		return h, err == nil
	case 'm':
		return machineID(), true
	case 'b':
		return strings.ReplaceAll(bootID(), "-", ""), true
	case 'v':
		var u unix.Utsname
		err := unix.Uname(&u)
		release, _, _ := bytes.Cut(u.Release[:], []byte{0})
		return string(release), err == nil
	case 'a':
		return architecture(), true
	case 'u', 'U', 'g', 'G', 'h', 's':
		return userSpecifier(c)
	case 't', 'S', 'C', 'L', 'E', 'T', 'V':
		return directorySpecifier(c), true
	}
	return "", false
}

// architecture is uname's machine in systemd's words (%a).
func architecture() string {
	if runtime.GOARCH == "amd64" {
		return "x86-64"
	}
	return runtime.GOARCH
}

func userSpecifier(c byte) (string, bool) {
	switch c {
	case 'U':
		return strconv.Itoa(os.Getuid()), true
	case 'G':
		return strconv.Itoa(os.Getgid()), true
	case 'h':
		return homeDir(), true
	}
	u, err := user.Current()
	if err != nil {
		return "", false
	}
	switch c {
	case 'g':
		g, err := user.LookupGroupId(u.Gid)
		if err != nil {
			return "", false
		}
		return g.Name, true
	case 's':
		return loginShell(u.Username), true
	}
	return u.Username, true
}

// directorySpecifier: root has the directories of the system, anybody else those
// of the user.
func directorySpecifier(c byte) string {
	temp := func(def string) string {
		for _, name := range []string{"TMPDIR", "TEMP", "TMP"} {
			if v := os.Getenv(name); filepath.IsAbs(v) {
				return v
			}
		}
		return def
	}
	switch c {
	case 'T':
		return temp("/tmp")
	case 'V':
		return temp("/var/tmp")
	}
	if os.Geteuid() == 0 {
		return map[byte]string{'t': "/run", 'S': "/var/lib", 'C': "/var/cache", 'L': "/var/log", 'E': "/etc"}[c]
	}
	xdg := func(name, below string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return filepath.Join(homeDir(), below)
	}
	switch c {
	case 't':
		if v := os.Getenv("XDG_RUNTIME_DIR"); v != "" {
			return v
		}
		return "/run/user/" + strconv.Itoa(os.Getuid())
	case 'C':
		return xdg("XDG_CACHE_HOME", ".cache")
	case 'L':
		return filepath.Join(xdg("XDG_CONFIG_HOME", ".config"), "log")
	}
	// In systemd 252 a user's state directory is the one for configuration.
	return xdg("XDG_CONFIG_HOME", ".config")
}

// unescape undoes systemd-escape(1): "-" is "/", \xNN a byte.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '-':
			b.WriteByte('/')
		case s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x':
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func machineID() string {
	data, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// bootID tells this boot from all others.
var bootID = sync.OnceValue(func() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
})

// dockerAnswers reports whether somebody listens where the Docker client looks.
func dockerAnswers() bool {
	const soon = time.Second
	addr := "/var/run/docker.sock"
	if h, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); ok {
		addr = h
	}
	conn, err := net.DialTimeout("unix", addr, soon)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
