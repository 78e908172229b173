package machines

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/fault"
)

const hybrid = `25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 25 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 30 0:36 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 25 0:37 / /mnt/again rw,relatime - cgroup2 cgroup2 rw
43 25 0:50 / /run/flotilla-lab/m/disks rw - tmpfs flotilla-lab rw
44 43 0:51 / /run/flotilla-lab/m/disks/m1/root rw - overlay overlay rw
45 25 0:52 / /run/flotilla-lab/mm/disks rw - tmpfs flotilla-lab rw
`

const unified = "33 24 0:28 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"

func TestCgroups(t *testing.T) {
	for _, c := range []struct {
		name, mountinfo string
		want            []cgroup
	}{
		{"version 1 with a version 2 beside", hybrid, []cgroup{{"/sys/fs/cgroup/cpu", false}, {"/sys/fs/cgroup/systemd", false}, {"/sys/fs/cgroup/unified", true}}},
		{"version 2 alone", unified, []cgroup{{"/sys/fs/cgroup", true}}},
		{"none", "", nil},
		{"not a mountinfo", "cgroup2 - cgroup2\nx", nil},
	} {
		if got := cgroups(c.mountinfo); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzCgroups(f *testing.F) {
	f.Add(hybrid)
	f.Add(unified)
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range cgroups(text) {
			if c.Path == "" {
				t.Errorf("a hierarchy without a path in %q", text)
			}
		}
	})
}

func TestMountsBelow(t *testing.T) {
	got := mountsBelow(hybrid, "/run/flotilla-lab/m")
	want := []string{"/run/flotilla-lab/m/disks", "/run/flotilla-lab/m/disks/m1/root"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: another lab's mounts are not ours", got, want)
	}
}

func TestPayload(t *testing.T) {
	for _, c := range []struct{ name, mountinfo, procCgroup, want, err string }{
		{"own cgroup", hybrid, "9:name=systemd:/flotilla-lab-m1/payload/init.scope\n1:cpu:/flotilla-lab-m1\n0::/flotilla-lab-m1/payload/init.scope\n",
			"/sys/fs/cgroup/unified/flotilla-lab-m1/payload", ""},
		{"systemd's scope", unified, "0::/machine.slice/flotilla-lab-m1.scope/payload/init.scope\n",
			"/sys/fs/cgroup/machine.slice/flotilla-lab-m1.scope/payload", ""},
		{"at the top of it", unified, "0::/x/payload\n", "/sys/fs/cgroup/x/payload", ""},
		{"not a machine", unified, "0::/user.slice\n", "", "no payload cgroup"},
		{"no version 2", "", "0::/x/payload\n", "", "no version 2"},
	} {
		got, err := payload(cgroups(c.mountinfo), c.procCgroup)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %q, %v; want %q, %q", c.name, got, err, c.want, c.err)
		}
	}
}

func TestHostCheckSaysAllAtOnce(t *testing.T) {
	fit := Host{Root: true, Overlay: true, Cgroups: cgroups(unified)}
	if err := fit.Check(); err != nil {
		t.Fatal(err)
	}
	err := Host{Missing: []string{"systemd-container", "dbus"}, Cgroups: cgroups(unified)}.Check()
	var b strings.Builder
	fault.Print(&b, "lab", err)
	for _, want := range []string{"not root", "not installed: systemd-container, dbus", "hint: apt-get install systemd-container dbus", "hint: sudo"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}

func TestProcessesAreKnownByTheirDirectory(t *testing.T) {
	const root = "/run/flotilla-lab/m/disks/m1/root"
	for _, c := range []struct {
		args string
		want bool
	}{
		{"systemd-nspawn --keep-unit --directory=" + root + " --boot", true},
		{"/usr/bin/systemd-nspawn --directory=" + root, true},
		{"/bin/sh -c script sh /x/cgroup.procs -- systemd-nspawn --directory=" + root, true},
		{"systemd-nspawn --directory=" + root + "0", false},
		{"systemd-nspawn -D /var/lib/machines/m1", false},
		{"vi --directory=" + root, false},
		{"", false},
	} {
		if got := boots(strings.Fields(c.args), root); got != c.want {
			t.Errorf("%q: got %v", c.args, got)
		}
	}
}

func TestNspawnArgs(t *testing.T) {
	m := Machine{"m1", "10.10.1.1"}
	for _, c := range []struct {
		systemd bool
		keep    bool
	}{{false, true}, {true, false}} {
		args := nspawnArgs(m, disk{"/d/m1"}, "flotilla-lab-m1", Host{Systemd: c.systemd})
		if got := slices.Contains(args, "--keep-unit"); got != c.keep {
			t.Errorf("PID 1 is systemd: %v, keeps its unit: %v", c.systemd, got)
		}
		if !boots(args, "/d/m1/root") {
			t.Errorf("we would not know our own process again: %v", args)
		}
	}
}

func TestOnlyStore(t *testing.T) {
	for jobs, want := range map[string]bool{
		"": false,
		" 65 multi-user.target start waiting\n 66 etcd.service start running\n":                                  true,
		" 65 multi-user.target start waiting\n 66 etcd.service start running\n67 docker.service start running\n": false,
		" 65 multi-user.target start waiting\n":                                                                  false,
		"No jobs running.\n":                                                                                     false,
	} {
		if got := onlyStore(jobs); got != want {
			t.Errorf("%q: got %v", jobs, got)
		}
	}
}

func TestPrefix(t *testing.T) {
	for prefix, valid := range map[string]bool{
		"m": true, "demo": true, "a-1-b": true, "abcdefghi": true,
		"": false, "M": false, "m1": false, "-m": false, "m-": false, "../x": false, "abcdefghij": false,
	} {
		if _, err := New(prefix, Host{}, nil); (err == nil) != valid {
			t.Errorf("%q: %v", prefix, err)
		}
	}
	if got := Of("demo12"); got != "demo" {
		t.Errorf("got %q", got)
	}
}

func TestMembers(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 1, 3: 3, 4: 3, 6: 3, 7: 5, 50: 5} {
		if got := members(n); got != want {
			t.Errorf("%d machines: %d members, want %d", n, got, want)
		}
	}
}

