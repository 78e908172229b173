package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"flotilla/internal/kv/kvtest"
)

// inNetwork tells a process of this test that it has a network of its own.
const inNetwork = "FLOTILLA_TEST_OWN_NETWORK"

// Scripts that have a network of their own, so that every port is the usual one.
// Those in testdata/script/talks are what the talks that Flotilla goes back to show
// on their slides, typed as it is there: one file is one row of that list.
func TestOwnNetwork(t *testing.T) {
	talks, _ := filepath.Glob("testdata/script/talks/*.txtar")
	others, _ := filepath.Glob("testdata/script/network/*.txtar")
	files := append(talks, others...)
	if len(talks) == 0 || len(others) == 0 {
		t.Fatalf("scripts: %v", files)
	}
	if os.Getenv(inNetwork) != "" {
		loopbackUp(t)
		askLoopback(t)
		testscript.Run(t, params(t, os.Getenv(inNetwork)))
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			args := []string{"--net", "--mount"}
			if os.Geteuid() != 0 {
				args = append(args, "--map-root-user")
			}
			cmd := exec.CommandContext(t.Context(), "unshare", append(args, "--", self, "-test.run=^TestOwnNetwork$", "-test.v")...)
			cmd.Env = append(os.Environ(), inNetwork+"="+file)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// loopbackUp makes 127.0.0.0/8 work in a network that is new.
func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		t.Fatalf("loopback: %v", err)
	}
}

// askLoopback makes 127.0.0.1 the only name server of this process and its children,
// in mounts of their own.
func askLoopback(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("name server: %v", err)
	}
	t.Cleanup(func() { unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH) })
}

// serveZone is "dns FILE": answers for the records of a zone file (RFC 1035, section
// 5) at 127.0.0.1:53 until the end of the script.
func serveZone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: dns FILE")
	}
	var records []dns.RR
	zone := dns.NewZoneParser(strings.NewReader(ts.ReadFile(args[0])), ".", args[0])
	for rr, ok := zone.Next(); ok; rr, ok = zone.Next() {
		records = append(records, rr)
	}
	ts.Check(zone.Err())
	conn, err := net.ListenPacket("udp", "127.0.0.1:53")
	ts.Check(err)
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		w.WriteMsg(answer(records, r))
	})}
	go server.ActivateAndServe()
	ts.Defer(func() { server.Shutdown() })
}

// answer is NXDOMAIN for a name without records.
func answer(records []dns.RR, r *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(r)
	m.Rcode = dns.RcodeNameError
	for _, rr := range records {
		if !strings.EqualFold(rr.Header().Name, r.Question[0].Name) {
			continue
		}
		m.Rcode = dns.RcodeSuccess
		if rr.Header().Rrtype == r.Question[0].Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

// wantCode is "code N COMMAND...": runs the command and wants it to end with exit
// code N.
func wantCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%s ended with %s, want exit code %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// issue NAME... makes an authority, ca.pem, and certificates by it for loopback:
// NAME.pem with NAME-key.pem.
func issue(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: issue NAME...")
	}
	a, err := kvtest.NewAuthority(ts.MkAbs("."))
	ts.Check(err)
	for _, name := range args {
		_, _, err := a.Issue(name)
		ts.Check(err)
	}
}
