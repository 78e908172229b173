package source

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/fault"
)

// CloudSigma is that vendor's server context, asked over a serial line.
func CloudSigma() Source {
	return cloudSigma{
		line:    "/dev/ttyS1",
		product: "/sys/class/dmi/id/product_name",
		leases:  "/run/systemd/netif/leases",
	}
}

type cloudSigma struct {
	line    string // device
	product string // file with the machine's product name
	leases  string // directory of DHCP leases: an address on the vendor's network is needed for the private address
}

func (c cloudSigma) Name() string { return c.line }
func (c cloudSigma) Type() string { return "server-context" }

func (c cloudSigma) Available(context.Context) error {
	name, err := os.ReadFile(c.product)
	if err != nil {
		return never{fmt.Errorf("cannot tell whose machine this is: %w", err)}
	}
	if product := strings.TrimSpace(string(name)); !strings.Contains(product, "CloudSigma") {
		return never{fmt.Errorf("not a machine of CloudSigma: its product name is %q", shorten(product))}
	}
	found, err := filepath.Glob(filepath.Join(c.leases, "*"))
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no DHCP lease in %s yet", c.leases)
	}
	return err
}

// serverContext is what is read of it.
type serverContext struct {
	Name string            `json:"name"`
	UUID string            `json:"uuid"`
	Meta map[string]string `json:"meta"`
	NICs []struct {
		MAC string `json:"mac"`
		IP  *struct {
			Address struct {
				UUID string `json:"uuid"` // the address itself
			} `json:"ip"`
		} `json:"ip_v4_conf"`
		VLAN *struct {
			UUID string `json:"uuid"`
		} `json:"vlan"`
	} `json:"nics"`
}

func (c cloudSigma) UserData(ctx context.Context) ([]byte, error) {
	said, err := c.ask(ctx)
	if err != nil {
		return nil, err
	}
	const field = "cloudinit-user-data"
	text := said.Meta[field]
	if !slices.Contains(strings.Split(said.Meta["base64_fields"], ","), field) {
		return []byte(text), nil
	}
	data, err := unbase64(text)
	if err != nil {
		return nil, fmt.Errorf("server context: %s is not in base64 as base64_fields says: %w", field, err)
	}
	return data, nil
}

func (c cloudSigma) Metadata(ctx context.Context) (Metadata, error) {
	said, err := c.ask(ctx)
	if err != nil {
		return Metadata{}, err
	}
	return said.metadata(addressOf)
}

// metadata works out the addresses; ofMAC is the IPv4 address of this machine's
// interface with a MAC: the context does not say those of private networks.
func (s serverContext) metadata(ofMAC func(mac string) (string, error)) (m Metadata, err error) {
	m.Hostname = s.Name
	if m.Hostname == "" {
		m.Hostname = s.UUID
	}
	m.SSHKeys = numbered([]string{s.Meta["ssh_public_key"]})
	for _, n := range s.NICs {
		if n.IP != nil && m.PublicIPv4 == "" {
			if m.PublicIPv4, err = checkAddress("server context", n.IP.Address.UUID); err != nil {
				return Metadata{}, err
			}
		}
		if n.VLAN != nil && n.VLAN.UUID != "" && m.PrivateIPv4 == "" {
			if m.PrivateIPv4, err = ofMAC(n.MAC); err != nil {
				return Metadata{}, err
			}
		}
	}
	return m, nil
}

// addressOf is the first IPv4 address of the interface with a MAC, "" if it has none.
func addressOf(mac string) (string, error) {
	want, err := net.ParseMAC(mac)
	if err != nil {
		return "", fmt.Errorf("server context: %w", err)
	}
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, i := range all {
		if i.HardwareAddr.String() != want.String() {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			return "", err
		}
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
				return n.IP.String(), nil
			}
		}
	}
	return "", nil
}

// serialTimeout is how long the whole answer may take: at 115200 baud some 300 KiB.
const serialTimeout = 30 * time.Second

// ask reads the whole server context from the serial line.
func (c cloudSigma) ask(ctx context.Context) (said serverContext, err error) {
	f, err := os.OpenFile(c.line, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return serverContext{}, err
	}
	defer f.Close()
	if err := rawLine(f); err != nil {
		return serverContext{}, fmt.Errorf("serial line %s: %w", c.line, err)
	}
	deadline := time.Now().Add(serialTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := f.SetDeadline(deadline); err != nil {
		return serverContext{}, fmt.Errorf("serial line %s: %w", c.line, err)
	}
	defer context.AfterFunc(ctx, func() { f.SetDeadline(time.Unix(1, 0)) })()
	raw, err := exchange(f)
	if err != nil {
		return serverContext{}, fault.Hint(fmt.Errorf("ask for the server context on %s: %w", c.line, err), "does another program read that line?")
	}
	return said, decodeJSON("server context on "+c.line, raw, &said)
}

// exchange asks for everything: an empty path between "<" and ">", to which the answer
// ends with an end-of-transmission character.
func exchange(line io.ReadWriter) ([]byte, error) {
	if _, err := io.WriteString(line, "<\n\n>"); err != nil {
		return nil, err
	}
	const endOfTransmission = 4
	var answer []byte
	r := bufio.NewReader(line)
	for {
		b, err := r.ReadByte()
		switch {
		case err != nil:
			return nil, fmt.Errorf("the answer stops after %d bytes: %w", len(answer), err)
		case b == endOfTransmission:
			return answer, nil
		case len(answer) == MaxSize:
			return nil, fmt.Errorf("the answer has more than %d bytes", MaxSize)
		}
		answer = append(answer, b)
	}
}

// rawLine makes a terminal hand through bytes as they are, at 115200 baud.
func rawLine(f *os.File) error {
	conn, err := f.SyscallConn() // not f.Fd: that would end deadlines
	if err != nil {
		return err
	}
	var set error
	err = conn.Control(func(fd uintptr) { set = setRaw(int(fd)) })
	return errors.Join(err, set)
}

func setRaw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB | unix.CBAUD
	t.Cflag |= unix.CS8 | unix.CLOCAL | unix.CREAD | unix.B115200
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
