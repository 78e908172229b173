package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// settings is what ssh_config(5) says of one host. Of its options these are used,
// the rest concerns things that we do not do.
type settings struct {
	hostName       string   // where to connect; "" the name as given
	user           string   // "" not said
	port           int      // 0 not said
	identityFiles  []string // nil: the usual ones
	identitiesOnly bool     // of the agent's keys only those of identityFiles
	identityAgent  string   // socket, "none", or "" for $SSH_AUTH_SOCK
	jumps          []string // ProxyJump: the hosts to go through, in order
	command        string   // ProxyCommand, which is not run
}

// readSettings reads ~/.ssh/config for a host. Where there is no such file nothing
// is set.
func readSettings(home, alias string) (settings, error) {
	path := filepath.Join(home, ".ssh", "config")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return settings{}, nil
	}
	if err != nil {
		return settings{}, err
	}
	s, err := parseSettings(b, alias)
	if err != nil {
		return settings{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func parseSettings(text []byte, alias string) (settings, error) {
	file, err := ssh_config.Decode(bytes.NewReader(text))
	if err != nil {
		return settings{}, err
	}
	var errs []error
	get := func(key string) string {
		v, err := file.Get(alias, key)
		errs = append(errs, err)
		return strings.Trim(v, `"`)
	}
	s := settings{
		hostName:       strings.ReplaceAll(get("HostName"), "%h", alias),
		user:           get("User"),
		identitiesOnly: strings.EqualFold(get("IdentitiesOnly"), "yes"),
		identityAgent:  get("IdentityAgent"),
	}
	if jumps := get("ProxyJump"); jumps == "" {
		s.command = said(get("ProxyCommand"))
	} else if said(jumps) != "" {
		s.jumps = strings.Split(jumps, ",")
	}
	if port := get("Port"); port != "" {
		if s.port, err = strconv.Atoi(port); err != nil || s.port < 1 || s.port > 65535 {
			errs = append(errs, fmt.Errorf("port %q is not a number from 1 to 65535", port))
		}
	}
	files, err := file.GetAll(alias, "IdentityFile")
	for _, f := range files {
		s.identityFiles = append(s.identityFiles, strings.Trim(f, `"`))
	}
	return s, errors.Join(append(errs, err)...)
}

// said is a value, "" for that which stands for none.
func said(value string) string {
	if strings.EqualFold(value, "none") {
		return ""
	}
	return value
}

// identities are the files that may hold our keys.
func (s settings) identities(home, host, remoteUser string) []string {
	names := s.identityFiles
	if names == nil {
		// What ssh-keygen makes, the best first.
		names = []string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"}
	}
	localUser := ""
	if u, err := user.Current(); err == nil {
		localUser = u.Username
	}
	tokens := strings.NewReplacer("%%", "%", "%d", home, "%h", host, "%r", remoteUser, "%u", localUser)
	var out []string
	for _, n := range names {
		if !strings.EqualFold(n, "none") {
			out = append(out, expandHome(tokens.Replace(n), home))
		}
	}
	return out
}

// expandHome replaces a ~ at the beginning of a path.
func expandHome(path, home string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		return filepath.Join(home, rest)
	}
	return path
}

// agentSocket is where the agent listens, "" if none is to be asked. given is
// $SSH_AUTH_SOCK.
func (s settings) agentSocket(home, given string) string {
	switch s.identityAgent {
	case "", "SSH_AUTH_SOCK", "$SSH_AUTH_SOCK":
		return given
	case "none":
		return ""
	}
	return expandHome(s.identityAgent, home)
}
