package fleetctl

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flotilla/client/fleet"
	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/endpoint"
	"flotilla/internal/fault"
	"flotilla/internal/logx"
	"flotilla/internal/tlsfile"
	"flotilla/internal/tunnel"
)

// Applet is the program fleetctl.
func Applet() applet.Applet {
	return applet.Applet{
		Name:      "fleetctl",
		Group:     "Units",
		Summary:   "start, stop and look at the cluster's units",
		Completes: true,
		Run:       run,
	}
}

func run(ctx context.Context, env applet.Env) int {
	s := &session{env: env, ctx: ctx}
	defer s.close()
	root := s.root()
	args, err := resolveCommand(root, cli.SingleDash(root, env.Args))
	if err == nil {
		err = envFlags(root.PersistentFlags(), env)
	}
	if err != nil {
		fault.Print(env.Stderr, root.Name(), err)
		return fault.ExitCode(err)
	}
	env.Args = keepRemoteCommand(root, args, env.Args)
	return cli.Run(ctx, env, root)
}

// session is one invocation: its streams, its global flags and its client.
type session struct {
	env    applet.Env
	global globals
	client *fleet.Client // made by api
	// ctx is the invocation's. Only what has to be there before a request is made,
	// the tunnel, takes it from here.
	ctx    context.Context
	tunnel *tunnel.Client // made by through; nil without --tunnel
	bySSH  bySSH          // of status and journal
	// unattended: nobody can be asked or told anything, for it is a shell that asks
	// us to complete a word.
	unattended bool
}

// globals are the flags that every command has.
type globals struct {
	endpoint string
	driver   string
	timeout  seconds
	debug    bool
	caFile   string
	certFile string
	keyFile  string
	// etcdPrefix is of the driver etcd alone, which there is not.
	etcdPrefix string
	reach      reach
}

func (s *session) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "fleetctl",
		Short: "start, stop and look at the cluster's units",
		Long: "fleetctl " + applet.Version + ": start, stop and look at the cluster's units.\n\n" +
			"A unit is named as its file is; \".service\" may be left out. hello@{1..3} names three\n" +
			"instances, 'hello@*' all that the cluster knows (stop, unload, destroy, status, list-*).\n" +
			"Commands may be shortened as long as they are unambiguous. Every flag below has an\n" +
			"environment variable: --endpoint is FLEETCTL_ENDPOINT.",
		Version: applet.Version,
		Args:    cobra.ArbitraryArgs,
	}
	root.SetVersionTemplate("fleetctl version {{.Version}}\n")
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	s.globalFlags(root.PersistentFlags())
	s.addCommands(root)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// addCommands adds every command, below the heading that it is helped under.
func (s *session) addCommands(root *cobra.Command) {
	for _, group := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"units", "Units:", []*cobra.Command{s.submit(), s.load(), s.start(), s.stop(), s.restart(), s.unload(), s.destroy(), s.adopt(), s.eject()}},
		{"changes", "Changes:", []*cobra.Command{s.apply(), s.rolls(), s.roll(), s.history(), s.rollback()}},
		{"machines", "Machines:", []*cobra.Command{s.listMachines(), s.cordon(), s.uncordon(), s.drain(), s.forget(), s.rebalance(), s.whatIf()}},
		{"looking", "Looking:", []*cobra.Command{s.listUnits(), s.listUnitFiles(), s.status(), s.cat(), s.logs(), s.journal(), s.events(), s.why(), s.doctor(), s.ssh()}},
		{"other", "Other:", []*cobra.Command{s.verify(), s.version(), s.fdForward()}},
	} {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, cmd := range group.commands {
			cmd.GroupID = group.id
			s.completeFlags(cmd)
			root.AddCommand(cmd)
		}
	}
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
}

