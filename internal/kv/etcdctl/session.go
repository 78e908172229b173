package etcdctl

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/client/keys"
	"flotilla/internal/applet"
	"flotilla/internal/endpoint"
	"flotilla/internal/fault"
	"flotilla/internal/kv/tokentls"
	"flotilla/internal/tlsfile"
)

// session is one run of etcdctl: the global flags, and the client they describe.
type session struct {
	env    applet.Env
	global *flag.FlagSet
	client *keys.Client // after connect
	// untrusted: an endpoint was asked without certificates that it is trusted by.
	untrusted bool

	output                     string
	debug, noSync, version     bool
	endpoints, endpoint, peers string
	domain                     string
	insecureDiscovery          bool
	certFile, keyFile, caFile  string
	username                   string
	user, password             string // after connect
	timeout, totalTimeout      time.Duration

	lookupSRV func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

func newSession(env applet.Env) *session {
	s := &session{env: env, global: flag.NewFlagSet("etcdctl", flag.ContinueOnError), lookupSRV: net.DefaultResolver.LookupSRV}
	fs := s.global
	fs.SetOutput(io.Discard)
	text := func(p *string, value, usage string, names ...string) {
		for _, n := range names {
			fs.StringVar(p, n, value, usage)
		}
	}
	text(&s.output, "simple", "how to print answers: simple, extended or json", "output", "o")
	text(&s.endpoints, "", "client URLs of the store, with commas in between [$ETCDCTL_ENDPOINTS]", "endpoints")
	text(&s.endpoint, "", "older name of --endpoints [$ETCDCTL_ENDPOINT]", "endpoint")
	text(&s.peers, "", "oldest name of --endpoints [$ETCDCTL_PEERS]", "peers", "C")
	text(&s.domain, env.Getenv("ETCDCTL_DISCOVERY_SRV"), "find the store by the SRV records of this domain [$ETCDCTL_DISCOVERY_SRV]", "discovery-srv", "D")
	text(&s.certFile, env.Getenv("ETCDCTL_CERT_FILE"), "certificate to show to https endpoints [$ETCDCTL_CERT_FILE]", "cert-file")
	text(&s.keyFile, env.Getenv("ETCDCTL_KEY_FILE"), "its key [$ETCDCTL_KEY_FILE]", "key-file")
	text(&s.caFile, env.Getenv("ETCDCTL_CA_FILE"), "authorities that https endpoints are checked against [$ETCDCTL_CA_FILE]", "ca-file")
	text(&s.username, env.Getenv("ETCDCTL_USERNAME"), "NAME[:PASSWORD]; asks for a missing password [$ETCDCTL_USERNAME]", "username", "u")
	fs.BoolVar(&s.insecureDiscovery, "insecure-discovery", env.Getenv("ETCDCTL_INSECURE_DISCOVERY") == "true", "take SRV records of plain http too")
	fs.BoolVar(&s.debug, "debug", false, "print each request as a curl command on stderr")
	fs.BoolVar(&s.noSync, "no-sync", false, "use the endpoints as given, without asking for the member list")
	fs.DurationVar(&s.timeout, "timeout", 2*time.Second, "limit of one request; watches have none")
	fs.DurationVar(&s.totalTimeout, "total-timeout", 5*time.Second, "limit of the whole command; watches have none")
	fs.BoolVar(&s.version, "version", false, "print the version")
	fs.BoolVar(&s.version, "v", false, "print the version")
	return s
}

// knownOutput tells whether --output is a form that there is. Asking for another
// is, as it always was, no failure.
func (s *session) knownOutput() bool {
	switch s.output {
	case "simple", "extended", "json":
		return true
	}
	fmt.Fprintf(s.env.Stderr, "Unsupported output format: %s\n", s.output)
	return false
}

// connect makes the client and, unless the command or --no-sync says otherwise,
// replaces the endpoints by those that the members advertise.
func (s *session) connect(ctx context.Context, offline bool) error {
	eps, err := s.where(ctx)
	if err != nil {
		return fault.Code(exitUsage, said{err})
	}
	cfg := keys.Config{Endpoints: eps, Timeout: s.timeout, TotalTimeout: s.totalTimeout}
	if cfg.TLS, err = s.tls(); err != nil {
		return fault.Code(exitUsage, said{err})
	}
	if s.user, s.password, err = s.credentials(); err != nil {
		return fault.Code(exitUsage, said{err})
	}
	cfg.Username, cfg.Password = s.user, s.password
	if s.debug {
		cfg.OnRequest = s.curl
	}
	if s.client, err = keys.New(cfg); err != nil {
		return fault.Code(exitUsage, said{err})
	}
	if offline || s.noSync {
		s.tellEndpoints(s.client.Endpoints())
		return nil
	}
	return s.sync(ctx)
}

// where is the endpoints to begin with, by the classic precedence.
func (s *session) where(ctx context.Context) ([]string, error) {
	if s.domain != "" {
		return s.bySRV(ctx)
	}
	for _, v := range []string{
		s.endpoints, s.env.Getenv("ETCDCTL_ENDPOINTS"),
		s.endpoint, s.env.Getenv("ETCDCTL_ENDPOINT"),
		s.peers, s.env.Getenv("ETCDCTL_PEERS"),
	} {
		if v != "" {
			return strings.Split(v, ","), nil
		}
	}
	return endpoint.Store(s.env), nil
}

// bySRV reads the records _etcd-client-ssl._tcp and _etcd-client._tcp.
func (s *session) bySRV(ctx context.Context) ([]string, error) {
	var eps []string
	var errs []error
	for _, service := range []struct{ name, scheme string }{{"etcd-client-ssl", "https"}, {"etcd-client", "http"}} {
		_, records, err := s.lookupSRV(ctx, service.name, "tcp", s.domain)
		errs = append(errs, err)
		for _, r := range records {
			ep := fmt.Sprintf("%s://%s:%d", service.scheme, strings.TrimSuffix(r.Target, "."), r.Port)
			if service.scheme == "http" && !s.insecureDiscovery {
				fmt.Fprintf(s.env.Stderr, "ignoring discovered insecure endpoint %q\n", ep)
				continue
			}
			eps = append(eps, ep)
		}
	}
	if len(eps) > 0 {
		return eps, nil
	}
	err := fmt.Errorf("no endpoints by the SRV records of %s: %w", s.domain, errors.Join(errs...))
	return nil, fault.Hint(err, "--insecure-discovery takes records of plain http too")
}

// sync asks for the member list and goes on with the client URLs in it, those that
// were given first. Only a store that is away and a list without any URL are
// failures: the command itself will find out about the rest.
func (s *session) sync(ctx context.Context) error {
	given := s.client.Endpoints()
	if s.debug {
		fmt.Fprintf(s.env.Stderr, "start to sync cluster using endpoints(%s)\n", strings.Join(given, ","))
	}
	members, err := s.client.Members(ctx)
	var away *keys.UnreachableError
	if errors.As(err, &away) {
		return fault.Code(exitUnreachable, err)
	}
	if err != nil {
		return nil
	}
	var known []string
	for _, m := range members {
		known = append(known, m.ClientURLs...)
	}
	if len(known) == 0 {
		return fault.Code(exitStore, fault.Hint(said{classic("etcd cluster has no published client endpoints.")},
			"Try '--no-sync' if you want to access non-published client endpoints(%s).", strings.Join(given, ",")))
	}
	if known = s.usable(known, given); len(known) == 0 {
		return nil // the endpoints stay as given
	}
	slices.SortStableFunc(known, func(a, b string) int { return rank(given, a) - rank(given, b) })
	if s.debug {
		fmt.Fprintf(s.env.Stderr, "got endpoints(%s) after sync\n", strings.Join(known, ","))
	}
	s.tellEndpoints(known)
	if err := s.client.SetEndpoints(known); err != nil {
		return fault.Code(exitStore, fmt.Errorf("the store advertises an unusable address: %w", err))
	}
	return nil
}

// tellEndpoints says, with --debug, where the command itself is going to ask.
func (s *session) tellEndpoints(endpoints []string) {
	if s.debug {
		fmt.Fprintf(s.env.Stderr, "Cluster-Endpoints: %s\n", strings.Join(endpoints, ", "))
	}
}

// usable leaves out the https addresses of the list where the user came in over
// plain http and has named no certificates: a member that asks the network for
// them may serve loopback without.
func (s *session) usable(known, given []string) []string {
	plain := func(ep string) bool { return !strings.HasPrefix(ep, "https://") }
	if s.certFile != "" || s.caFile != "" || !slices.ContainsFunc(given, plain) {
		return known
	}
	return slices.DeleteFunc(known, func(ep string) bool { return !plain(ep) })
}

// rank is 0 for what the user named and 1 for the rest.
func rank(given []string, ep string) int {
	if slices.Contains(given, ep) {
		return 0
	}
	return 1
}

// curl prints a request so that a person can repeat it.
func (s *session) curl(r *http.Request, body string) {
	line := fmt.Sprintf("cURL Command: curl -X %s %s", r.Method, r.URL)
	if body != "" || r.Method == http.MethodPut {
		line += fmt.Sprintf(" -d %q", body)
	}
	fmt.Fprintln(s.env.Stderr, line)
}

// tls is what flags say about https endpoints, else what this machine's store uses.
func (s *session) tls() (*tls.Config, error) {
	if s.certFile == "" && s.keyFile == "" && s.caFile == "" {
		return s.machineTLS(), nil
	}
	return tlsfile.Files{
		CA:   tlsfile.File{Setting: "--ca-file", Path: s.caFile},
		Cert: tlsfile.File{Setting: "--cert-file", Path: s.certFile},
		Key:  tlsfile.File{Setting: "--key-file", Path: s.keyFile},
	}.Client()
}

// machineTLS is by which keys the store of this machine speaks to others, if they were
// made of a discovery token and this user may read them: other members are asked with
// them. nil if not.
func (s *session) machineTLS() *tls.Config {
	f := tokentls.In(cmp.Or(s.env.Getenv("ETCD_DATA_DIR"), "/var/lib/etcd"))
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: roots}
}

// credentials splits --username and asks for a password that is not in it.
func (s *session) credentials() (name, password string, err error) {
	name, password, given := strings.Cut(s.username, ":")
	if name == "" || given {
		return name, password, nil
	}
	fmt.Fprint(s.env.Stderr, "Password: ")
	defer fmt.Fprintln(s.env.Stderr)
	line, err := readHidden(s.env.Stdin)
	return name, line, err
}

// readHidden reads a line, without showing it where stdin is a terminal.
func readHidden(in io.Reader) (string, error) {
	if f, ok := in.(*os.File); ok {
		if state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			quiet := *state
			quiet.Lflag &^= unix.ECHO
			if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &quiet); err != nil {
				return "", err
			}
			defer unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, state)
		}
	}
	line, err := readLine(in)
	if err != nil && (err != io.EOF || line == "") {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// readLine reads a line and not a byte more: the next one may be another password.
func readLine(in io.Reader) (string, error) {
	var line []byte
	for one := make([]byte, 1); ; {
		n, err := in.Read(one)
		line = append(line, one[:n]...)
		if err != nil || n > 0 && one[0] == '\n' {
			return string(line), err
		}
	}
}
