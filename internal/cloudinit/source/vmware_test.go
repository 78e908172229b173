package source

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flotilla/internal/cloudinit/netconf"
	"flotilla/internal/fault"
)

// tool is a program that answers as those of open-vm-tools do, from files named after
// the variables.
const tool = `#!/bin/sh
[ "$1" = --cmd ] && shift
file="$(dirname "$0")/vars/${1#info-get }"
if [ -f "$file" ]; then cat "$file"; else echo "No value found" >&2; exit 1; fi
`

// guest makes a guest of VMware's with these variables and this program.
func guest(t *testing.T, program, script string, vars map[string]string) Source {
	dir := t.TempDir()
	documents := map[string][]byte{program: []byte(script), "vars/": nil}
	for name, value := range vars {
		documents["vars/guestinfo."+name] = []byte(value)
	}
	at := lay(t, documents)
	if err := os.Chmod(filepath.Join(at, program), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", at+":/usr/bin:/bin:"+dir)
	return Guestinfo(quick)
}

func TestGuestinfo(t *testing.T) {
	for _, program := range []string{"vmware-rpctool", "vmtoolsd"} {
		s := guest(t, program, tool, map[string]string{
			"coreos.config.data": "I2Nsb3VkLWNvbmZpZwo=\n", "coreos.config.data.encoding": "base64", "hostname": "node1",
			"interface.0.name": "ens192", "interface.0.role": "private", "interface.0.ip.0.address": "10.0.0.7/24",
			"interface.1.mac": "00:50:56:00:00:02", "interface.1.role": "public",
			"interface.1.ip.0.address": "203.0.113.7/24", "interface.1.ip.1.address": "2001:db8::7/64",
			"interface.1.route.0.gateway": "203.0.113.1", "dns.server.0": "192.0.2.53", "dns.server.1": "192.0.2.54",
		})
		want := `type: vmware
user data: "#cloud-config\n"
hostname: node1
public ipv4: 203.0.113.7
private ipv4: 10.0.0.7
public ipv6: 2001:db8::7
network: 353 bytes
`
		if got := describe(t, s); got != want {
			t.Errorf("%s: got:\n%s\nwant:\n%s", program, got, want)
		}
		m, err := s.Metadata(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if files, _, err := netconf.Convert("vmware", m.NetworkConfig); err != nil || len(files) != 2 {
			t.Errorf("%s: the network's description makes %v, %v", program, files, err)
		}
	}
}

func TestGuestinfoTrouble(t *testing.T) {
	s := guest(t, "vmtoolsd", "#!/bin/sh\necho 'Failed sending message to VMX.' >&2\nexit 1\n", nil)
	err := s.Available(t.Context())
	if err == nil || errors.Is(err, ErrNever) || !strings.Contains(err.Error(), "Failed sending message to VMX.") {
		t.Errorf("outside of VMware: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	err = Guestinfo(quick).Available(t.Context())
	if !errors.Is(err, ErrNever) || !strings.Contains(strings.Join(fault.Hints(err), ""), "install open-vm-tools") {
		t.Errorf("without the tools: %v", err)
	}
}

func TestDecode(t *testing.T) {
	const zipped = "H4sIAAAAAAAAA8tIzcnJBwCGphA2BQAAAA==" // hello
	for _, c := range []struct{ data, encoding, want, err string }{
		{"hello", "", "hello", ""},
		{"aGVs\nbG8=\n", "b64", "hello", ""},
		{zipped, "gzip+base64", "hello", ""},
		{zipped, "gz+b64", "hello", ""},
		{zipped[:30], "gz+b64", "", "is not in gz+b64"},
		{"hello", "gzip", "", "is not in gzip"},
		{"hell!", "base64", "", "is not in base64"},
		{"hello", "rot13", "", `unknown encoding "rot13"`},
		{"hello", "b64+gz", "", `unknown encoding "b64+gz"`},
	} {
		got, err := decode(c.data, c.encoding)
		if string(got) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %q, %v; want %q, %q", c.encoding, got, err, c.want, c.err)
		}
	}
}

// Whatever the variables are, what comes of them is bounded, and addresses are some.
func FuzzGuestinfo(f *testing.F) {
	f.Add([]byte(`{"interface.0.role": "public", "interface.0.ip.0.address": "192.0.2.1/24", "dns.server.0": "x"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var vars map[string]string
		if json.Unmarshal(raw, &vars) != nil {
			return
		}
		said, err := readNetwork(func(key string) (string, error) { return vars[key], nil })
		if err != nil || len(said) > len(vars) {
			t.Fatalf("%v, %v", said, err)
		}
		if m, err := vmwareAddresses(said); err == nil {
			addresses(t, m)
		}
	})
}
