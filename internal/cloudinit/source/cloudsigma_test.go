package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serialLine is a pseudo terminal: its path, and the other end.
func serialLine(t *testing.T) (path string, server *os.File) {
	server, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	conn, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	conn.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	path = fmt.Sprintf("/dev/pts/%d", number)
	open, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0) // so that the line does not hang up between questions
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { open.Close() })
	conn.Control(func(fd uintptr) { err = setRaw(int(fd)) })
	if err != nil {
		t.Fatal(err)
	}
	return path, server
}

// serve answers questions for everything.
func serve(server *os.File, answer string) {
	question := make([]byte, len("<\n\n>"))
	for {
		if _, err := io.ReadFull(server, question); err != nil || string(question) != "<\n\n>" {
			return
		}
		io.WriteString(server, answer+"\x04")
	}
}

func TestCloudSigma(t *testing.T) {
	line, server := serialLine(t)
	go serve(server, `{"name": "node1", "uuid": "20a0059b-041e-4d0c-bcc6-9b2852de48b3",
 "meta": {"cloudinit-user-data": "I2Nsb3VkLWNvbmZpZwo=", "base64_fields": "other,cloudinit-user-data", "ssh_public_key": "ssh-ed25519 AAAA one"},
 "nics": [{"mac": "22:bd:c4:ee:53:3c", "ip_v4_conf": {"conf": "dhcp", "ip": {"uuid": "203.0.113.7"}}, "vlan": null},
          {"mac": "22:bd:c4:ee:53:3d", "ip_v4_conf": null, "vlan": {"uuid": "5bc05e7e-6555-4f40-add8-3b8e91447702"}}]}`)
	at := lay(t, map[string][]byte{"product": []byte("CloudSigma\n"), "leases/2": nil})
	s := cloudSigma{line: line, product: at + "/product", leases: at + "/leases"}
	want := `type: server-context
user data: "#cloud-config\n"
hostname: node1
key 0: ssh-ed25519 AAAA one
public ipv4: 203.0.113.7
`
	if got := describe(t, s); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	said, err := s.ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := said.metadata(func(mac string) (string, error) { return "10.0.0.7 of " + mac, nil })
	if err != nil || m.PrivateIPv4 != "10.0.0.7 of 22:bd:c4:ee:53:3d" {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestCloudSigmaNotThere(t *testing.T) {
	at := lay(t, map[string][]byte{"other": []byte("Standard PC\n"), "ours": []byte("CloudSigma\n"), "leases/": nil})
	for product, want := range map[string]string{
		"other":   `not a machine of CloudSigma: its product name is "Standard PC"`,
		"missing": "cannot tell whose machine this is",
		"ours":    "no DHCP lease",
	} {
		err := cloudSigma{product: at + "/" + product, leases: at + "/leases"}.Available(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrNever) != (product != "ours") {
			t.Errorf("%s: got %v, want %q", product, err, want)
		}
	}
}

// A line on which nobody answers is not waited for longer than the caller wants.
func TestCloudSigmaSilent(t *testing.T) {
	line, server := serialLine(t)
	go io.WriteString(server, `{"name": "no`)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := cloudSigma{line: line}.UserData(ctx)
	if err == nil || !strings.Contains(err.Error(), "the answer stops after 12 bytes") {
		t.Errorf("got %v", err)
	}
}

func TestExchange(t *testing.T) {
	for _, c := range []struct{ answer, want, err string }{
		{"{}\x04rest", "{}", ""},
		{"{}", "", "the answer stops after 2 bytes"},
		{strings.Repeat("x", MaxSize+1), "", "more than 16777216 bytes"},
	} {
		got, err := exchange(struct {
			io.Reader
			io.Writer
		}{strings.NewReader(c.answer), new(bytes.Buffer)})
		if string(got) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("got %q, %v; want %q, %q", got, err, c.want, c.err)
		}
	}
}
