package apply

import (
	"context"
	"fmt"
	"os"
	"strings"

	"flotilla/internal/cloudinit/config"
	"flotilla/internal/cloudinit/plan"
)

// Do carries out one step.
func (h *Host) Do(ctx context.Context, s plan.Step) error {
	switch s.Kind {
	case plan.Hostname:
		return h.setHostname(ctx, s.Target)
	case plan.AddUser:
		return h.run(ctx, "useradd", useraddArgs(h.Dir, s.User)...)
	case plan.Password:
		return h.setPassword(ctx, s.User)
	case plan.Keys:
		return writeKeys(h.Tree, s)
	case plan.WriteTo:
		return h.write(s)
	case plan.Mask:
		return h.Tree.Symlink("/dev/null", s.Target)
	case plan.Remove, plan.Unmask:
		return h.Tree.Remove(s.Target)
	case plan.Enable:
		return h.systemctl(ctx, s.Runtime, "enable", "--force", "--", s.Target)
	case plan.Disable:
		return h.systemctl(ctx, s.Runtime, "disable", "--", s.Target)
	case plan.Reload:
		return h.run(ctx, "systemctl", "daemon-reload")
	case plan.Command:
		return h.tell(ctx, s.Verb, s.Target)
	case plan.Run:
		return h.runScript(ctx, s)
	}
	return fmt.Errorf("no such kind of step: %s", s.Kind)
}

func (h *Host) run(ctx context.Context, name string, args ...string) error {
	_, err := h.Cmd.Run(ctx, "", name, args...)
	return err
}

// me is who files belong to that nobody else is to have.
func me() Owner { return Owner{os.Geteuid(), os.Getegid()} }

func (h *Host) setHostname(ctx context.Context, name string) error {
	if h.Live {
		return h.run(ctx, "hostnamectl", "set-hostname", "--", name)
	}
	return h.Tree.Write("/etc/hostname", []byte(name+"\n"), 0o644, me())
}

// useraddArgs are the arguments of useradd(8) for a user. A password is set apart: a
// hash among the arguments could be read by everybody.
func useraddArgs(dir string, u config.User) []string {
	args := []string{"--password", "*"}
	if dir != "/" {
		args = append(args, "--prefix", dir)
	}
	for _, o := range []struct{ flag, value string }{
		{"--comment", u.Gecos}, {"--home-dir", u.Homedir}, {"--gid", u.PrimaryGroup},
		{"--groups", strings.Join(u.Groups, ",")}, {"--shell", u.Shell},
	} {
		if o.value != "" {
			args = append(args, o.flag, o.value)
		}
	}
	if u.NoCreateHome {
		args = append(args, "--no-create-home")
	} else {
		args = append(args, "--create-home")
	}
	for _, o := range []struct {
		flag string
		on   bool
	}{{"--no-user-group", u.NoUserGroup}, {"--system", u.System}, {"--no-log-init", u.NoLogInit}} {
		if o.on {
			args = append(args, o.flag)
		}
	}
	return append(args, "--", u.Name)
}

func (h *Host) setPassword(ctx context.Context, u config.User) error {
	if h.Dir != "/" { // chpasswd of today can only change into an image, and needs its libraries
		return h.run(ctx, "usermod", "--prefix", h.Dir, "--password", u.PasswordHash, "--", u.Name)
	}
	_, err := h.Cmd.Run(ctx, u.Name+":"+u.PasswordHash+"\n", "chpasswd", "-e")
	return err
}

func (h *Host) write(s plan.Step) error {
	accounts, err := ReadAccounts(h.Tree)
	if err != nil {
		return err
	}
	owner, err := accounts.Owner(s.Owner, me())
	if err != nil {
		return err
	}
	return h.Tree.Write(s.Target, s.New, s.Mode, owner)
}

// systemctl changes links of units. systemd is to reload once, after all of them.
func (h *Host) systemctl(ctx context.Context, runtime bool, args ...string) error {
	before := []string{"--no-reload"}
	if h.Dir != "/" {
		before = append(before, "--root="+h.Dir)
	}
	if runtime {
		before = append(before, "--runtime")
	}
	return h.run(ctx, "systemctl", append(before, args...)...)
}

func (h *Host) tell(ctx context.Context, verb, unit string) error {
	if h.NoBlock {
		return h.run(ctx, "systemctl", "--no-block", verb, "--", unit)
	}
	return h.run(ctx, "systemctl", verb, "--", unit)
}

// runScript starts a script in a transient unit by its own #! line and does not wait
// for its end.
func (h *Host) runScript(ctx context.Context, s plan.Step) error {
	args := []string{"--collect", "--unit=" + s.Verb, "--description=cloud-config script " + s.Target}
	if h.NoBlock {
		args = append(args, "--no-block")
	} else {
		args = append(args, "--property=Type=exec")
	}
	return h.run(ctx, "systemd-run", append(args, "--", s.Target)...)
}
