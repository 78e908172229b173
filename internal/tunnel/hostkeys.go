package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fault"
)

// ErrHostKey: a server did not prove to be who it should be.
var ErrHostKey error = hostKeyError{}

type hostKeyError struct{}

// Error is the last line of what ssh(1) says about that, which scripts look for.
func (hostKeyError) Error() string { return "Host key verification failed." }

// hostKeys decides whether a server is who it should be.
type hostKeys struct {
	file string // known hosts, as sshd(8) describes them; need not exist
	lax  bool   // accept any key
	ask  asker
	warn func(format string, args ...any)
}

// callback returns the check for one handshake, and the key algorithms to prefer for
// the host: a server has keys of several kinds, and we want the kind that we know.
func (h hostKeys) callback(address string) (ssh.HostKeyCallback, []string, error) {
	known, err := h.load()
	if err != nil {
		return nil, nil, err
	}
	check := func(hostname string, remote net.Addr, key ssh.PublicKey) error {
		verdict := known(hostname, remote, key)
		// A certificate that says nothing to us is as good as the key that it is for.
		if cert, ok := key.(*ssh.Certificate); ok && verdict != nil {
			key = cert.Key
			verdict = known(hostname, remote, key)
		}
		return h.judge(hostname, key, verdict)
	}
	return check, preferred(known, address), nil
}

// load reads the known hosts. A file that is not there knows nobody.
func (h hostKeys) load() (ssh.HostKeyCallback, error) {
	known, err := knownhosts.New(h.file)
	if errors.Is(err, fs.ErrNotExist) {
		return knownhosts.New()
	}
	if err != nil {
		return nil, fault.Hint(fmt.Errorf("read known hosts: %w", err), "correct or remove that line, or name another file with --known-hosts-file")
	}
	return known, nil
}

// judge says what follows from the library's verdict on a key.
func (h hostKeys) judge(hostname string, key ssh.PublicKey, verdict error) error {
	var unknown *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case verdict == nil:
		return nil
	case errors.As(verdict, &revoked):
		return fault.Hint(fmt.Errorf("the key that %s showed, %s, is revoked by %s line %d: %w",
			host(hostname), fingerprint(key), revoked.Revoked.Filename, revoked.Revoked.Line, ErrHostKey),
			"give the machine a new host key")
	case !errors.As(verdict, &unknown):
		return fmt.Errorf("the key of %s: %w: %w", host(hostname), verdict, ErrHostKey)
	case len(unknown.Want) > 0:
		return h.changed(hostname, key, unknown.Want)
	case h.lax:
		return nil
	}
	return h.unknown(hostname, key)
}

// unknown asks about a key that is seen for the first time.
func (h hostKeys) unknown(hostname string, key ssh.PublicKey) error {
	if h.ask == nil {
		err := fmt.Errorf("the authenticity of host '%s' can't be established: its key %s is not in %s, and there is no terminal to ask: %w",
			host(hostname), fingerprint(key), h.file, ErrHostKey)
		return fault.Hint(err, "compare the fingerprint and connect once from a terminal, or add the key: ssh-keyscan %s >>%s", scanArgs(hostname), h.file)
	}
	answer, err := h.ask(fmt.Sprintf("The authenticity of host '%s' can't be established.\nIts key is %s, which nobody here has seen before.\nConnect, and expect this key from now on (yes/no)? ",
		host(hostname), fingerprint(key)), true)
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"yes", "y"}, strings.ToLower(strings.TrimSpace(answer))) {
		return ErrHostKey
	}
	if err := h.remember(hostname, key); err != nil {
		// The person has said yes: the connection does not depend on the file.
		h.warn("The key of %s is not remembered: %v", host(hostname), err)
		return nil
	}
	h.warn("Remembered the key of %s in %s.", host(hostname), h.file)
	return nil
}

// changed refuses a key that is not the one we know.
func (h hostKeys) changed(hostname string, key ssh.PublicKey, want []knownhosts.KnownKey) error {
	const line = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@"
	h.warn("%s\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n%s", line, line)
	h.warn("%s showed the key %s.", host(hostname), fingerprint(key))
	for _, k := range want {
		h.warn("%s line %d expects  %s.", k.Filename, k.Line, fingerprint(k.Key))
	}
	h.warn("Either the machine was installed anew, or somebody sits between it and you and reads along.")
	if h.lax {
		h.warn("Connecting all the same: --strict-host-key-checking=false.")
		return nil
	}
	return fault.Hint(ErrHostKey, "if the machine was installed anew, forget its old key and connect again: ssh-keygen -f %s -R '%s'",
		want[0].Filename, knownhosts.Normalize(hostname))
}

// remember adds a key to the file, which is written whole: who reads it meanwhile
// sees all of the old or all of the new one.
func (h hostKeys) remember(hostname string, key ssh.PublicKey) error {
	old, err := os.ReadFile(h.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(old) > 0 && !bytes.HasSuffix(old, []byte("\n")) {
		old = append(old, '\n')
	}
	if err := os.MkdirAll(filepath.Dir(h.file), 0o700); err != nil {
		return err
	}
	line := knownhosts.Line([]string{hostname}, key) + "\n"
	return atomicfile.Write(h.file, append(old, line...), 0o600)
}

// preferred are the host key algorithms of the keys that are known of a host, and
// then all others, so that a changed key is seen as such. nil leaves the order to the
// library.
func preferred(known ssh.HostKeyCallback, address string) []string {
	var have *knownhosts.KeyError
	// No host has this key: the answer lists those that it has.
	if err := known(address, &net.TCPAddr{}, noKey{}); !errors.As(err, &have) {
		return nil
	}
	var first []string
	for _, k := range have.Want {
		first = append(first, algorithmsOf(k.Key.Type())...)
	}
	if len(first) == 0 {
		return nil
	}
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		if !slices.Contains(first, a) {
			first = append(first, a)
		}
	}
	return first
}

// algorithmsOf are the signature algorithms of a key type, also for certificates that
// such a key has signed or is in.
func algorithmsOf(keyType string) []string {
	var out []string
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		plain := strings.Replace(a, "-cert-v01@openssh.com", "", 1)
		if plain == keyType || keyType == ssh.KeyAlgoRSA && (plain == ssh.KeyAlgoRSASHA256 || plain == ssh.KeyAlgoRSASHA512) {
			out = append(out, a)
		}
	}
	return out
}

// noKey is a public key that is nobody's.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

func fingerprint(key ssh.PublicKey) string {
	return strings.TrimPrefix(key.Type(), "ssh-") + " " + ssh.FingerprintSHA256(key)
}

// host is a host as people write it: without the usual port.
func host(hostname string) string { return knownhosts.Normalize(hostname) }

// scanArgs is a host as ssh-keyscan(1) wants it.
func scanArgs(hostname string) string {
	name, port, err := net.SplitHostPort(hostname)
	if err != nil || port == "22" {
		return host(hostname)
	}
	return "-p " + port + " " + name
}
