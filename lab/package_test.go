package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"flotilla/internal/lab/machines"
)

// packaged is a lab on which nothing of ours is installed but what comes in packages. Its
// machines are as this one is: Debian's etcd is on them.
type packaged struct {
	*testing.T
	lab *machines.Lab
}

// do runs a shell command on a machine and returns what it printed, on either stream.
func (p packaged) do(machine, command string) string {
	p.Helper()
	out, err := p.try(machine, command)
	if err != nil {
		p.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (p packaged) try(machine, command string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return p.lab.Output(ctx, machine, "sh", "-c", command+" 2>&1")
}

// want runs a command and fails the test where what it prints does not match.
func (p packaged) want(machine, command, pattern string) {
	p.Helper()
	out, err := p.try(machine, command)
	if !regexp.MustCompile(pattern).MatchString(out) {
		p.Errorf("%s: %s printed %q (%v), want %s", machine, command, out, err, pattern)
	}
}

// install puts a package onto a machine and returns what dpkg printed.
func (p packaged) install(machine, deb string) string {
	p.Helper()
	b, err := os.ReadFile(deb)
	if err != nil {
		p.Fatal(err)
	}
	at := "/root/" + filepath.Base(deb)
	if err := p.lab.WriteFile(machine, at, b, 0o644); err != nil {
		p.Fatal(err)
	}
	return p.do(machine, "dpkg -i "+at)
}

// pid is the main process of a unit.
func (p packaged) pid(machine, unit string) string {
	p.Helper()
	return strings.TrimSpace(p.do(machine, "systemctl show -p MainPID --value "+unit))
}

// debs builds packages of this source tree with these versions and returns their paths.
func debs(t *testing.T, versions ...string) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	for _, version := range versions {
		cmd := exec.Command("sh", "scripts/package", dir, "deb-"+runtime.GOARCH)
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "VERSION="+version)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("scripts/package: %v\n%s", err, out)
		}
		paths = append(paths, filepath.Join(dir, "flotilla_"+version+"_"+runtime.GOARCH+".deb"))
	}
	return paths
}

