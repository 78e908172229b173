package locksmithd

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"flotilla/internal/applet"
	"flotilla/internal/systemd/login"
)

// locksmithd runs the program with variables and arguments.
func locksmithd(t *testing.T, vars map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), applet.Env{
		Args: args, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
		LookupEnv: func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
	})
	return code, stdout.String(), stderr.String()
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		vars map[string]string
		args []string
		want string // a line of the configuration in force, or of the complaint
	}{
		{"the default", nil, nil, "reboot_strategy=best-effort"},
		{"of the classic file", map[string]string{"REBOOT_STRATEGY": "etcd-lock", "GROUP": "stable"}, nil, "reboot_strategy=etcd-lock"},
		{"the group there is another's", map[string]string{"GROUP": "stable"}, nil, "group="},
		{"an empty one says nothing", map[string]string{"REBOOT_STRATEGY": ""}, nil, "reboot_strategy=best-effort"},
		{"with the prefix it counts more", map[string]string{"REBOOT_STRATEGY": "off", "LOCKSMITHD_REBOOT_STRATEGY": "reboot"}, nil, "reboot_strategy=reboot"},
		{"a flag most", map[string]string{"REBOOT_STRATEGY": "off"}, []string{"-reboot-strategy=etcd-lock"}, "reboot_strategy=etcd-lock"},
		{"endpoints", map[string]string{"LOCKSMITHD_ENDPOINT": "http://a:2379,http://b:2379"}, nil, "endpoint=http://a:2379,http://b:2379"},
		{"a window of old", map[string]string{"REBOOT_WINDOW_START": "Thu 23:00", "REBOOT_WINDOW_LENGTH": "1h"}, nil, "reboot_window_start=Thu 23:00"},

		{"no such strategy", map[string]string{"REBOOT_STRATEGY": "sometimes"}, nil, `REBOOT_STRATEGY: reboot_strategy: "sometimes" is none of off, reboot, best-effort, etcd-lock`},
		{"half a window", map[string]string{"REBOOT_WINDOW_START": "Thu 23:00"}, nil, "reboot_window_start and reboot_window_length: one without the other is no window"},
		{"a window of nothing", nil, []string{"--reboot_window_start=3:00", "--reboot_window_length=0m"}, "reboot window: reboot_window_length: one of 0 never opens; 'reboot_strategy=off' says that"},
		{"no store", map[string]string{"LOCKSMITHD_ENDPOINT": ""}, nil, "endpoint: none; without the setting it is http://127.0.0.1:2379,http://127.0.0.1:4001"},
		{"no such day", nil, []string{"--reboot_window_start=Thy 23:00", "--reboot_window_length=1h"}, `reboot window: window start "Thy 23:00": "Thy" is no day: Sun, Mon, Tue, Wed, Thu, Fri or Sat`},
		{"no such zone", nil, []string{"--reboot_window_start=23:00", "--reboot_window_length=1h", "--reboot_window_tz=Europe/Atlantis"}, "reboot_window_tz: unknown time zone Europe/Atlantis"},
		{"half a certificate", nil, []string{"--etcd_certfile=a"}, "etcd_certfile and etcd_keyfile: one is of no use without the other"},
		{"FleetLock for everybody", nil, []string{"--fleetlock_listen=:4444"}, "fleetlock_listen: :4444 is not of the loopback interface, and there is no authority of the clients' certificates"},
		{"FleetLock here alone", nil, []string{"--fleetlock_listen=127.0.0.1:4444"}, "fleetlock_listen=127.0.0.1:4444"},
		{"FleetLock on purpose", nil, []string{"--fleetlock_listen=:4444", "--fleetlock_insecure"}, "fleetlock_listen=:4444"},
		{"half of TLS", nil, []string{"--fleetlock_listen=:4444", "--fleetlock_certfile=a"}, "fleetlock_certfile and fleetlock_keyfile: one is of no use without the other"},
		{"TLS, and clients without certificates", nil, []string{"--fleetlock_listen=:4444", "--fleetlock_certfile=a", "--fleetlock_keyfile=b"}, "there is no authority of the clients' certificates"},
		{"that on purpose", nil, []string{"--fleetlock_listen=:4444", "--fleetlock_certfile=a", "--fleetlock_keyfile=b", "--fleetlock_insecure"}, "fleetlock_listen=:4444"},
		{"an authority without TLS", nil, []string{"--fleetlock_listen=127.0.0.1:4444", "--fleetlock_cafile=c"}, "fleetlock_cafile: no use without fleetlock_certfile and fleetlock_keyfile"},
		{"an authority, and whoever comes", nil, []string{"--fleetlock_listen=:4444", "--fleetlock_certfile=a", "--fleetlock_keyfile=b", "--fleetlock_cafile=c", "--fleetlock_insecure"}, "fleetlock_insecure: clients have to show certificates of fleetlock_cafile; one of the two is not meant"},
		{"FleetLock clients that never have to come back", nil, []string{"--fleetlock_listen=127.0.0.1:4444", "--fleetlock_holder_timeout=25h"}, "fleetlock_holder_timeout: 25h0m0s is more than 24h0m0s"},
		{"no place to listen", nil, []string{"--fleetlock_listen=x"}, "fleetlock_listen: address x: missing port in address"},
	} {
		_, out, errs := locksmithd(t, c.vars, append(c.args, "--print_config")...)
		if !strings.Contains("\n"+out+errs+"\n", "\n"+c.want+"\n") && !strings.Contains(errs, c.want) {
			t.Errorf("%s: no line %q in\n%s%s", c.name, c.want, out, errs)
		}
	}
}

