package locksmithctl

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flotilla/client/keys"
	"flotilla/internal/applet"
	"flotilla/internal/endpoint"
	"flotilla/internal/fault"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/tlsfile"
)

// session is one run of the program: its global flags, and the store they describe.
type session struct {
	env     applet.Env
	machine Machine

	endpoints                 []string
	caFile, certFile, keyFile string
	username, password        string
	group                     string
	debug                     bool
}

func (s *session) flags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&s.endpoints, "endpoint", nil, "client URLs of the store, with commas in between; may be repeated (by default the store of this machine)")
	fs.StringVar(&s.caFile, "etcd-cafile", "", "authority that the store's certificates are verified with")
	fs.StringVar(&s.certFile, "etcd-certfile", "", "certificate to show to the store")
	fs.StringVar(&s.keyFile, "etcd-keyfile", "", "its key")
	fs.StringVar(&s.username, "etcd-username", "", "user at the store")
	fs.StringVar(&s.password, "etcd-password", "", "that user's password")
	fs.StringVar(&s.group, "group", "", "group of machines that has a lock of its own")
	fs.BoolVar(&s.debug, "debug", false, "print each request to the store on stderr")
}

// fromEnvironment fills in the flags that were not given from LOCKSMITHCTL_...
func (s *session) fromEnvironment(c *cobra.Command) error {
	var err error
	c.Root().PersistentFlags().VisitAll(func(f *pflag.Flag) {
		name := "LOCKSMITHCTL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		v := s.env.Getenv(name)
		if f.Changed || v == "" {
			return
		}
		if serr := f.Value.Set(v); serr != nil {
			err = errors.Join(err, fmt.Errorf("%s=%s: %w", name, v, serr))
		}
	})
	return fault.Code(fault.ExitUsage, err)
}

// store makes the client of the store. The caller closes it.
func (s *session) store() (*keys.Client, error) {
	cfg := keys.Config{Endpoints: s.endpoints, Username: s.username, Password: s.password}
	if len(cfg.Endpoints) == 0 {
		cfg.Endpoints = endpoint.Store(s.env)
	}
	var err error
	if cfg.TLS, err = s.tls(); err != nil {
		return nil, err
	}
	if s.debug {
		cfg.OnRequest = func(r *http.Request, body string) {
			fmt.Fprintf(s.env.Stderr, "%s %s %s\n", r.Method, r.URL, body)
		}
	}
	return keys.New(cfg)
}

// tls is what the flags say about https endpoints; nil if they say nothing.
func (s *session) tls() (*tls.Config, error) {
	return tlsfile.Files{
		CA:   tlsfile.File{Setting: "-etcd-cafile", Path: s.caFile},
		Cert: tlsfile.File{Setting: "-etcd-certfile", Path: s.certFile},
		Key:  tlsfile.File{Setting: "-etcd-keyfile", Path: s.keyFile},
	}.Client()
}

// with calls fn with the lock of the group, and says what to try if the store does
// not answer.
func (s *session) with(fn func(*lock.Lock) error) error {
	c, err := s.store()
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := lock.New(c, s.group)
	if err != nil {
		return err
	}
	return hinted(fn(l))
}

// hinted adds what to try next to what has happened to the store.
func hinted(err error) error {
	var away *keys.UnreachableError
	if errors.As(err, &away) {
		return fault.Hint(err, "-endpoint or LOCKSMITHCTL_ENDPOINT says where the store is")
	}
	return err
}

// id is the machine that a command is about: the one named, else this one.
func (s *session) id(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	id, err := s.machine.ID()
	if err != nil {
		return "", fault.Hint(fmt.Errorf("which machine? %w", err), "name one: its id is in its /etc/machine-id")
	}
	return id, nil
}