// The package comes, is upgraded in place, goes and is purged; a unit that the cluster
// started notices none of it.
func TestPackage(t *testing.T) {
	if why != "" {
		t.Skip(why)
	}
	packages := debs(t, "1.0.0~rc.1", "1.0.0")
	p := packaged{t, secondLab(t)}
	t.Cleanup(func() {
		if err := p.lab.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := p.lab.Up(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	t.Run("a machine without etcd", func(t *testing.T) {
		p := packaged{t, p.lab}
		p.do(*prefix+"x1", "dpkg -P etcd-server etcd-client")
		p.comes(*prefix+"x1", packages[0])
		p.upgraded(*prefix+"x1", packages[1])
		p.goes(*prefix+"x1", packages[1])
	})
	t.Run("a machine with Debian's etcd", func(t *testing.T) {
		packaged{t, p.lab}.besideDebian(*prefix+"x2", packages[1])
	})
}

// comes: nothing runs that nobody started, then everything does.
func (p packaged) comes(m, deb string) {
	p.Helper()
	p.install(m, deb)
	p.want(m, "systemctl is-enabled etcd.service fleet.service fleet.socket flotilla-discovery.service", `^(disabled\n){4}$`)
	p.want(m, "systemctl is-active etcd.service fleet.service fleet.socket", `^(inactive\n){3}$`)
	p.want(m, "readlink /usr/bin/etcd /usr/bin/etcdctl /usr/bin/fleetd /usr/bin/fleetctl", `^(flotilla\n){4}$`)
	p.want(m, "man -w etcd fleetctl fleetctl-start", `/flotilla-etcd\.8\.gz\n.*/fleetctl\.1\.gz\n.*/fleetctl-start\.1\.gz`)
	p.want(m, "systemd-analyze verify etcd.service fleet.service fleet.socket flotilla-discovery.service", `^$`)

	p.do(m, "mkdir -p /etc/fleet; echo metadata=room=cellar >/etc/fleet/fleet.conf; echo ETCD_NAME=packaged >/etc/default/etcd")
	p.do(m, "systemctl enable --quiet etcd fleet.service fleet.socket; systemctl start etcd2 fleet flotilla-discovery")
	p.want(m, "systemctl is-active etcd.service fleet.service fleet.socket flotilla-discovery.service", `^(active\n){4}$`)
	p.want(m, "fleetctl list-machines --no-legend", `room=cellar`)
	p.want(m, "etcdctl member list", `name=packaged `)
	p.checked(m)
}

// checked has fleet do all that the service's restrictions could keep it from: start a
// unit, check its health as another user, adopt a unit of the owner's and let it go.
func (p packaged) checked(m string) {
	p.Helper()
	p.do(m, `printf '#!/bin/sh\ntest $(id -un) = nobody\n' >/usr/local/bin/healthy; chmod 755 /usr/local/bin/healthy`)
	const hello = `printf '[Service]\nUser=nobody\nExecStart=/bin/sleep %s\n[X-Fleet]\nHealthCheck=/usr/local/bin/healthy\n' >/root/hello.service; `
	p.do(m, fmt.Sprintf(hello, "infinity")+"fleetctl start /root/hello.service")
	p.do(m, fmt.Sprintf(hello, "1000000")+"fleetctl apply --yes /root/hello.service")
	p.want(m, "fleetctl journal --lines 5 hello", `Started hello\.service`)
	p.do(m, `printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/own.service; systemctl daemon-reload; systemctl enable --now --quiet own`)
	p.do(m, "fleetctl adopt --yes --machine $(cat /etc/machine-id) own")
	p.listed(m, "own.service")
	p.do(m, "fleetctl eject --yes own")
	p.want(m, "systemctl show -p FragmentPath --value own", `^/etc/systemd/system/own.service\n$`)
	p.want(m, "systemctl --failed --plain --no-legend", `^$`)
}

// upgraded: the daemons are of the new version, the units and the owner's files are as
// they were.
func (p packaged) upgraded(m, deb string) {
	p.Helper()
	unit, daemons := p.pid(m, "hello"), p.pid(m, "etcd fleet flotilla-discovery")
	out := p.install(m, deb)
	for _, daemon := range []string{"etcd", "fleet", "flotilla-discovery"} {
		if !strings.Contains(out, "flotilla: restarting "+daemon+".service\n") {
			p.Errorf("the upgrade does not say that it restarts %s:\n%s", daemon, out)
		}
	}
	if now := p.pid(m, "hello"); now != unit {
		p.Errorf("the unit's process was %s before the upgrade and is %s", unit, now)
	}
	for i, now := range strings.Fields(p.pid(m, "etcd fleet flotilla-discovery")) {
		if now == strings.Fields(daemons)[i] || now == "0" {
			p.Errorf("daemon %d was %s before the upgrade and is %s", i, daemons, now)
		}
	}
	p.want(m, "fleetctl version", `1\.0\.0\n`)
	p.want(m, "journalctl -b -u fleet -o cat | grep 'fleetd runs' | tail -n 1", `version=1\.0\.0\n`)
	p.want(m, "cat /etc/fleet/fleet.conf /etc/default/etcd", "room=cellar\nETCD_NAME=packaged\n")
	p.listed(m, "hello.service")
}

// listed waits until the cluster lists a unit as active.
func (p packaged) listed(m, unit string) {
	p.Helper()
	(&cluster{T: p.T}).eventually(30*time.Second, unit+" is listed", func() error {
		out, err := p.try(m, "fleetctl list-units --no-legend --fields=unit,active")
		if err != nil || !regexp.MustCompile(unit+`\s+active`).MatchString(out) {
			return fmt.Errorf("%s%v", out, err)
		}
		return nil
	})
}

// goes: the unit runs on and is told of; coming back, fleet knows it; purged, nothing
// of ours is left but the store's data.
func (p packaged) goes(m, deb string) {
	p.Helper()
	unit := p.pid(m, "hello")
	out := p.do(m, "dpkg -r flotilla")
	for _, want := range []string{"these units run on until", "\n  hello.service\n", "flotilla: /var/lib/etcd stays\n", "flotilla: /etc/fleet stays\n"} {
		if !strings.Contains(out, want) {
			p.Errorf("removing does not say %q:\n%s", want, out)
		}
	}
	p.want(m, "ls -d /usr/bin/flotilla /usr/bin/etcd* /usr/bin/fleet* /usr/lib/systemd/system/etcd* /usr/share/man/man?/etcd* | grep -v cannot", `^$`)
	p.want(m, "pgrep -a flotilla", `^$`)
	p.want(m, "systemctl is-active hello", `^active`)

	p.install(m, deb)
	p.do(m, "systemctl start etcd fleet")
	p.listed(m, "hello.service")
	p.do(m, "dpkg -P flotilla")
	if now := p.pid(m, "hello"); now != unit {
		p.Errorf("the unit's process was %s before the package went and is %s", unit, now)
	}
	p.want(m, "find /etc/systemd/system -xtype l", `^$`)
	p.want(m, "ls -d /var/lib/fleet", `cannot access`)
	p.want(m, "ls /var/lib/etcd", `member`)
	p.want(m, "cat /etc/fleet/fleet.conf", `room=cellar`)
}

// besideDebian: what Debian's packages have stays theirs; when they go, the names are ours.
func (p packaged) besideDebian(m, deb string) {
	p.Helper()
	before := p.do(m, "md5sum /usr/bin/etcd /usr/bin/etcdctl /usr/lib/systemd/system/etcd.service /usr/share/man/man1/etcdctl.1.gz")
	p.install(m, deb)
	p.want(m, "md5sum /usr/bin/etcd /usr/bin/etcdctl /usr/lib/systemd/system/etcd.service /usr/share/man/man1/etcdctl.1.gz", "^"+regexp.QuoteMeta(before)+"$")
	p.want(m, "readlink /usr/bin/fleetctl; ls /usr/share/bash-completion/completions/etcdctl", `^flotilla\n.*cannot access`)
	p.want(m, "systemctl start etcd fleet && etcd --version", `^etcd Version: 3\.4`)
	p.want(m, "fleetctl list-machines --no-legend", `\n$`)
	etcd := p.pid(m, "etcd")
	p.do(m, "dpkg -i /root/*.deb") // as an upgrade does
	if now := p.pid(m, "etcd"); now != etcd {
		p.Errorf("Debian's etcd was process %s and is %s: it was restarted", etcd, now)
	}
	p.do(m, "dpkg -r etcd-server etcd-client")
	p.want(m, "readlink /usr/bin/etcd /usr/bin/etcdctl /usr/share/bash-completion/completions/etcdctl", `^flotilla\nflotilla\nflotilla-etcdctl\n$`)
	p.want(m, "systemctl cat etcd", `ExecStart=/usr/bin/flotilla etcd`)
	p.do(m, "dpkg -r flotilla")
	p.want(m, "ls -d /usr/bin/etcd* /usr/bin/fleet* | grep -v cannot", `^$`)
}