// All that is wrong is said at once.
func TestAllProblems(t *testing.T) {
	code, _, errs := locksmithd(t, map[string]string{"REBOOT_STRATEGY": "x", "LOCKSMITHD_NOTICE": "soon"}, "--reboot_window_start=1:00", "--fleetlock_listen=:1")
	for _, want := range []string{"REBOOT_STRATEGY", "LOCKSMITHD_NOTICE", "reboot_window_start", "fleetlock_listen"} {
		if !strings.Contains(errs, want) {
			t.Errorf("nothing about %s in\n%s", want, errs)
		}
	}
	if code != 2 {
		t.Errorf("exit code %d", code)
	}
}

// The strategy off ends the daemon well, and it has been ready: systemd would take it
// for failed otherwise.
func TestOff(t *testing.T) {
	cfg := Defaults()
	cfg.Strategy = Off
	ready := false
	if err := New(cfg, Deps{}).Run(t.Context(), func() { ready = true }); err != nil || !ready {
		t.Errorf("%v, ready %t", err, ready)
	}
}

// Two that reboot the machine would not know of each other.
func TestCoordinator(t *testing.T) {
	w := newWorld(t, 1)
	m := w.machines[0]
	var one, two files
	if err := one.open(m.cfg); err != nil {
		t.Fatal(err)
	}
	one.state("reboot-planned")
	if b, _ := os.ReadFile(m.cfg.CoordinatorFile); string(b) != "NAME=locksmithd\nSTRATEGY=etcd-lock\nSTATE=reboot-planned\n" {
		t.Errorf("the file says %q", b)
	}
	one.state("running")
	if b, _ := os.ReadFile(m.cfg.CoordinatorFile); !strings.HasSuffix(string(b), "STATE=running\n") {
		t.Errorf("the file says %q", b)
	}
	if err := two.open(m.cfg); err == nil || !strings.Contains(err.Error(), "held by another program (locksmithd)") {
		t.Errorf("a second one: %v", err)
	}
	one.close()
	if err := two.open(m.cfg); err != nil {
		t.Error(err)
	}
	two.close()
}

// What comes from elsewhere steers no terminal.
func TestBroadcast(t *testing.T) {
	got := broadcast("web-1", "updated: \x1b[2Jlibc6\nx", 0)
	if want := "\r\n\aMessage from locksmithd: web-1 reboots now: updated:  [2Jlibc6 x\r\n"; got != want {
		t.Errorf("%q", got)
	}
}

func TestWriteTerminal(t *testing.T) {
	for _, tty := range []string{"../etc/passwd", "no/such/tty", "shm"} {
		if err := writeTerminal(tty, "x"); err == nil {
			t.Errorf("%s was written to", tty)
		}
	}
	if err := writeTerminal("null", "x"); err != nil {
		t.Error(err)
	}
}

// The manual has every setting, and no other.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../../docs/cli/locksmithd.md")
	if err != nil {
		t.Fatal(err)
	}
	_, out, _ := locksmithd(t, nil, "--print_config")
	_, manual, _ := strings.Cut(string(b), "## Configuration")
	settings := map[string]bool{}
	for scan := bufio.NewScanner(strings.NewReader(out)); scan.Scan(); {
		name, _, _ := strings.Cut(scan.Text(), "=")
		settings[name] = true
		if !strings.Contains(manual, "`"+name+"`") {
			t.Errorf("%s is not in the manual", name)
		}
	}
	for line := range strings.Lines(manual) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			if name = strings.Trim(name, " `"); !settings[name] {
				t.Errorf("%s is in the manual, and is no setting", name)
			}
		}
	}
}

// The real logind has what the daemon asks of it.
var _ Logind = (*login.Manager)(nil)

// A strategy that takes no lock reboots once, and gives up for a while when something
// objects.
func TestAtOnce(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		m := w.machines[0]
		m.cfg.Strategy = AtOnce
		m.locks, m.fleet = nil, nil
		w.lenient = true
		m.noLock = true
		m.needs.want()
		m.start()
		w.within(time.Hour, "it has rebooted", func() bool { return m.rebooted() == 1 })
	})
}
