package etcdcmd

import (
	"flag"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"flotilla/internal/fault"
)

// gone are flags of etcd, of 0.4 to today's, that are none here and have no legacy variable
// either: what to do in their place. Those of the engine would do nothing: it logs through
// our logger.
var gone = map[string]string{
	"logger":                   "leave it out, there is one logger: --log-format says how it writes (console, json), --log-level how much, --log-outputs where",
	"enable-log-rotation":      "leave it out: the journal rotates, or logrotate does",
	"log-rotation-config-json": "leave it out: the journal rotates, or logrotate does",

	"enable-v2":                "leave it out: the v2 API is always served",
	"experimental-enable-v2v3": "leave it out: v2 keys are always kept in the v3 store",
	"v2-deprecation":           "leave it out: the v2 API stays",

	"experimental-initial-corrupt-check":             "give --feature-gates InitialCorruptCheck=true",
	"experimental-compact-hash-check-enabled":        "give --feature-gates CompactHashCheck=true",
	"experimental-enable-lease-checkpoint":           "give --feature-gates LeaseCheckpoint=true",
	"experimental-enable-lease-checkpoint-persist":   "give --feature-gates LeaseCheckpoint=true,LeaseCheckpointPersist=true",
	"experimental-set-member-localaddr":              "give --feature-gates SetMemberLocalAddr=true",
	"experimental-stop-grpc-service-on-defrag":       "give --feature-gates StopGRPCServiceOnDefrag=true",
	"experimental-txn-mode-write-with-shared-buffer": "it is so; --feature-gates TxnModeWriteWithSharedBuffer=false has it otherwise",

	"cpuprofile": "give --enable-pprof and ask for /debug/pprof/profile",
	"v":          "give --log-level debug",
	"vv":         "give --log-level debug",
	"vvv":        "give --log-level debug",
}

// experimental is what the names of flags began with that today are called by the rest.
const experimental = "experimental-"

// past is what a flag of etcd's means that is none here.
func (o *options) past(name string) (l legacy, ok bool) {
	if why := gone[name]; why != "" {
		return legacy{why: why}, true
	}
	if today, ok := strings.CutPrefix(name, experimental); ok && o.flags.Lookup(today) != nil {
		return legacy{flags: []string{today}}, true
	}
	i := slices.IndexFunc(legacies, func(l legacy) bool { return l.flagName() == name })
	if i < 0 {
		return legacy{}, false
	}
	return legacies[i], true
}

// pastNames are all names that past knows, in the order of notices.
func (o *options) pastNames() (names []string) {
	for _, l := range legacies {
		names = append(names, l.flagName())
	}
	o.flags.VisitAll(func(f *flag.Flag) {
		if name := experimental + f.Name; gone[name] == "" {
			names = append(names, name)
		}
	})
	return append(names, slices.Sorted(maps.Keys(gone))...)
}

// instead says what to do in place of a flag of etcd's that is none here; "" if the name is
// not one of etcd's.
func (o *options) instead(name string) string {
	l, ok := o.past(name)
	switch {
	case !ok:
		return ""
	case len(l.flags) > 0:
		return "it is --" + strings.Join(l.flags, " and --") + " now"
	}
	return asFlags(l.why)
}

var variableName = regexp.MustCompile(`\bETCD_[A-Z_]+`)

// asFlags is advice about variables for who uses flags.
func asFlags(advice string) string {
	return variableName.ReplaceAllStringFunc(advice, func(name string) string {
		return "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "ETCD_"), "_", "-"))
	})
}

// fromPast sets what is still open from a variable or a key of the file that is no flag
// here, or notes that it has no effect; where is what to call it.
func (o *options) fromPast(where, name, value string) error {
	l, _ := o.past(name)
	switch {
	case len(l.flags) > 0:
		return o.setLegacy(where, l, value)
	case l.refused && !slices.ContainsFunc([]string{"discovery", "discovery-srv", "initial-cluster"}, o.isSet):
		return fault.Hint(fmt.Errorf("%s: %s: a cluster is not found by it", where, value), "%s", l.why)
	case gone[name] != "" && isFalse(value) != (name == "enable-v2"): // that is so
	default:
		o.notices = append(o.notices, fmt.Sprintf("%s has no effect: %s", where, l.why))
	}
	return nil
}
