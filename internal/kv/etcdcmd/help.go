package etcdcmd

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"flotilla/internal/fault"
)

// groups is the order of help; a prefix stands for all flags that begin with it.
// What no group names comes last.
var groups = []struct {
	title    string
	names    []string
	prefixes []string
}{
	{"This member", []string{
		"name", "data-dir", "wal-dir", "listen-client-urls", "advertise-client-urls", "listen-client-http-urls",
		"listen-peer-urls", "initial-advertise-peer-urls", "config-file", "version",
	}, nil},
	{"The cluster", []string{"peer-hints", "strict-reconfig-check", "pre-vote", "force-new-cluster", "heartbeat-interval", "election-timeout", "max-learners"},
		[]string{"initial-cluster", "discovery"}},
	{"Proxy: serves clients without being a member", []string{"proxy"}, []string{"proxy-"}},
	{"Security", []string{
		"allow-plain-http", "allow-anonymous-https", "cert-file", "key-file", "client-cert-auth", "trusted-ca-file", "auto-tls",
		"cipher-suites", "cors", "host-whitelist", "self-signed-cert-validity", "auth-token", "auth-token-ttl", "bcrypt-cost",
	}, []string{"client-", "peer-", "tls-"}},
	{"History and limits", []string{
		"auto-compaction-mode", "auto-compaction-retention", "auto-defrag", "quota-backend-bytes", "max-txn-ops", "max-request-bytes",
		"max-concurrent-streams", "max-snapshots", "max-wals",
	}, []string{"snapshot-"}},
	{"Log and monitoring", []string{"metrics", "listen-metrics-urls", "enable-pprof"}, []string{"log-", "warning-", "distributed-tracing-", "enable-distributed"}},
	{"As in etcd 0.4", []string{"addr", "bind-addr", "peer-addr", "peer-bind-addr"}, nil},
}

// help is "etcd help" and "etcd help recover".
func help(w io.Writer, called string, about []string) error {
	switch {
	case len(about) == 0:
		o := newOptions()
		o.called = called
		o.usage(w)
		return nil
	case about[0] == "recover":
		_, err := fmt.Fprintf(w, recoverUsage, called)
		return err
	}
	return fault.Code(fault.ExitUsage, fault.Hint(fmt.Errorf("no help about %q", about[0]), "the one command is 'recover'; for flags see '%s --help'", called))
}

// usage writes all flags by group. Every flag is in exactly one.
func (o *options) usage(w io.Writer) {
	fmt.Fprintf(w, "usage: %[1]s [FLAGS]\n       %[1]s recover --data-dir DIR [FLAGS]\n\nRuns one member of the store. v2 (HTTP) and v3 (gRPC) share its client addresses.\n"+
		"A flag may have one dash or two, and --some-flag can also be set as ETCD_SOME_FLAG.\n\n"+
		"COMMANDS:\n   recover         make a cluster of one of a member that is left of a lost one\n", o.called)
	shown := map[string]bool{}
	for i, g := range groups {
		fmt.Fprintf(w, "\n%s:\n", g.title)
		for _, f := range o.group(i, shown) {
			shown[f.Name] = true
			describe(w, f)
		}
	}
	fmt.Fprintf(w, "\nOthers:\n")
	o.flags.VisitAll(func(f *flag.Flag) {
		if !shown[f.Name] {
			describe(w, f)
		}
	})
}

// group is the flags of one group that were not shown: first the named ones, in the
// order of the names.
func (o *options) group(i int, shown map[string]bool) []*flag.Flag {
	var out []*flag.Flag
	for _, name := range groups[i].names {
		if f := o.flags.Lookup(name); f != nil {
			out = append(out, f)
		}
	}
	o.flags.VisitAll(func(f *flag.Flag) {
		if shown[f.Name] || slices.Contains(out, f) || namedElsewhere(f.Name) {
			return
		}
		for _, p := range groups[i].prefixes {
			if strings.HasPrefix(f.Name, p) {
				out = append(out, f)
				return
			}
		}
	})
	return out
}

func namedElsewhere(name string) bool {
	for _, g := range groups {
		if slices.Contains(g.names, name) {
			return true
		}
	}
	return false
}

func describe(w io.Writer, f *flag.Flag) {
	kind, text := flag.UnquoteUsage(f)
	if kind == "value" {
		kind = ""
	}
	line := "  --" + f.Name
	if kind != "" {
		line += " " + kind
	}
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
		text += fmt.Sprintf(" (default %s)", f.DefValue)
	}
	fmt.Fprintf(w, "%s\n        %s\n", line, text)
}
