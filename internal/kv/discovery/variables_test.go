package discovery

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
)

func TestVariables(t *testing.T) {
	const unit = "STATE_DIRECTORY=/var/lib/flotilla-discovery "
	for _, test := range []struct {
		name, vars, args string
		dir, endpoints   string // where tokens are kept; with endpoints the directory does not count
		wrong            string // part of the error
	}{
		{name: "nothing said", dir: "discovery.etcd"},
		{name: "a directory by flag", args: "--data-dir d", dir: "d"},
		{name: "a directory by variable", vars: "DISCOVERY_DATA_DIR=d", dir: "d"},
		{name: "a flag before a variable", vars: "DISCOVERY_DATA_DIR=v", args: "--data-dir d", dir: "d"},
		{name: "an empty variable", vars: "DISCOVERY_DATA_DIR=", dir: "discovery.etcd"},
		{name: "a cluster by variable", vars: "DISCOVERY_ENDPOINTS=http://a:1,http://b:1", endpoints: "http://a:1 http://b:1"},
		{name: "a cluster by flag, a directory by variable", vars: "DISCOVERY_DATA_DIR=d", args: "--endpoints http://a:1", endpoints: "http://a:1"},
		{name: "a directory by flag, a cluster by variable", vars: "DISCOVERY_ENDPOINTS=http://a:1", args: "--data-dir d", dir: "d"},
		{name: "a unit", vars: unit, dir: "/var/lib/flotilla-discovery"},
		{name: "a unit with two directories", vars: "STATE_DIRECTORY=/a:/b", dir: "/a"},
		{name: "a unit with a directory", vars: unit + "DISCOVERY_DATA_DIR=d", dir: "d"},
		{name: "a unit with a cluster", vars: unit + "DISCOVERY_ENDPOINTS=http://a:1", endpoints: "http://a:1"},
		{name: "a unit with a cluster by flag", vars: unit, args: "--endpoints http://a:1", endpoints: "http://a:1"},
		{name: "both by flag", args: "--endpoints http://a:1 --data-dir d", wrong: "one place only"},
		{name: "both by variable", vars: "DISCOVERY_ENDPOINTS=http://a:1 DISCOVERY_DATA_DIR=d", wrong: "one place only"},
		{name: "no number", vars: "DISCOVERY_MAX_SIZE=many", wrong: "variable DISCOVERY_MAX_SIZE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fs, err := withVariables(t, test.vars, test.args)
			if test.wrong != "" {
				if fault.ExitCode(err) != fault.ExitUsage || !strings.Contains(err.Error(), test.wrong) {
					t.Errorf("got %v, want %s", err, test.wrong)
				}
				return
			}
			dir := fs.Lookup("data-dir").Value.String()
			endpoints, _ := fs.GetStringSlice("endpoints")
			if err != nil || strings.Join(endpoints, " ") != test.endpoints || test.endpoints == "" && dir != test.dir {
				t.Errorf("got %q and %q, %v", dir, endpoints, err)
			}
		})
	}
}

// Every flag of the service can be a variable.
func TestEveryFlagIsAVariable(t *testing.T) {
	fs, err := withVariables(t, "DISCOVERY_LISTEN=https://h:1 DISCOVERY_ALLOW_PLAIN_HTTP=true DISCOVERY_UNUSED_TTL=2m DISCOVERY_TOKENS_PER_MINUTE=3 "+
		"DISCOVERY_ENDPOINTS_TRUSTED_CA_FILE=ca DISCOVERY_HELP=true DISCOVERY_ARGS=--no-flag", "")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"listen": "https://h:1", "allow-plain-http": "true", "unused-ttl": "2m0s", "tokens-per-minute": "3", "endpoints-trusted-ca-file": "ca",
	} {
		if got := fs.Lookup(name).Value.String(); got != want {
			t.Errorf("--%s is %s, want %s", name, got, want)
		}
	}
}

// Files for TLS towards a cluster are of no use without one.
func TestTLSTowardsNoCluster(t *testing.T) {
	cfg := defaults()
	cfg.StoreTLS.TrustedCAFile = "ca.pem"
	if err := cfg.validate(); fault.ExitCode(err) != fault.ExitUsage || !strings.Contains(err.Error(), "need --endpoints") {
		t.Error(err)
	}
	cfg.Endpoints = []string{"https://a:1"}
	if err := cfg.validate(); err != nil {
		t.Error(err)
	}
}

// withVariables is the service's flags after a command line, with an environment.
func withVariables(t *testing.T, vars, args string) (*pflag.FlagSet, error) {
	t.Helper()
	env := applet.Env{LookupEnv: func(name string) (string, bool) {
		for v := range strings.FieldsSeq(vars) {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}}
	fs := command(env).Flags()
	if err := fs.Parse(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	return fs, variables(fs, env)
}
