package lab

import (
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// prepareSSH makes a machine one that can be reached by SSH: with Debian's sshd, host
// keys of its own, and a user who may ask the fleet API. Keys of the lab's host and of
// its user are not to be seen there.
const prepareSSH = `set -e
rm -rf /etc/ssh/ssh_host_* /root/.ssh /root/.fleetctl
ssh-keygen -q -A
id core >/dev/null 2>&1 || useradd --create-home --shell /bin/bash core
usermod -a -G fleet,systemd-journal core
install -d -o core -g core -m 0700 /home/core/.ssh
systemctl enable --quiet ssh
systemctl restart ssh
`

// makeKey makes a key for root and prints its public half.
const makeKey = `ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519 ; cat /root/.ssh/id_ed25519.pub`

// withSSH makes every machine reachable by SSH until the end of the test, as user core,
// for root on one of them.
func (c *cluster) withSSH(here string) {
	c.Helper()
	for _, m := range c.names() {
		c.on(m, "bash", "-c", prepareSSH)
		c.Cleanup(func() { c.on(m, "systemctl", "disable", "--quiet", "--now", "ssh") })
	}
	c.on(here, "install", "-d", "-m", "0700", "/root/.ssh")
	key := strings.TrimSpace(c.on(here, "bash", "-c", makeKey))
	for _, m := range c.names() {
		c.on(m, "bash", "-c", "echo '"+key+"' >/home/core/.ssh/authorized_keys; chown core: /home/core/.ssh/authorized_keys")
	}
}

// What fleetctl does by SSH, typed on the second of three machines: root there has a key
// to user core of all. The scripts are written as those of the talks are.
func TestSSH(t *testing.T) {
	c := scenario(t)
	here := c.names()[1]
	c.withSSH(here)
	testscript.RunT(inTurn{t}, testscript.Params{
		Dir: "testdata/ssh",
		Setup: func(env *testscript.Env) error {
			s := &typist{at: here}
			env.Values[typistKey{}] = s
			env.Defer(func() { (&cluster{T: t}).destroyAll() })
			return s.lay(env.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"$": typed, "await": await, "login": login},
	})
}
