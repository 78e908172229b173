package locksmithd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
	_ "time/tzdata" // windows have time zones also where the system has no data on them

	"github.com/spf13/cobra"

	"flotilla/client/keys"
	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/confload"
	"flotilla/internal/fault"
	"flotilla/internal/lifecycle"
	"flotilla/internal/logx"
	"flotilla/internal/reboot/gate"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/trigger"
	"flotilla/internal/systemd/login"
	"flotilla/internal/systemd/updateengine"
)

// Applet is the program locksmithd.
func Applet() applet.Applet {
	return applet.Applet{
		Name:      "locksmithd",
		Group:     "Machines",
		Summary:   "reboot this machine when it wants to and it is its turn",
		Completes: true,
		Run:       run,
	}
}

// program is one call of locksmithd.
type program struct {
	env       applet.Env
	effective bool
	cfg       Config
	set       *confload.Set
	files     environment
}

func run(ctx context.Context, env applet.Env) int {
	p := &program{env: env, cfg: Defaults()}
	p.set = p.cfg.settings()
	p.files = readEnvironment(environmentFiles, os.ReadFile)
	p.set.Place = p.files.place
	cmd := &cobra.Command{
		Use:   "locksmithd [flags]",
		Short: "reboot this machine when it wants to and it is its turn",
		Long: "Reboot this machine when it wants to, in its window, one machine after another, when its\n" +
			"units have left it; and let the next one go when it is well again.\n\n" +
			"Every flag is also a variable: LOCKSMITHD_ and its name in upper case. REBOOT_STRATEGY and\n" +
			"REBOOT_WINDOW_START, _LENGTH and _TZ count without the prefix too.",
		Version: applet.Version,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.run(cmd.Context()) },
	}
	cmd.SetVersionTemplate("locksmithd version {{.Version}}\n")
	cmd.Flags().BoolVar(&p.effective, "print_config", false, "print the configuration in force and end")
	p.set.Flags(cmd.Flags())
	return cli.Run(ctx, env, cmd)
}

// load puts the configuration together: environment, then flags.
func (p *program) load() error {
	p.set.Env("", lenient(p.env.LookupEnv))
	p.set.Env(prefix, p.env.LookupEnv)
	p.set.FromFlags()
	for _, n := range p.files.notices(variables(p.set.Names())) {
		logx.New(p.env.Stderr, slog.LevelInfo).Warn("line of the configuration ignored", "at", n.Where, "why", n.Msg)
	}
	if err := errors.Join(p.set.Err(), placed(p.cfg.check(), p.set.Where)); err != nil {
		return fault.Code(fault.ExitUsage, fmt.Errorf("configuration:\n%w", err))
	}
	return nil
}

func (p *program) run(ctx context.Context) error {
	if err := p.load(); err != nil {
		return err
	}
	if p.effective {
		return p.set.Effective(p.env.Stdout)
	}
	if err := p.whoAmI(); err != nil {
		return err
	}
	level := slog.LevelInfo
	if p.cfg.Verbosity > 0 {
		level = slog.LevelDebug
	}
	log := logx.New(p.env.Stderr, level)
	client, err := p.cfg.client(log)
	if err != nil {
		return err
	}
	defer client.Close()
	deps, err := p.deps(client, log)
	if err != nil {
		return err
	}
	return New(p.cfg, deps).Run(ctx, func() {
		if err := lifecycle.Notify("READY=1"); err != nil {
			log.Warn("systemd not told that we are ready", "err", err)
		}
	})
}

// deps is the real world.
func (p *program) deps(client *keys.Client, log *slog.Logger) (Deps, error) {
	l, err := lock.New(client, p.cfg.Group)
	if err != nil {
		return Deps{}, err
	}
	boot, err := lifecycle.BootID()
	if err != nil {
		return Deps{}, err
	}
	door, err := p.cfg.door(client, log)
	if err != nil {
		return Deps{}, err
	}
	return Deps{
		Lock: l, Fleet: gate.NewStore(client, p.cfg.FleetPrefix, p.cfg.MachineID), Logind: login.New(""),
		Needs: trigger.New(trigger.Config{
			Engine: updateengine.New(""), RequiredFile: p.cfg.RequiredFile, AskedFile: filepath.Join(p.cfg.RunDir, AskedFile),
			Command: trigger.Find(exec.LookPath), CommandEvery: p.cfg.NeedsRestartingEvery, Log: log,
		}),
		System:    gate.Look,
		StoreHere: func(ctx context.Context) (bool, error) { return gate.Active(ctx, "etcd.service", "etcd2.service") },
		Hooks:     gate.Hooks, Write: writeTerminal, Boot: boot, Doors: door, Logger: log,
		Status: func(s string) {
			// Nothing is lost if systemd does not show it.
			_ = lifecycle.Notify("STATUS=" + strings.ReplaceAll(s, "\n", " "))
		},
	}, nil
}

var machineIDFormat = regexp.MustCompile(`^[0-9a-f]{32}$`)

// whoAmI fills in who this machine is where the configuration does not say.
func (p *program) whoAmI() error {
	if p.cfg.MachineID == "" {
		b, err := os.ReadFile("/etc/machine-id")
		if err != nil {
			return fault.Hint(fmt.Errorf("machine id: %w", err), "run 'systemd-machine-id-setup', or set machine_id")
		}
		p.cfg.MachineID = strings.TrimSpace(string(b))
	}
	if !machineIDFormat.MatchString(p.cfg.MachineID) {
		return fault.Hint(fmt.Errorf("machine id: %q is not 32 hexadecimal digits", p.cfg.MachineID), "run 'systemd-machine-id-setup', or set machine_id")
	}
	if p.cfg.Hostname == "" {
		p.cfg.Hostname, _ = os.Hostname() // it is for people to read
	}
	return nil
}

// terminalLimit is how long a terminal may take that somebody has stopped.
const terminalLimit = 2 * time.Second

// writeTerminal writes to a terminal without waiting for one that does not take it.
func writeTerminal(tty, message string) error {
	path := filepath.Join("/dev", filepath.Clean("/"+tty))
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return fmt.Errorf("%s is no terminal", path)
	}
	_ = f.SetWriteDeadline(time.Now().Add(terminalLimit)) // some devices cannot be waited for
	_, err = f.WriteString(message)
	return err
}
