package lab

import (
	"strings"
	"testing"
	"time"
)

// systemd makes the API's socket, for root and the group fleet: others do not reach it,
// and are refused if they do. It stays while fleetd is away and starts it. New metadata
// is taken over at SIGHUP.
func TestSocket(t *testing.T) {
	c := scenario(t)
	m := c.desk()
	if got := c.on(m, "stat", "-c", "%U %G %a", "/run/fleet.sock"); strings.TrimSpace(got) != "root fleet 660" {
		t.Errorf("the socket is %s", got)
	}
	c.on(m, "sh", "-c", "useradd anna && usermod -aG fleet anna && useradd bert")
	t.Cleanup(func() { c.on(m, "sh", "-c", "userdel anna; userdel bert; chmod 0660 /run/fleet.sock") })
	whoami := func(user string) (string, error) {
		return c.try(m, "runuser", "-u", user, "--", "curl", "-sS", "--unix-socket", "/run/fleet.sock", "http://x/fleet/v1/whoami")
	}
	if out, err := whoami("anna"); err != nil || !strings.Contains(out, `{"name":"anna","role":"admin"}`) {
		t.Errorf("a member of the group: %s, %v", out, err)
	}
	if out, err := whoami("bert"); err == nil {
		t.Errorf("somebody else reaches the socket: %s", out)
	}
	c.on(m, "chmod", "0666", "/run/fleet.sock")
	if out, err := whoami("bert"); err != nil || !strings.Contains(out, "user bert is neither root nor in the group fleet") {
		t.Errorf("somebody else at an open socket: %s, %v", out, err)
	}

	c.on(m, "systemctl", "stop", "fleet.service")
	if out, _ := c.try(m, "systemctl", "is-active", "fleet.service"); strings.TrimSpace(out) != "inactive" {
		t.Errorf("fleet.service is %s", out)
	}
	c.on(m, "fleetctl", "list-machines")
	if out := c.on(m, "systemctl", "is-active", "fleet.service"); strings.TrimSpace(out) != "active" {
		t.Errorf("a request has not started fleetd: %s", out)
	}

	c.on(m, "sh", "-c", "cp /etc/fleet/fleet.conf /etc/fleet/before && sed -i 's/^metadata=.*/&,disk=ssd/' /etc/fleet/fleet.conf && systemctl reload fleet")
	t.Cleanup(func() { c.on(m, "sh", "-c", "mv /etc/fleet/before /etc/fleet/fleet.conf && systemctl reload fleet") })
	c.eventually(10*time.Second, "new metadata is taken over", func() error {
		_, err := c.try(m, "sh", "-c", "fleetctl list-machines | grep -q disk=ssd")
		return err
	})
}