func TestConfiguration(t *testing.T) {
	ms := machines("m", 4)
	env := etcdEnv(ms[1], ms[:3])
	for _, want := range []string{
		"ETCD_NAME=m2\n",
		"ETCD_INITIAL_CLUSTER=m1=https://10.10.1.1:2380,m2=https://10.10.1.2:2380,m3=https://10.10.1.3:2380\n",
		"ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:2379,http://127.0.0.1:4001,https://10.10.1.2:2379\n",
		"ETCD_CLIENT_CERT_AUTH=true\n", "ETCD_PEER_CLIENT_CERT_AUTH=true\n",
	} {
		if !strings.Contains(env, want) {
			t.Errorf("%q is not in\n%s", want, env)
		}
	}
	for i, want := range map[int]string{
		1: "etcd_servers=http://127.0.0.1:2379,https://10.10.1.1:2379,https://10.10.1.3:2379\n",
		3: "etcd_servers=https://10.10.1.1:2379,https://10.10.1.2:2379,https://10.10.1.3:2379\n",
	} {
		if got := fleetConf(ms[i], ms[:3]); !strings.Contains(got, want) {
			t.Errorf("%s: %q is not in\n%s", ms[i].Name, want, got)
		}
	}
}

// A certificate of the lab's authority serves both ends; one of another does not.
func TestCertificates(t *testing.T) {
	ours, theirs := authorityFor(t), authorityFor(t)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(ours.pem())) {
		t.Fatal("the authority's certificate cannot be read")
	}
	for _, c := range []struct {
		name  string
		by    *authority
		valid bool
	}{{"ours", ours, true}, {"theirs", theirs, false}} {
		certificate, key, err := c.by.issue(Machine{"m1", "10.10.1.1"})
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "10.10.1.1", KeyUsages: []x509.ExtKeyUsage{use}})
			if (err == nil) != c.valid {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
}

func authorityFor(t *testing.T) *authority {
	t.Helper()
	a, err := newAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestImageHoldsBusyboxAndItsLinks(t *testing.T) {
	var image bytes.Buffer
	if err := writeImage(&image, []byte("program")); err != nil {
		t.Fatal(err)
	}
	links := map[string]string{}
	r := tar.NewReader(&image)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		links[h.Name] = h.Linkname
	}
	if _, ok := links["bin/busybox"]; !ok || links["bin/sh"] != "busybox" || links["bin/sleep"] != "busybox" {
		t.Errorf("got %v", links)
	}
}

func TestMachineFiles(t *testing.T) {
	ms := machines("m", 2)
	files := machineFiles(ms[0], ms, "0123")
	if files["/etc/machine-id"] != "0123\n" || files["/etc/hostname"] != "m1\n" || !strings.Contains(files["/etc/hosts"], "10.10.1.2 m2\n") {
		t.Errorf("got %v", files)
	}
	if a, b := newMachineID(), newMachineID(); a == b || len(a) != 32 {
		t.Errorf("machine ids %q and %q", a, b)
	}
}

// A link that this machine has must be replaced in the lab machine, not followed out
// of it.
func TestReplaceDoesNotFollowLinks(t *testing.T) {
	d := disk{t.TempDir()}
	outside := t.TempDir() + "/outside"
	if err := errors.Join(os.MkdirAll(d.root()+"/etc", 0o755), os.WriteFile(outside, []byte("mine"), 0o644), os.Symlink(outside, d.root()+"/etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	if err := d.write(map[string]string{"/etc/resolv.conf": "theirs"}, 0o640); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "mine" {
		t.Errorf("the file outside now holds %q, %v", b, err)
	}
	st, err := os.Lstat(d.root() + "/etc/resolv.conf")
	if err != nil || st.Mode() != 0o640 {
		t.Errorf("got %v, %v", st, err)
	}
}

// What never answers is asked again, and not for longer than the limit.
func TestUntilLeavesAQuestionThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		hangs := func(ctx context.Context) bool {
			asked++
			<-ctx.Done()
			return false
		}
		if err := until(t.Context(), 25*time.Second, hangs); !errors.Is(err, context.DeadlineExceeded) || asked != 3 {
			t.Errorf("asked %d times: %v", asked, err)
		}
		answers := func(context.Context) bool { asked++; return asked == 5 }
		if err := until(t.Context(), time.Second, answers); err != nil {
			t.Error(err)
		}
	})
}

// A lab that is not up is booted by a line that can be typed as it is.
func TestNotUp(t *testing.T) {
	for prefix, want := range map[string]string{
		"nobodys":     "lab: lab nobodys: not up\n",
		"no-bodys":    "hint: flotilla lab up 3 --name no-bodys\n",
		DefaultPrefix: "hint: flotilla lab up 3\n",
	} {
		l, err := New(prefix, Host{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = l.load(); err == nil {
			continue // somebody has a lab of the usual name
		}
		var b strings.Builder
		fault.Print(&b, "lab", err)
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	var b strings.Builder
	fault.Print(&b, "lab", (&Lab{prefix: "web"}).noMachine("web3", state{Machines: []Machine{{Name: "web1"}, {Name: "web2"}}}))
	if want := "lab: no machine \"web3\" in lab web\nhint: there are: web1 web2\n"; b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}
