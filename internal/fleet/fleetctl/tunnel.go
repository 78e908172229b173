package fleetctl

import (
	"context"
	"fmt"
	"net"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flotilla/internal/fault"
	"flotilla/internal/tunnel"
)

// reach is the global flags about SSH.
type reach struct {
	tunnel     string
	user       string
	timeout    seconds
	strict     bool
	knownHosts string
}

func (r *reach) flags(f *pflag.FlagSet) {
	r.timeout = seconds(tunnel.DefaultTimeout)
	f.StringVar(&r.tunnel, "tunnel", "", "reach the fleet API and the machines through this host: [USER@]HOST[:PORT]")
	f.StringVar(&r.user, "ssh-username", "", "user on the machines (default: what ~/.ssh/config says, else core)")
	f.Var(&r.timeout, "ssh-timeout", "limit of connecting by SSH, in seconds or as 500ms")
	f.BoolVar(&r.strict, "strict-host-key-checking", true, "refuse machines whose SSH host key is not the known one")
	f.StringVar(&r.knownHosts, "known-hosts-file", "~/.fleetctl/known_hosts", "SSH host keys of the machines")
}

// sshConfig is how to reach a server with the global flags.
func (s *session) sshConfig(at tunnel.Address) (tunnel.Config, error) {
	r := s.global.reach
	known, err := expandHome(r.knownHosts, s.env.Getenv("HOME"))
	if err != nil {
		return tunnel.Config{}, fmt.Errorf("--known-hosts-file %s: %w", r.knownHosts, err)
	}
	cfg := tunnel.Config{
		Server:      at,
		User:        r.user,
		Timeout:     time.Duration(r.timeout),
		KnownHosts:  known,
		AnyHostKey:  !r.strict,
		Home:        s.env.Getenv("HOME"),
		AgentSocket: s.env.Getenv("SSH_AUTH_SOCK"),
	}
	if s.unattended {
		return cfg, nil
	}
	cfg.Warn = s.warn
	if t := tunnel.TerminalOf(s.env.Stdin, s.env.Stderr); t != nil {
		cfg.Terminal = t
	}
	return cfg, nil
}

// expandHome replaces ~ and ~USER at the beginning of a path.
func expandHome(path, home string) (string, error) {
	rest, ok := strings.CutPrefix(path, "~")
	if !ok {
		return path, nil
	}
	name, rest, _ := strings.Cut(rest, "/")
	if name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		home = u.HomeDir
	}
	return filepath.Join(home, rest), nil
}

// through returns the connection to the --tunnel host, made on first use; nil without
// one.
func (s *session) through(ctx context.Context) (*tunnel.Client, error) {
	if s.global.reach.tunnel == "" || s.tunnel != nil {
		return s.tunnel, nil
	}
	at, err := tunnel.ParseAddress(s.global.reach.tunnel)
	if err != nil {
		return nil, fault.Code(fault.ExitUsage, err)
	}
	cfg, err := s.sshConfig(at)
	if err == nil {
		s.tunnel, err = tunnel.Dial(ctx, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("failed initializing SSH client: %w", err)
	}
	return s.tunnel, nil
}

// dial is how the client of the API connects: through the tunnel; nil without one.
// The tunnel is dug here, before any request: its questions to the person at the
// terminal must not eat up a request's time.
func (s *session) dial() (func(ctx context.Context, network, address string) (net.Conn, error), error) {
	via, err := s.through(s.ctx)
	if err != nil || via == nil {
		return nil, err
	}
	return via.DialContext, nil
}

// close ends what the invocation has opened.
func (s *session) close() {
	if s.tunnel != nil {
		s.tunnel.Close()
	}
}

func (s *session) fdForward() *cobra.Command {
	return &cobra.Command{
		Use:   "fd-forward SOCKET",
		Short: "join standard input and output to a unix socket (the far end of --tunnel)",
		Args:  cobra.ExactArgs(1),
		RunE: s.reporting(func(ctx context.Context, args []string) error {
			if err := tunnel.Forward(ctx, args[0], s.env.Stdin, s.env.Stdout); err != nil {
				return fmt.Errorf("unable to forward to %s: %w", args[0], err)
			}
			return nil
		}),
	}
}
