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
	known, authorities, err := h.load()
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
		var unknown *knownhosts.KeyError
		if errors.As(verdict, &unknown) {
			// An authority's key is not a host's: that it is another one says nothing.
			unknown.Want = slices.DeleteFunc(unknown.Want, func(k knownhosts.KnownKey) bool { return authorities[k.Line] })
		}
		return h.judge(hostname, key, verdict)
	}
	return check, preferred(known, authorities, address), nil
}

// load reads the known hosts, and the numbers of the lines about authorities. A file
// that is not there knows nobody.
func (h hostKeys) load() (known ssh.HostKeyCallback, authorities map[int]bool, err error) {
	text, err := os.ReadFile(h.file)
	if errors.Is(err, fs.ErrNotExist) {
		known, err = knownhosts.New()
		return known, nil, err
	}
	if err == nil {
		known, err = knownhosts.New(h.file)
	}
	if err != nil {
		return nil, nil, fault.Hint(fmt.Errorf("read known hosts: %w", err), "correct or remove that line, or name another file with --known-hosts-file")
	}
	authorities = map[int]bool{}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		authorities[n] = bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte("@cert-authority"))
	}
	return known, authorities, nil
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

// preferred are the host key algorithms in the order in which we want them: what the
// known keys of the host are for, then all others, so that a changed key is seen as
// such. Of an unknown host we want the Ed25519 key, as ssh(1) does.
func preferred(known ssh.HostKeyCallback, authorities map[int]bool, address string) []string {
	all := ssh.SupportedAlgorithms().HostKeys
	var order []string
	var have *knownhosts.KeyError
	// No host has this key: the answer lists those that it has.
	if err := known(address, &net.TCPAddr{}, noKey{}); errors.As(err, &have) {
		for _, k := range have.Want {
			order = append(order, algorithmsFor(k.Key.Type(), authorities[k.Line], all)...)
		}
	}
	if order == nil {
		order = []string{ssh.KeyAlgoED25519}
	}
	for _, a := range all {
		if !slices.Contains(order, a) {
			order = append(order, a)
		}
	}
	return order
}

// algorithmsFor are the algorithms by which a host can prove to have a key of that
// type; or any certificate, if the key is an authority's.
func algorithmsFor(keyType string, authority bool, all []string) []string {
	var out []string
	for _, a := range all {
		switch certificate := strings.Contains(a, "-cert-"); {
		case certificate != authority:
		case authority, a == keyType,
			keyType == ssh.KeyAlgoRSA && (a == ssh.KeyAlgoRSASHA256 || a == ssh.KeyAlgoRSASHA512):
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
