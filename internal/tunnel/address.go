package tunnel

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"flotilla/internal/fault"
)

// DefaultPort is where SSH servers listen.
const DefaultPort = 22

// Address names an SSH server as people type it.
type Address struct {
	User string // "" if it does not say
	Host string // name, IPv4 or IPv6 address; never empty, without brackets
	Port int    // 0 if it does not say
}

// ParseAddress reads [USER@]HOST[:PORT]. An IPv6 address may stand without brackets
// if no port follows it.
func ParseAddress(s string) (Address, error) {
	var a Address
	host := s
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		a.User, host = s[:i], s[i+1:]
		if a.User == "" {
			return Address{}, badAddress(s, "nothing before the @")
		}
	}
	if why := a.parseHost(host); why != "" {
		return Address{}, badAddress(s, why)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return Address{}, badAddress(s, "it has blanks or unprintable characters")
	}
	return a, nil
}

// parseHost reads HOST[:PORT] and says why it cannot.
func (a *Address) parseHost(s string) (why string) {
	if ip, err := netip.ParseAddr(s); err == nil {
		a.Host = ip.String()
		return ""
	}
	host, port := s, ""
	if strings.ContainsAny(s, ":[]") {
		var err error
		inner, bracketed := strings.CutPrefix(s, "[")
		if inner, closed := strings.CutSuffix(inner, "]"); bracketed && closed {
			host = inner
		} else if host, port, err = net.SplitHostPort(s); err != nil {
			return "it is neither a host nor a host, a colon and a port"
		} else if a.Port, why = parsePort(port); why != "" {
			return why
		}
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	} else if strings.ContainsAny(host, ":[]") {
		return fmt.Sprintf("%q is no IPv6 address", host)
	}
	if host == "" {
		return "it names no host"
	}
	if strings.ContainsAny(host, "/@") {
		return fmt.Sprintf("%q is no host's name", host)
	}
	a.Host = host
	return ""
}

func parsePort(s string) (port int, why string) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Sprintf("port %q is not a number from 1 to 65535", s)
	}
	return int(n), ""
}

func badAddress(s, why string) error {
	return fault.Hint(fmt.Errorf("ssh host %q: %s", s, why), "write HOST, HOST:PORT or [IPv6]:PORT, such as 10.10.1.1:22")
}

// String is the address in the form that ParseAddress reads.
func (a Address) String() string {
	s := a.Host
	if a.Port != 0 {
		s = net.JoinHostPort(a.Host, strconv.Itoa(a.Port))
	}
	if a.User != "" {
		s = a.User + "@" + s
	}
	return s
}