func (s *session) globalFlags(f *pflag.FlagSet) {
	s.global.timeout = seconds(fleet.DefaultRequestTimeout)
	f.StringVar(&s.global.endpoint, "endpoint", "", "fleet API: unix:///PATH, http://HOST:PORT or https://HOST:PORT (default: this machine's daemon, else a running 'flotilla up')")
	f.StringVar(&s.global.driver, "driver", "API", "how to reach the cluster; API is the only one")
	f.Var(&s.global.timeout, "request-timeout", "limit of one request, in seconds or as 500ms")
	f.BoolVar(&s.global.debug, "debug", false, "tell every request on stderr")
	f.StringVar(&s.global.caFile, "ca-file", "", "https: certificate authority that vouches for the server (default: the system's)")
	f.StringVar(&s.global.certFile, "cert-file", "", "https: certificate to show to the server")
	f.StringVar(&s.global.keyFile, "key-file", "", "https: key of that certificate")
	s.global.reach.flags(f)
	s.oldFlags(f)
}

// oldFlags are those that fleet had given up before 1.0 and still took, and the one of
// its etcd driver.
func (s *session) oldFlags(f *pflag.FlagSet) {
	s.oldFlag(f, "experimental-api", "the API is all there is", nil).NoOptDefVal = "true"
	s.oldFlag(f, "etcd-cafile", "it is --ca-file", &s.global.caFile)
	s.oldFlag(f, "etcd-certfile", "it is --cert-file", &s.global.certFile)
	s.oldFlag(f, "etcd-keyfile", "it is --key-file", &s.global.keyFile)
	f.StringVar(&s.global.etcdPrefix, "etcd-key-prefix", "", "")
	_ = f.MarkHidden("etcd-key-prefix") // it exists: defined above
}

// oldFlag is a flag that is taken, with a notice of what is to be written now.
func (s *session) oldFlag(f *pflag.FlagSet, name, now string, to *string) *pflag.Flag {
	old := f.VarPF(&oldValue{s: s, name: name, now: now, to: to}, name, "", "")
	old.Hidden = true
	return old
}

// oldValue is the value of an old flag. cobra's own notice would go to standard output.
type oldValue struct {
	s         *session
	name, now string
	to        *string // nil: the value means nothing any more
}

func (o *oldValue) String() string { return "" }
func (o *oldValue) Type() string   { return "string" }

func (o *oldValue) Set(v string) error {
	o.s.warn("note: --%s is an old flag: %s", o.name, o.now)
	if o.to != nil {
		*o.to = v
	}
	return nil
}

// envFlags gives flags the values of their FLEETCTL_ variables; the command line is
// read later and wins.
func envFlags(flags *pflag.FlagSet, env applet.Env) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		key := "FLEETCTL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v := env.Getenv(key); v != "" {
			if err := f.Value.Set(v); err != nil {
				errs = append(errs, fmt.Errorf("environment variable %s=%q: %w", key, v, err))
			}
		}
	})
	return fault.Code(fault.ExitUsage, errors.Join(errs...))
}

// seconds is a duration flag that takes plain seconds, as the original did.
type seconds time.Duration

func (s *seconds) String() string { return time.Duration(*s).String() }
func (s *seconds) Type() string   { return "SECONDS" }

func (s *seconds) Set(v string) error {
	d, err := time.ParseDuration(v)
	if f, ferr := strconv.ParseFloat(v, 64); ferr == nil {
		d, err = time.Duration(f*float64(time.Second)), nil
	}
	if err != nil || d <= 0 {
		return fmt.Errorf("want seconds above 0, such as 3 or 500ms")
	}
	*s = seconds(d)
	return nil
}

// api returns the client of this invocation, made on first use.
func (s *session) api() (*fleet.Client, error) {
	if s.client != nil {
		return s.client, nil
	}
	c, err := s.newClient()
	if err != nil {
		return nil, sentence("Unable to initialize client: %w", err)
	}
	s.client = c
	return c, nil
}

