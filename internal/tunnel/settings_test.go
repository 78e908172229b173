package tunnel

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const sshConfig = `
# A comment
Host web-*
    HostName %h.example.com
    User deploy
    Port 2222
    IdentityFile ~/.ssh/deploy
    IdentityFile "/keys/%r@%h"
Host jump
    ProxyJump bastion
    IdentityAgent none
Host *
    IdentitiesOnly yes
    IdentityAgent ~/agent.sock
    ProxyCommand none
`

func TestSettings(t *testing.T) {
	web, err := parseSettings([]byte(sshConfig), "web-1")
	if err != nil {
		t.Fatal(err)
	}
	if web.hostName != "web-1.example.com" || web.user != "deploy" || web.port != 2222 || !web.identitiesOnly || web.command != "" || web.jumps != nil {
		t.Errorf("web-1: %+v", web)
	}
	if got, want := web.identities("/home/me", "web-1", "deploy"), []string{"/home/me/.ssh/deploy", "/keys/deploy@web-1"}; !slices.Equal(got, want) {
		t.Errorf("identities %v, want %v", got, want)
	}
	if got := web.agentSocket("/home/me", "/given"); got != "/home/me/agent.sock" {
		t.Errorf("agent %q", got)
	}
	jump, err := parseSettings([]byte(sshConfig), "jump")
	if err != nil || !slices.Equal(jump.jumps, []string{"bastion"}) || jump.agentSocket("/home/me", "/given") != "" || jump.port != 0 {
		t.Errorf("jump: %+v, %v", jump, err)
	}
	plain := settings{}
	if got := plain.identities("/home/me", "h", "u"); len(got) != 3 || got[0] != "/home/me/.ssh/id_ed25519" {
		t.Errorf("by default: %v", got)
	}
	if got := plain.agentSocket("/home/me", "/given"); got != "/given" {
		t.Errorf("by default: agent %q", got)
	}
}

func TestSettingsThatAreWrong(t *testing.T) {
	for _, text := range []string{"Host *\n Port many\n", "Host *\n Port 70000\n", "Match exec true\n User x\n"} {
		if s, err := parseSettings([]byte(text), "web"); err == nil {
			t.Errorf("%q: %+v", text, s)
		}
	}
}

func TestSettingsAreReadFromHome(t *testing.T) {
	home := t.TempDir()
	if s, err := readSettings(home, "web-1"); err != nil || s.user != "" {
		t.Errorf("without a file: %+v, %v", s, err)
	}
	write(t, filepath.Join(home, ".ssh", "config"), sshConfig)
	if s, err := readSettings(home, "web-1"); err != nil || s.user != "deploy" {
		t.Errorf("%+v, %v", s, err)
	}
	write(t, filepath.Join(home, ".ssh", "config"), "Port 0\n")
	if _, err := readSettings(home, "web-1"); err == nil || !strings.Contains(err.Error(), filepath.Join(home, ".ssh", "config")) {
		t.Errorf("error %v does not name the file", err)
	}
}

// write writes a file and the directories to it.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Whatever stands in ~/.ssh/config, it is read or refused.
func FuzzParseSettings(f *testing.F) {
	f.Add([]byte(sshConfig), "web-1")
	f.Add([]byte("Match host a,!b\nPort=22 # c\nInclude\n"), "a")
	f.Fuzz(func(t *testing.T, text []byte, alias string) {
		if bytes.Contains(bytes.ToLower(text), []byte("include")) {
			return // would read files of this machine
		}
		s, err := parseSettings(text, alias)
		if err == nil && (s.port < 0 || s.port > 65535) {
			t.Fatalf("port %d", s.port)
		}
	})
}
