package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// keyring is the keys that we can show to one server.
type keyring struct {
	socket         string   // the agent's; "" for none
	files          []string // private keys, each perhaps with FILE.pub and FILE-cert.pub
	identitiesOnly bool
	ask            asker
	patience       time.Duration // with the agent, when it is asked what it holds

	asked bool      // the server takes keys
	agent io.Closer // the connection to the agent, when there is one
	names []string  // what was offered, for messages
	notes []string  // why other keys were not, for messages
}

// asker asks the person at the terminal; nil where there is none.
type asker func(question string, echo bool) (string, error)

// signers are the keys in the order in which they are offered: those of the agent
// that were named, its others, then the files that the agent does not hold. A server
// gives up after a few, so the likeliest come first.
func (k *keyring) signers() ([]ssh.Signer, error) {
	k.asked = true
	var fromFiles []ssh.Signer
	var named [][]byte // public keys that the files speak of
	for _, path := range k.files {
		signers, public := k.file(path)
		fromFiles = append(fromFiles, signers...)
		named = append(named, public...)
	}
	isNamed := func(s ssh.Signer) bool {
		return slices.ContainsFunc(named, func(b []byte) bool { return bytes.Equal(b, s.PublicKey().Marshal()) })
	}
	var first, rest []ssh.Signer
	var held [][]byte
	for _, s := range k.fromAgent() {
		switch {
		case isNamed(s):
			first = append(first, s)
		case !k.identitiesOnly:
			rest = append(rest, s)
		default:
			continue
		}
		held = append(held, s.PublicKey().Marshal())
	}
	fromFiles = slices.DeleteFunc(fromFiles, func(s ssh.Signer) bool {
		return slices.ContainsFunc(held, func(b []byte) bool { return bytes.Equal(b, s.PublicKey().Marshal()) })
	})
	all := slices.Concat(first, rest, fromFiles)
	for _, s := range all {
		k.names = append(k.names, s.PublicKey().Type()+" "+ssh.FingerprintSHA256(s.PublicKey()))
	}
	return all, nil
}

func (k *keyring) note(format string, args ...any) {
	k.notes = append(k.notes, fmt.Sprintf(format, args...))
}

// fromAgent are the keys that the agent holds. That it does not answer is no
// failure: there may be files.
func (k *keyring) fromAgent() []ssh.Signer {
	if k.socket == "" {
		k.note("no agent: SSH_AUTH_SOCK is not set")
		return nil
	}
	conn, err := net.DialTimeout("unix", k.socket, k.patience)
	if err != nil {
		k.note("no agent: %v", err)
		return nil
	}
	k.agent = conn // signing needs it until the handshake is over
	// To sign may take as long as somebody takes to agree to it.
	_ = conn.SetDeadline(time.Now().Add(k.patience))
	signers, err := agent.NewClient(conn).Signers()
	_ = conn.SetDeadline(time.Time{})
	switch {
	case err != nil:
		k.note("the agent at %s does not answer: %v", k.socket, err)
	case len(signers) == 0:
		k.note("the agent at %s holds no keys (ssh-add adds them)", k.socket)
	}
	return signers
}

// close lets the agent go.
func (k *keyring) close() {
	if k.agent != nil {
		k.agent.Close()
	}
}

// file reads a private key and the certificate beside it. public are the public keys
// that the file stands for, also where the private one is only in the agent.
func (k *keyring) file(path string) (signers []ssh.Signer, public [][]byte) {
	pub := publicKey(path + ".pub")
	if pub != nil {
		public = append(public, pub.Marshal())
	}
	signer, err := k.private(path, pub)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		k.note("%s: %v", path, err)
	}
	if signer == nil {
		return nil, public
	}
	public = append(public, signer.PublicKey().Marshal())
	if cert, ok := publicKey(path + "-cert.pub").(*ssh.Certificate); ok {
		certified, err := ssh.NewCertSigner(cert, signer)
		if err != nil {
			k.note("%s-cert.pub: %v", path, err)
		} else {
			signers = append(signers, certified)
			public = append(public, cert.Marshal())
		}
	}
	return append(signers, signer), public
}

// publicKey reads a public key or certificate; nil if there is none to be read.
func publicKey(path string) ssh.PublicKey {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil
	}
	return key
}

// private reads a private key. One with a passphrase is opened only when a server
// wants it, if it is known which public key it is.
func (k *keyring) private(path string, public ssh.PublicKey) (ssh.Signer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(b)
	var locked *ssh.PassphraseMissingError
	if !errors.As(err, &locked) {
		return signer, err
	}
	if k.ask == nil {
		return nil, errors.New("it has a passphrase, and there is no terminal to ask for it (ssh-add gives the key to an agent)")
	}
	if locked.PublicKey != nil {
		public = locked.PublicKey
	}
	l := &lockedKey{path: path, pem: b, public: public, ask: k.ask}
	if public == nil {
		return l.open()
	}
	return l, nil
}

// lockedKey is a private key with a passphrase, which is asked for at its first use.
type lockedKey struct {
	path   string
	pem    []byte
	public ssh.PublicKey
	ask    asker
	opened ssh.Signer
}

var _ ssh.AlgorithmSigner = (*lockedKey)(nil)

func (l *lockedKey) PublicKey() ssh.PublicKey { return l.public }

func (l *lockedKey) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return l.SignWithAlgorithm(rand, data, "")
}

func (l *lockedKey) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	signer, err := l.open()
	if err != nil {
		return nil, err
	}
	if as, ok := signer.(ssh.AlgorithmSigner); ok {
		return as.SignWithAlgorithm(rand, data, algorithm)
	}
	return signer.Sign(rand, data)
}

// passphraseTries is how often a passphrase is asked for, as in ssh(1).
const passphraseTries = 3

func (l *lockedKey) open() (ssh.Signer, error) {
	if l.opened != nil {
		return l.opened, nil
	}
	for range passphraseTries {
		phrase, err := l.ask(fmt.Sprintf("Enter passphrase for key '%s': ", l.path), false)
		if err != nil {
			return nil, err
		}
		l.opened, err = ssh.ParsePrivateKeyWithPassphrase(l.pem, []byte(phrase))
		if err == nil {
			return l.opened, nil
		}
		l.opened = nil
	}
	return nil, fmt.Errorf("%s: wrong passphrase %d times", l.path, passphraseTries)
}

// forwardAgent lets programs on the server use the agent of this machine.
func forwardAgent(ctx context.Context, client *ssh.Client, socket string) error {
	if socket == "" {
		return errors.New("there is no agent to forward: SSH_AUTH_SOCK is not set")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("there is no agent to forward: %w", err)
	}
	conn.Close()
	return agent.ForwardToRemote(client, socket)
}