func (s *session) newClient() (*fleet.Client, error) {
	if s.global.driver != "API" {
		return nil, fault.Hint(fmt.Errorf("unrecognized driver %q", s.global.driver),
			"leave out --driver (FLEETCTL_DRIVER) and give the fleet API as --endpoint")
	}
	if s.global.etcdPrefix != "" {
		return nil, fault.Hint(errors.New("--etcd-key-prefix is an option of the driver etcd"), "leave it out, and FLEETCTL_ETCD_KEY_PREFIX; fleetd has etcd_key_prefix in its fleet.conf")
	}
	at := s.global.endpoint
	switch {
	case at != "":
	case s.global.reach.tunnel != "":
		at = fleet.DefaultEndpoint // there, not here
	default:
		at = endpoint.Fleet(s.env)
	}
	if first, rest, several := strings.Cut(at, ","); several {
		fmt.Fprintf(s.env.Stderr, "WARNING: only the first endpoint is used: %s (not %s)\n", first, rest)
		at = first
	}
	tlsConfig, err := s.tls()
	if err != nil {
		return nil, err
	}
	dial, err := s.dial()
	if err != nil {
		return nil, err
	}
	return fleet.New(fleet.Config{Endpoint: at, RequestTimeout: time.Duration(s.global.timeout), TLS: tlsConfig, Dial: dial, Log: s.log()})
}

func (s *session) log() *slog.Logger {
	if s.global.debug {
		return logx.New(s.env.Stderr, slog.LevelDebug)
	}
	return logx.Discard()
}

// tls reads the certificates; nil without any. The server is verified always.
func (s *session) tls() (*tls.Config, error) {
	return tlsfile.Files{
		CA:   tlsfile.File{Setting: "--ca-file", Path: s.global.caFile},
		Cert: tlsfile.File{Setting: "--cert-file", Path: s.global.certFile},
		Key:  tlsfile.File{Setting: "--key-file", Path: s.global.keyFile},
	}.Client()
}

// reporting makes a command's function. Its errors are printed the way the
// original did, without the program's name in front; usage errors are left to cli.
func (s *session) reporting(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := f(cmd.Context(), args)
		if code := fault.ExitCode(err); code != fault.ExitUsage || err == nil {
			s.report(err)
			return fault.Code(code, silent(err))
		}
		return err
	}
}

func silent(err error) error {
	if err == nil {
		return nil
	}
	return fault.ErrSilent
}

// report prints err and what to try.
func (s *session) report(err error) {
	if err == nil || errors.Is(err, fault.ErrSilent) {
		return
	}
	fmt.Fprintln(s.env.Stderr, err)
	for _, h := range append(fault.Hints(err), apiHints(err)...) {
		fmt.Fprintf(s.env.Stderr, "hint: %s\n", h)
	}
}

// apiHints says what to try when the API failed, or did not answer.
func apiHints(err error) []string {
	var e *fleet.Error
	switch {
	case !errors.As(err, &e):
		return nil
	case e.Hint != "":
		return []string{e.Hint}
	case isClassic(err) && !strings.HasSuffix(e.Request, "/status") && !strings.HasSuffix(e.Request, "/journal"):
		return []string{"this server does not have that: it is older than this fleetctl"}
	case isClassic(err):
		return []string{"this server does not have that; on the unit's machine 'systemctl status' and 'journalctl -u' say the same"}
	case errors.Is(err, fs.ErrPermission):
		return []string{"the socket belongs to somebody else: run this as root, as its owner, or as a member of its group ('fleet' where the package has made it)"}
	case e.Code == 0 && errors.Is(err, fleet.ErrUnavailable):
		return []string{
			"start the daemon: 'systemctl start fleet' where it is installed, 'flotilla up' for a first try",
			"if it runs elsewhere, name it with --endpoint or FLEETCTL_ENDPOINT",
		}
	case e.Code == http.StatusServiceUnavailable || e.Code == http.StatusInternalServerError && e.Message == "":
		return []string{"the daemon answers and cannot reach the store: units go on running; 'journalctl -u fleet' and 'journalctl -u etcd' say more"}
	}
	return nil
}

// noArgs refuses arguments. cobra's own check speaks of an unknown command.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, got %q", cmd.Name(), args[0])
	}
	return nil
}

// sentence makes an error of one of the original's sentences, which begin with a
// capital.
func sentence(format string, args ...any) error { return fmt.Errorf(format, args...) }
