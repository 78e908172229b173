package discovery

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/client/pkg/v3/transport"

	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/fault"
	"flotilla/internal/logx"
)

// DefaultURL is where the service listens, and where "discovery new" asks.
const DefaultURL = "http://127.0.0.1:8087"

// Applet is the program.
func Applet() applet.Applet {
	return applet.Applet{
		Name:    "discovery",
		Group:   "Store",
		Summary: "where the members of a new cluster find each other",
		Run:     func(ctx context.Context, env applet.Env) int { return cli.Run(ctx, env, command(env)) },
	}
}

const long = `Runs the service at which the members of a new cluster find each other:

  flotilla discovery --listen http://10.0.0.1:8087 --allow-plain-http
  flotilla discovery new --size 3 --url http://10.0.0.1:8087    # prints a URL
  etcd --discovery URL ...                                      # on each of three machines

Machines beyond the size become proxies. Members of etcd 2.x and 3.x can use it too.
Tokens are kept in --data-dir, or in the cluster that --endpoints names. Every flag of the
service is also a variable: --some-flag is DISCOVERY_SOME_FLAG. Flags count before variables.`

func command(env applet.Env) *cobra.Command {
	cfg := defaults()
	var level string
	cmd := &cobra.Command{
		Use:         "discovery",
		Short:       "Run the service at which the members of a new cluster find each other",
		Long:        long,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "flotilla discovery"},
		RunE: func(c *cobra.Command, _ []string) error {
			if err := variables(c.Flags(), env); err != nil {
				return err
			}
			l, err := logx.Level(level)
			if err != nil {
				return fault.Usage("--log-level %q: must be debug, info, warn or error", level)
			}
			if err := cfg.validate(); err != nil {
				return err
			}
			return newServer(cfg, logx.New(env.Stderr, l)).Run(c.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Listen, "listen", cfg.Listen, "`URL` to listen on")
	f.StringVar(&cfg.BaseURL, "base-url", "", "`URL` that new tokens begin with (default: the address that the request was sent to)")
	f.StringVar(&cfg.DataDir, "data-dir", cfg.DataDir, "`directory` to keep tokens in; of a systemd unit that has a StateDirectory= that one")
	f.StringSliceVar(&cfg.Endpoints, "endpoints", nil, "client `URLs` of a cluster to keep tokens in, in place of --data-dir")
	tlsFlags(cmd, &cfg.TLS, "", "for https")
	f.BoolVar(&cfg.TLS.ClientCertAuth, "client-cert-auth", false, "ask for client certificates")
	tlsFlags(cmd, &cfg.StoreTLS, "endpoints-", "towards --endpoints")
	f.BoolVar(&cfg.Allowed.PlainHTTP, "allow-plain-http", false, "permit http:// beyond loopback: whoever reaches the port can make tokens")
	f.BoolVar(&cfg.Allowed.AnonymousTLS, "allow-anonymous-https", false, "permit https:// beyond loopback without client certificates")
	f.IntVar(&cfg.Limits.MaxSize, "max-size", cfg.Limits.MaxSize, "largest cluster that a token may be for")
	f.IntVar(&cfg.Limits.MaxTokens, "max-tokens", cfg.Limits.MaxTokens, "how many tokens to keep at one time")
	f.IntVar(&cfg.Limits.PerMinute, "tokens-per-minute", cfg.Limits.PerMinute, "how many tokens may be made in a minute")
	f.DurationVar(&cfg.Limits.Unused, "unused-ttl", cfg.Limits.Unused, "remove a token after this time if no member has registered with it")
	f.DurationVar(&cfg.Limits.Used, "used-ttl", cfg.Limits.Used, "remove a token after this time since a member registered")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.AddCommand(newCommand(env))
	return cmd
}

func tlsFlags(cmd *cobra.Command, info *transport.TLSInfo, prefix, what string) {
	f := cmd.Flags()
	f.StringVar(&info.CertFile, prefix+"cert-file", "", "certificate `file` "+what)
	f.StringVar(&info.KeyFile, prefix+"key-file", "", "key `file` "+what)
	f.StringVar(&info.TrustedCAFile, prefix+"trusted-ca-file", "", "`file` of the authorities to trust "+what)
}

// newCommand is "discovery new".
func newCommand(env applet.Env) *cobra.Command {
	var base string
	var size int
	var info transport.TLSInfo
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make a token and print its URL",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			token, err := ask(c.Context(), base, size, info)
			if err == nil {
				fmt.Fprintln(env.Stdout, token)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&base, "url", DefaultURL, "`URL` of the service")
	cmd.Flags().IntVar(&size, "size", defaultSize, "how many members the cluster is to have")
	tlsFlags(cmd, &info, "", "towards the service")
	return cmd
}

// ask has the service at base make a token and returns its URL.
func ask(ctx context.Context, base string, size int, info transport.TLSInfo) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fault.Usage("--url %q: must be of the form http://HOST:PORT", base)
	}
	u = u.JoinPath("new")
	u.RawQuery = fmt.Sprintf("size=%d", size)
	config, err := info.ClientConfig()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment}}).Do(req)
	if err != nil {
		return "", fault.Hint(fmt.Errorf("make a token: %w", err), "start the service there with 'flotilla discovery', or name another with --url")
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxForm))
	if err != nil {
		return "", fmt.Errorf("make a token at %s: %w", base, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("make a token at %s: %s: %s", base, resp.Status, strings.TrimSpace(string(body)))
	}
	return strings.TrimSpace(string(body)), nil
}
