package etcdcmd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/pkg/v3/flags"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
)

// A legacy variable is one that etcd 0.4 or 2.x had, and cloud-config documents set,
// for which there is no flag of its name. It either means flags of today, or it means
// nothing here, and why says what to do in its place.
type legacy struct {
	name  string   // without ETCD_
	flags []string // to set: "flag" to the variable's value, "flag=value" if it is not false
	why   string
	// refused: without what it asks for the cluster would be another one, so the
	// program does not start.
	refused bool
}

// legacies are all of them, in the order of notices.
var legacies = []legacy{
	{name: "CA_FILE", flags: []string{"trusted-ca-file", "client-cert-auth=true"}},
	{name: "PEER_CA_FILE", flags: []string{"peer-trusted-ca-file", "peer-client-cert-auth=true"}},
	{name: "PEER_HEARTBEAT_INTERVAL", flags: []string{"heartbeat-interval"}},
	{name: "PEER_ELECTION_TIMEOUT", flags: []string{"election-timeout"}},
	{name: "SNAPSHOTCOUNT", flags: []string{"snapshot-count"}},
	{name: "VERBOSE", flags: []string{"log-level=debug"}},
	{name: "VERY_VERBOSE", flags: []string{"log-level=debug"}},
	{name: "VERY_VERY_VERBOSE", flags: []string{"log-level=debug"}},
	{name: "DEBUG", flags: []string{"log-level=debug"}},

	{name: "PEERS", refused: true, why: "members do not join by the addresses of others: set ETCD_DISCOVERY, or ETCD_INITIAL_CLUSTER"},
	{name: "PEERS_FILE", refused: true, why: "members do not join by the addresses of others: set ETCD_DISCOVERY, or ETCD_INITIAL_CLUSTER"},

	{name: "CLUSTER_ACTIVE_SIZE", why: "how many members a cluster has is said when its discovery token is made: flotilla discovery new --size N"},
	{name: "MAX_CLUSTER_SIZE", why: "how many members a cluster has is said when its discovery token is made: flotilla discovery new --size N"},
	{name: "CLUSTER_REMOVE_DELAY", why: "a member that is away stays a member until 'etcdctl member remove'"},
	{name: "CLUSTER_SYNC_INTERVAL", why: "a proxy asks who the members are every ETCD_PROXY_REFRESH_INTERVAL"},
	{name: "MAX_RETRY_ATTEMPTS", why: "joining is tried until it succeeds"},
	{name: "RETRY_INTERVAL", why: "joining is tried until it succeeds"},
	{name: "MAX_RESULT_BUFFER", why: "the last 1000 events are kept for watches"},
	{name: "HTTP_READ_TIMEOUT", why: "requests are bounded by the server itself; for a proxy set ETCD_PROXY_READ_TIMEOUT"},
	{name: "HTTP_WRITE_TIMEOUT", why: "requests are bounded by the server itself; for a proxy set ETCD_PROXY_WRITE_TIMEOUT"},
	{name: "SNAPSHOT", why: "snapshots are always made; ETCD_SNAPSHOT_COUNT says how often"},
	{name: "GRAPHITE_HOST", why: "figures are not sent: have Prometheus ask for /metrics"},
	{name: "TRACE", why: "have Prometheus ask for /metrics, or set ETCD_ENABLE_DISTRIBUTED_TRACING"},
	{name: "CPU_PROFILE_FILE", why: "set ETCD_ENABLE_PPROF=true and ask for /debug/pprof/profile"},
	{name: "LOG_PACKAGE_LEVELS", why: "there is one level for all: set ETCD_LOG_LEVEL"},
}

// flagName is the name as a flag has it.
func (l legacy) flagName() string { return strings.ToLower(strings.ReplaceAll(l.name, "_", "-")) }

// fromLegacyEnv sets from variables of before what flags and today's variables left open,
// and notes those that have no effect.
func (o *options) fromLegacyEnv(env applet.Env) error {
	var errs []error
	for _, name := range o.pastNames() {
		variable := flags.FlagToEnv("ETCD", name)
		if value := env.Getenv(variable); value != "" {
			errs = append(errs, o.fromPast(variable, name, value))
		}
	}
	return fault.Code(fault.ExitUsage, errors.Join(errs...))
}

// setLegacy sets the flags that where stands for.
func (o *options) setLegacy(where string, l legacy, value string) error {
	for _, f := range l.flags {
		name, fixed, isFixed := strings.Cut(f, "=")
		if isFixed && isFalse(value) || o.isSet(name) {
			continue
		}
		if isFixed {
			value = fixed
		}
		if err := o.flags.Set(name, value); err != nil {
			return fmt.Errorf("%s: invalid value %q: %w", where, value, err)
		}
	}
	return nil
}

func isFalse(value string) bool {
	return slices.Contains([]string{"false", "0", "no", "off"}, strings.ToLower(value))
}
