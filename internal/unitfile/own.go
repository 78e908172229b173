package unitfile

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ParseCores reads a number of processors, such as 2 or 0.5, in thousandths.
func ParseCores(s string) (milli int64, err error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f > 0 && f <= 1e6) {
		return 0, fmt.Errorf("%q is no number of processors, such as 2 or 0.5", s)
	}
	return max(1, int64(f*1000+0.5)), nil
}

// ParseQuota reads a CPUQuota= (systemd.resource-control(5)): a percentage of one
// processor, in thousandths of a processor.
func ParseQuota(s string) (milli int64, err error) {
	number, ok := strings.CutSuffix(strings.TrimSpace(s), "%")
	f, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(f > 0 && f <= 1e8) {
		return 0, fmt.Errorf("%q is no percentage of a processor", s)
	}
	return max(1, int64(f*10+0.5)), nil
}

// ParseCount reads a whole number of at least 1.
func ParseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is no whole number of at least 1", s)
	}
	return n, nil
}

// ParseMoveAfter reads a time span, or "never", which is -1.
func ParseMoveAfter(s string) (time.Duration, error) {
	if s == "never" || s == "infinity" {
		return -1, nil
	}
	d, err := ParseSpan(s)
	if err == nil && d < 0 {
		err = fmt.Errorf("%q is below zero", s)
	}
	return d, err
}

// HealthProbe is a HealthCheck= taken apart: exactly one field is set.
type HealthProbe struct {
	Command string // its absolute path and arguments, as in ExecStart=
	URL     string // http or https; an answer of 200 to 399 is good
	Address string // HOST:PORT; a TCP connection that is accepted is good
}

// ParseHealthCheck reads the value of HealthCheck=. A tcp:// without a host means
// the machine itself.
func ParseHealthCheck(s string) (HealthProbe, error) {
	switch scheme, rest, _ := strings.Cut(s, "://"); {
	case strings.HasPrefix(s, "/"):
		if _, err := Words(s, Lenient); err != nil {
			return HealthProbe{}, err
		}
		return HealthProbe{Command: s}, nil
	case scheme == "http" || scheme == "https":
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			return HealthProbe{}, fmt.Errorf("%q is no URL with a host", s)
		}
		return HealthProbe{URL: s}, nil
	case scheme == "tcp":
		host, port, err := net.SplitHostPort(rest)
		if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 1 || n > 65535 {
			return HealthProbe{}, fmt.Errorf("%q is not tcp://HOST:PORT or tcp://:PORT", s)
		}
		if host == "" {
			host = "localhost"
		}
		return HealthProbe{Address: net.JoinHostPort(host, port)}, nil
	}
	return HealthProbe{}, fmt.Errorf("%q is no absolute path, http://..., https://... or tcp://HOST:PORT", s)
}
