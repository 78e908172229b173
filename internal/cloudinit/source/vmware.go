package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/fault"
)

// Guestinfo is what VMware's hypervisor tells its guest, as configured by guestinfo.*
// variables. It is asked by a program of open-vm-tools: the hypervisor's own door is a
// machine instruction that a static Go program does not have.
func Guestinfo(f Fetcher) Source {
	return vmware{name: "guestinfo", ask: askTools, fetch: f}
}

// OVFEnv is the same out of an OVF environment file, which the hypervisor puts on a
// virtual CD when a machine is made of an OVF template.
func OVFEnv(path string, f Fetcher) Source {
	return vmware{name: path, fetch: f, ask: func(context.Context) (lookup, error) {
		raw, err := readFile(path)
		if err != nil {
			return nil, err
		}
		properties, err := ovfProperties(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return func(key string) (string, error) { return properties["guestinfo."+key], nil }, nil
	}}
}

// lookup is the value of a variable without its prefix "guestinfo."; "" if it is not
// set.
type lookup func(key string) (string, error)

type vmware struct {
	name  string
	ask   func(context.Context) (lookup, error)
	fetch Fetcher
}

func (v vmware) Name() string { return v.name }
func (v vmware) Type() string { return "vmware" }

func (v vmware) Available(ctx context.Context) error {
	get, err := v.ask(ctx)
	if err != nil {
		return err
	}
	_, err = get("coreos.config.data")
	return err
}

func (v vmware) UserData(ctx context.Context) ([]byte, error) {
	get, err := v.ask(ctx)
	if err != nil {
		return nil, err
	}
	data, err := get("coreos.config.data")
	if err != nil {
		return nil, err
	}
	if data != "" {
		encoding, err := get("coreos.config.data.encoding")
		if err != nil {
			return nil, err
		}
		return decode(data, encoding)
	}
	address, err := get("coreos.config.url")
	if err != nil || address == "" {
		return nil, err
	}
	if err := checkURL(address); err != nil {
		return nil, fmt.Errorf("guestinfo.coreos.config.url: %w", err)
	}
	f := v.fetch
	f.Proxied = true
	return f.Get(ctx, address, nil)
}

// decode undoes the encoding of a document in a variable.
func decode(data, encoding string) ([]byte, error) {
	raw := []byte(data)
	var err error
	switch strings.NewReplacer("base64", "b64", "gzip", "gz").Replace(encoding) {
	case "":
	case "b64":
		raw, err = unbase64(data)
	case "gz":
		raw, err = gunzip(raw)
	case "gz+b64":
		if raw, err = unbase64(data); err == nil {
			raw, err = gunzip(raw)
		}
	default:
		return nil, fault.Hint(fmt.Errorf("guestinfo.coreos.config.data.encoding: unknown encoding %q", shorten(encoding)),
			"known are base64 (b64), gzip (gz) and gzip+base64 (gz+b64)")
	}
	if err != nil {
		return nil, fmt.Errorf("guestinfo.coreos.config.data is not in %s: %w", encoding, err)
	}
	return raw, nil
}

// unbase64 takes text with line breaks, as programs write it.
func unbase64(text string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
}

func gunzip(raw []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return readAtMost(z, MaxSize)
}

func (v vmware) Metadata(ctx context.Context) (Metadata, error) {
	get, err := v.ask(ctx)
	if err != nil {
		return Metadata{}, err
	}
	said, err := readNetwork(get)
	if err != nil {
		return Metadata{}, err
	}
	m, err := vmwareAddresses(said)
	if err != nil {
		return Metadata{}, err
	}
	if m.Hostname, err = get("hostname"); err != nil {
		return Metadata{}, err
	}
	if len(said) > 0 {
		m.NetworkConfig, err = json.Marshal(said)
	}
	return m, err
}

// mostOf is how many interfaces, addresses or routes are asked for: each is a question
// to the hypervisor.
const mostOf = 32

// readNetwork asks for the variables that describe the network: numbers count from 0
// without a gap.
func readNetwork(get lookup) (map[string]string, error) {
	said := make(map[string]string)
	var failed error
	// ask notes the variables of one item and says whether there was any.
	ask := func(prefix string, names ...string) bool {
		any := false
		for _, name := range names {
			value, err := get(prefix + name)
			if err != nil && failed == nil {
				failed = err
			}
			if value != "" {
				said[prefix+name], any = value, true
			}
		}
		return any && failed == nil
	}
	list := func(prefix string, then func(prefix string), names ...string) {
		for n := range mostOf {
			at := prefix + strconv.Itoa(n)
			if !ask(at, names...) {
				return
			}
			if then != nil {
				then(at)
			}
		}
	}
	list("dns.server.", nil, "")
	list("interface.", func(at string) {
		list(at+".ip.", nil, ".address")
		list(at+".route.", nil, ".gateway", ".destination")
	}, ".name", ".mac", ".dhcp", ".role")
	return said, failed
}

// vmwareAddresses takes the first address of each role and family.
func vmwareAddresses(said map[string]string) (m Metadata, err error) {
	for i := range mostOf {
		role := said[fmt.Sprintf("interface.%d.role", i)]
		for a := range mostOf {
			key := fmt.Sprintf("interface.%d.ip.%d.address", i, a)
			text := said[key]
			if text == "" {
				break
			}
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return Metadata{}, fault.Hint(fmt.Errorf("guestinfo.%s: %q is no address with a prefix length", key, shorten(text)), "write it as 192.0.2.7/24")
			}
			to := map[string]map[bool]*string{
				"public":  {true: &m.PublicIPv4, false: &m.PublicIPv6},
				"private": {true: &m.PrivateIPv4, false: &m.PrivateIPv6},
			}[role][prefix.Addr().Is4()]
			if to != nil && *to == "" {
				*to = prefix.Addr().String()
			}
		}
	}
	return m, nil
}

// tools are the programs of open-vm-tools that ask the hypervisor, and how.
var tools = []struct {
	program string
	args    []string
}{
	{"vmware-rpctool", nil},
	{"vmtoolsd", []string{"--cmd"}},
}

// askTools finds a program that asks the hypervisor.
func askTools(ctx context.Context) (lookup, error) {
	for _, t := range tools {
		if program, err := exec.LookPath(t.program); err == nil {
			return func(key string) (string, error) {
				return askTool(ctx, append([]string{program}, t.args...), "guestinfo."+key)
			}, nil
		}
	}
	return nil, never{fault.Hint(errors.New("neither vmware-rpctool nor vmtoolsd is installed: without them this program cannot ask VMware's hypervisor"),
		"install open-vm-tools, or hand the document over on a config drive or in an OVF environment file")}
}

// askTool runs one question. The hypervisor answers "No value found" for a variable
// that is not set.
func askTool(ctx context.Context, command []string, variable string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out, errs limited
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], "info-get "+variable)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case out.over:
		return "", fmt.Errorf("%s has more than %d bytes", variable, MaxSize)
	case err == nil:
		return strings.TrimSuffix(out.String(), "\n"), nil
	case strings.Contains(out.String()+errs.String(), "No value found"):
		return "", nil
	}
	return "", fault.Hint(fmt.Errorf("%s info-get %s: %w: %s", command[0], variable, err, shorten(strings.TrimSpace(errs.String()))),
		"is this machine a guest of VMware's?")
}

// limited is a buffer of at most MaxSize bytes; more are dropped and noted.
type limited struct {
	bytes.Buffer
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > MaxSize {
		l.over = true
		return len(p), nil
	}
	return l.Buffer.Write(p)
}
