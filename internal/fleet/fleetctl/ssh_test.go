package fleetctl

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"flotilla/internal/cli"
	"flotilla/internal/tunnel/tunneltest"
)

// sshds are a script's servers, by the machine's address.
type sshds map[string]*tunneltest.Server

type sshdsKey struct{}

func sshd(ts *testscript.TestScript, address string) *tunneltest.Server {
	s, ok := ts.Value(sshdsKey{}).(sshds)[address]
	if !ok {
		ts.Fatalf("%s has no SSH server", address)
	}
	return s
}

// cmdSSHD starts a server for each machine. ~/.ssh/config says that it is there where
// it is; a command sees in SSH_MACHINE where it runs.
func cmdSSHD(ts *testscript.TestScript, _ bool, args []string) {
	noSockets := args[0] == "-no-sockets"
	if noSockets {
		args = args[1:]
	}
	home := ts.Getenv("HOME")
	ts.Check(os.MkdirAll(filepath.Join(home, ".ssh"), 0o700))
	private, signer, err := tunneltest.NewKey()
	ts.Check(err)
	block, err := ssh.MarshalPrivateKey(private, "")
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(home, ".ssh", "id_ed25519"), pem.EncodeToMemory(block), 0o600))
	var config strings.Builder
	for _, address := range args {
		s := &tunneltest.Server{
			Users:     map[string][]ssh.PublicKey{"core": {signer.PublicKey()}},
			NoSockets: noSockets,
			Env:       []string{"SSH_MACHINE=" + address, "PATH=" + ts.Getenv("PATH"), "HOME=" + home},
		}
		ts.Check(s.Start())
		ts.Defer(func() { sshd(ts, address).Close() })
		ts.Value(sshdsKey{}).(sshds)[address] = s
		fmt.Fprintf(&config, "Host %s\n  HostName 127.0.0.1\n  Port %d\n", address, s.Port())
	}
	ts.Check(os.WriteFile(filepath.Join(home, ".ssh", "config"), []byte(config.String()), 0o600))
}

func cmdReinstall(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(sshd(ts, args[0]).Reinstall())
}

func cmdChannels(ts *testscript.TestScript, _ bool, args []string) {
	if got := sshd(ts, args[0]).Opened(); !slices.Equal(got, args[1:]) {
		ts.Fatalf("channels %v", got)
	}
}

// What is for the remote command goes there as it was typed.
func TestKeepRemoteCommand(t *testing.T) {
	for typed, want := range map[string]string{
		"ssh hello":                             "ssh hello",
		"ssh hello find / -debug -tunnel x":     "ssh hello -- find / -debug -tunnel x",
		"-tunnel h ssh -A hello ls -la":         "--tunnel h ssh -A hello -- ls -la",
		"ssh hello --ssh-port 2222 ls -l":       "ssh hello --ssh-port 2222 -- ls -l",
		"ssh -ssh-port=2222 hello -A ls":        "ssh --ssh-port=2222 hello -A -- ls",
		"ssh --unit hello systemctl -unit":      "ssh --unit hello -- systemctl -unit",
		"ssh -machine=m1 echo -debug":           "ssh --machine=m1 -- echo -debug",
		"ssh hello -- ls -debug":                "ssh hello -- ls -debug",
		"ss hello ls -debug":                    "ssh hello -- ls -debug",
		"journal -lines 5 ssh":                  "journal --lines 5 ssh",
		"ssh":                                   "ssh",
		"ssh --unit hello":                      "ssh --unit hello",
		"-ssh-username core ssh hello x -debug": "--ssh-username core ssh hello -- x -debug",
	} {
		root := (&session{}).root()
		raw := strings.Fields(typed)
		args, err := resolveCommand(root, cli.SingleDash(root, raw))
		if err != nil {
			t.Errorf("%s: %v", typed, err)
			continue
		}
		if got := strings.Join(keepRemoteCommand(root, args, raw), " "); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", typed, got, want)
		}
	}
}

func TestExpandHome(t *testing.T) {
	for path, want := range map[string]string{
		"~/.fleetctl/known_hosts": "/home/me/.fleetctl/known_hosts",
		"~root/hosts":             "/root/hosts",
		"/etc/hosts~":             "/etc/hosts~",
		"hosts":                   "hosts",
		"~":                       "/home/me",
	} {
		if got, err := expandHome(path, "/home/me"); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", path, got, err, want)
		}
	}
	if got, err := expandHome("~nobody-of-that-name/x", "/home/me"); err == nil {
		t.Errorf("a user that is not there lives in %s", got)
	}
}
