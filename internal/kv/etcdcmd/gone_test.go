package etcdcmd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/fault"
)

// flagsOf23 and flagsOf04 are what etcd 2.3 and 0.4 list in their help.
const (
	flagsOf23 = `name data-dir wal-dir snapshot-count heartbeat-interval election-timeout listen-peer-urls listen-client-urls max-snapshots
max-wals cors initial-advertise-peer-urls initial-cluster initial-cluster-state initial-cluster-token advertise-client-urls discovery
discovery-fallback discovery-proxy discovery-srv strict-reconfig-check proxy proxy-failure-wait proxy-refresh-interval proxy-dial-timeout
proxy-write-timeout proxy-read-timeout ca-file cert-file key-file client-cert-auth trusted-ca-file peer-ca-file peer-cert-file peer-key-file
peer-client-cert-auth peer-trusted-ca-file debug log-package-levels force-new-cluster enable-pprof version`
	flagsOf04 = `name addr bind-addr peer-addr peer-bind-addr discovery peers peers-file ca-file cert-file key-file peer-ca-file peer-cert-file
peer-key-file data-dir cors cpuprofile snapshot snapshot-count cluster-active-size cluster-remove-delay cluster-sync-interval
http-read-timeout http-write-timeout max-result-buffer max-retry-attempts retry-interval peer-heartbeat-interval peer-election-timeout
graphite-host trace v vv vvv version`
)

// Every flag that etcd has ever had in help is one here, or its refusal says what to do. The
// flags of 3.4 are those of the etcd that the distribution packages.
func TestEveryFlagOfEtcdIsKnown(t *testing.T) {
	help, err := exec.Command("/usr/bin/etcd", "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("no etcd to compare with: %v (package etcd-server)", err)
	}
	var flagsOf34 []string
	for _, m := range regexp.MustCompile(`(?m)^ +--([a-z0-9-]+)`).FindAllStringSubmatch(string(help), -1) {
		flagsOf34 = append(flagsOf34, m[1])
	}
	if len(flagsOf34) < 50 {
		t.Fatalf("etcd 3.4 has the flags %q", flagsOf34)
	}
	for _, name := range slices.Concat(flagsOf34, strings.Fields(flagsOf23), strings.Fields(flagsOf04)) {
		o := newOptions()
		if o.flags.Lookup(name) == nil && o.instead(name) == "" {
			t.Errorf("--%s is refused without a word", name)
		}
	}
}

func TestGone(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--logger=zap", "leave it out, there is one logger: --log-format"},
		{"--enable-v2", "leave it out: the v2 API is always served"},
		{"--experimental-corrupt-check-time=1h", "it is --corrupt-check-time now"},
		{"--experimental-initial-corrupt-check", "--feature-gates InitialCorruptCheck=true"},
		{"--debug", "it is --log-level=debug now"},
		{"-ca-file=ca.pem", "it is --trusted-ca-file and --client-cert-auth=true now"},
		{"-peers=h:1", "set --discovery, or --initial-cluster"},
		{"-cluster-active-size=3", "flotilla discovery new --size N"},
		{"-vv", "--log-level debug"},
		{"--initial-cluster-state=old", "see 'etcd --help'"},
		{"--corrupt-check-time=10", "want a time with its unit"},
		{"--enable-pprof=maybe", "want true or false"},
		{"--max-wals=few", "want a whole number"},
		{"--initial-clutser=x", "did you mean --initial-cluster?"},
	} {
		_, err := parsed(t, nil, c.args)
		hints := strings.Join(fault.Hints(err), "\n")
		if fault.ExitCode(err) != fault.ExitUsage || !strings.Contains(hints, c.want) {
			t.Errorf("%s: %v\nhint: %s", c.args, err, hints)
		}
	}
}

