package fleetd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"flotilla/internal/applet"
	"flotilla/internal/unit/unittest"
)

// fleetd runs the program and returns its exit code and streams.
func fleetd(t testing.TB, vars map[string]string, args ...string) (int, string, string) {
	t.Helper()
	var out, errs strings.Builder
	code := Applet().Run(context.Background(), applet.Env{
		Args: args, Stdout: &out, Stderr: &errs,
		LookupEnv: func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
	})
	return code, out.String(), errs.String()
}

func TestConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fleet.conf")
	if err := os.WriteFile(file, []byte("etcd_servers=\"http://10.0.0.1:2379\"\nmove_after=never\nagent_ttl=\"45s\"\ncores=2.5\nreserve_memory=1536M\nhold_fraction=0.75\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := fleetd(t, map[string]string{"FLEET_METADATA": "a=b", "FLEET_AGENT_TTL": "20s"}, "-config", file, "--token-limit=7", "--print_config")
	if code != 0 {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	for _, line := range []string{"etcd_servers=http://10.0.0.1:2379", "metadata=a=b", "agent_ttl=20s", "move_after=never", "token_limit=7", "cores=2.5", "memory=", "reserve_memory=1536M", "hold_fraction=0.75", "api_listen=off", "client_default_role=", "units=auto", "etcd_key_prefix=/_coreos.com/fleet/"} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}
}

func TestBadConfiguration(t *testing.T) {
	for _, c := range []struct {
		vars map[string]string
		args []string
		code int
		errs []string
	}{
		{map[string]string{"FLEET_UNITS": "openrc", "FLEET_MOVE_AFTER": "0s"}, nil, 2, []string{
			`FLEET_UNITS: units: "openrc" is none of systemd, supervisor, auto`,
			`FLEET_MOVE_AFTER: move_after: "0s" is neither a time of at least 1s nor never`}},
		{map[string]string{"FLEET_CORES": "many", "FLEET_MEMORY": "99999999T", "FLEET_HOLD_FRACTION": "0", "FLEET_CLIENT_DEFAULT_ROLE": "root"}, nil, 2, []string{
			`FLEET_CORES: cores: `, `FLEET_MEMORY: memory: `,
			`FLEET_HOLD_FRACTION: hold_fraction: "0" is not a number above 0 and at most 1`,
			`FLEET_CLIENT_DEFAULT_ROLE: client_default_role: role "root" is none of admin, deployer, viewer`}},
		{nil, []string{"--config", "/nowhere/fleet.conf"}, 1, []string{"configuration: open /nowhere/fleet.conf: no such file"}},
		{nil, []string{"--agent-tll=3s"}, 2, []string{"unknown flag: --agent-tll", "did you mean --agent_ttl"}},
		{nil, []string{"surplus"}, 2, []string{"surplus"}},
	} {
		code, out, errs := fleetd(t, c.vars, c.args...)
		if code != c.code || out != "" {
			t.Errorf("%v %v: exit code %d, stdout %q", c.vars, c.args, code, out)
		}
		for _, want := range c.errs {
			if !strings.Contains(errs, want) {
				t.Errorf("%v %v: %q is not in\n%s", c.vars, c.args, want, errs)
			}
		}
	}
	if code, out, _ := fleetd(t, nil, "--version"); code != 0 || out != "fleetd version "+applet.Version+"\n" {
		t.Errorf("--version: %d %q", code, out)
	}
}

func TestDefaultInterface(t *testing.T) {
	const header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
	for _, c := range []struct{ name, routes, want string }{
		{"none", header + "eth0\t000A8C0\t0\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", ""},
		{"one", header + "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", "eth0"},
		{"the smallest metric", header +
			"wlan0\t00000000\t0100A8C0\t0003\t0\t0\t1024\t00000000\t0\t0\t0\n" +
			"eth0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n", "eth0"},
		{"half of everything is not everything", header + "tun0\t00000000\t0\t0001\t0\t0\t0\t00000080\t0\t0\t0\n", ""},
	} {
		if got := defaultInterface(strings.NewReader(c.routes)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestFirstGlobal(t *testing.T) {
	addr := func(s string) net.Addr {
		ip, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		return &net.IPNet{IP: ip, Mask: n.Mask}
	}
	got := firstGlobal([]net.Addr{addr("fe80::1/64"), addr("169.254.0.1/16"), addr("2001:db8::1/64"), addr("10.0.0.7/24"), addr("10.0.0.8/24")})
	if got != "10.0.0.7" {
		t.Errorf("got %q", got)
	}
}

func TestMachineID(t *testing.T) {
	if _, err := machineID("short"); err == nil || !strings.Contains(err.Error(), "machine_id holds \"short\"") {
		t.Errorf("got %v", err)
	}
	if id, err := machineID(strings.Repeat("0a", 16)); err != nil || id != strings.Repeat("0a", 16) {
		t.Errorf("%s, %v", id, err)
	}
}

func TestCapacity(t *testing.T) {
	for _, c := range []struct {
		cfg           Config
		cores, memory int64
	}{
		{Config{Cores: 4000, Memory: 8 << 30, ReserveCores: 500, ReserveMemory: 1 << 30}, 3500, 7 << 30},
		{Config{Cores: 1000, Memory: 256 << 20, ReserveCores: 4000, ReserveMemory: 1 << 30}, 500, 128 << 20},
	} {
		if cores, memory := c.cfg.capacity(); cores != c.cores || memory != c.memory {
			t.Errorf("%+v: %d, %d", c.cfg, cores, memory)
		}
	}
	if cores, memory := (Config{}).capacity(); cores < 1000 || memory < 64<<20 {
		t.Errorf("this machine has %d thousandths of a processor and %d bytes", cores, memory)
	}
}

// The configuration is read again at SIGHUP; one that is bad is not taken over.
func TestHangUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fleet.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("metadata=a=b\n")
	var log testLog
	p := &program{env: applet.Env{LookupEnv: func(string) (string, bool) { return "", false }}, file: file, cfg: Defaults()}
	p.set = p.cfg.settings()
	got := p.reloads(t.Context(), slog.New(slog.NewTextHandler(&log, nil)))
	hangUp := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write("metadata=nonsense\n")
	hangUp()
	err := unittest.Eventually(t.Context(), func() error {
		if !strings.Contains(log.String(), "not read again") {
			return errors.New("a bad configuration is not told")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	write("metadata=a=c\n")
	hangUp()
	if next := <-got; next.Metadata["a"] != "c" {
		t.Errorf("metadata %v", next.Metadata)
	}
}