// Values that the engine would pass over are refused, with those that there are.
func TestValues(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--initial-cluster-state=old", "must be one of new, existing"},
		{"--metrics=all", "must be one of basic, extensive"},
		{"--backend-bbolt-freelist-type=list", "must be one of map, array"},
		{"--bcrypt-cost=3", "--bcrypt-cost 3: want 4 to 31"},
		{"--bcrypt-cost=32", "--bcrypt-cost 32: want 4 to 31"},
	} {
		_, err := parsed(t, nil, c.args)
		if fault.ExitCode(err) != fault.ExitUsage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.args, err)
		}
	}
	o, err := parsed(t, nil, "--initial-cluster-state=existing", "--metrics=extensive", "--backend-bbolt-freelist-type=array", "--bcrypt-cost=4")
	if err != nil {
		t.Fatal(err)
	}
	if e := o.cfg.Engine; e.ClusterState != "existing" || e.Metrics != "extensive" || e.BackendFreelistType != "array" || e.BcryptCost != 4 {
		t.Errorf("%s, %s, %s, %d", e.ClusterState, e.Metrics, e.BackendFreelistType, e.BcryptCost)
	}
}

// The gates that advice names are the engine's.
func TestGatesAreTheEngines(t *testing.T) {
	for name, why := range gone {
		if m := regexp.MustCompile(`--feature-gates (\S+)`).FindStringSubmatch(why); m != nil {
			if _, err := parsed(t, nil, "--feature-gates", m[1]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestVariablesOfGoneFlags(t *testing.T) {
	o, err := parsed(t, map[string]string{
		"ETCD_LOGGER": "zap", "ETCD_ENABLE_V2": "true", "ETCD_ENABLE_LOG_ROTATION": "false",
		"ETCD_EXPERIMENTAL_CORRUPT_CHECK_TIME": "1h", "ETCD_EXPERIMENTAL_MAX_LEARNERS": "2", "ETCD_MAX_LEARNERS": "3",
	})
	if err != nil {
		t.Fatal(err)
	}
	if e := o.cfg.Engine; e.CorruptCheckTime.Hours() != 1 || e.MaxLearners != 3 {
		t.Errorf("corrupt check every %v, %d learners", e.CorruptCheckTime, e.MaxLearners)
	}
	if len(o.notices) != 1 || !strings.HasPrefix(o.notices[0], "ETCD_LOGGER has no effect: leave it out") {
		t.Errorf("notices %q", o.notices)
	}
	if o, err = parsed(t, map[string]string{"ETCD_ENABLE_V2": "false"}); err != nil || len(o.notices) != 1 {
		t.Errorf("ETCD_ENABLE_V2=false: notices %q, %v", o.notices, err)
	}
	if _, err = parsed(t, map[string]string{"ETCD_EXPERIMENTAL_MAX_LEARNERS": "few"}); err == nil || !strings.Contains(err.Error(), "ETCD_EXPERIMENTAL_MAX_LEARNERS") {
		t.Error(err)
	}
}

// A file of etcd's with what is gone: it counts as the variables do.
func TestFileOfEtcd34(t *testing.T) {
	file := filepath.Join(t.TempDir(), "etcd.yaml")
	if err := os.WriteFile(file, []byte(`
enable-v2: true
debug: false
logger: zap
log-outputs: [stderr]
experimental-corrupt-check-time: 1h
peer-transport-security:
  ca-file:
  key-file: ''
cors: ""
initial-cluster-state: ""
log-package-levels: ""
proxy: 'off'
`), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parsed(t, nil, "--config-file", file)
	if err != nil {
		t.Fatal(err)
	}
	if e := o.cfg.Engine; o.isSet("log-level") || e.CorruptCheckTime.Hours() != 1 {
		t.Errorf("log level %s, corrupt check every %v", e.LogLevel, e.CorruptCheckTime)
	}
	if len(o.notices) != 1 || !strings.HasPrefix(o.notices[0], "logger has no effect: leave it out") {
		t.Errorf("notices %q", o.notices)
	}
}
