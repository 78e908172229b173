package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"flotilla/internal/cloudinit/plan"
	"flotilla/internal/lifecycle"
	"flotilla/internal/unitfile"
)

// A Host is the machine that a plan is for: its files, and its programs.
type Host struct {
	Dir  string // "/", or where an image of a machine is
	Tree *Tree
	Cmd  Commander
	// Live: systemd runs here, and Dir is "/".
	Live bool
	// Boot is the boot id.
	Boot string
	// NoBlock: jobs are queued and not waited for. So it is while the machine boots: a
	// unit may be ordered after the service that this process is, and would wait for it
	// while it waits for the unit.
	NoBlock bool
	// Hostname asks the kernel; nil is os.Hostname.
	Hostname func() (string, error)
}

// Open opens this machine, or the image below dir.
func Open(ctx context.Context, dir string, cmd Commander) (*Host, error) {
	t, err := OpenTree(dir)
	if err != nil {
		return nil, fmt.Errorf("root directory: %w", err)
	}
	h := &Host{Dir: dir, Tree: t, Cmd: cmd}
	if dir != "/" {
		return h, nil
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return h, nil
	}
	boot, err := lifecycle.BootID()
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	h.Live, h.Boot = true, boot
	state, _ := cmd.Run(ctx, "", "systemctl", "is-system-running") // fails in every state but one
	h.NoBlock = inBoot(strings.TrimSpace(state), os.Getenv("SYSTEMD_EXEC_PID"), os.Getpid())
	return h, nil
}

// inBoot reports whether to wait for a job could be to wait for ourselves: the machine
// starts, or systemd itself has started this process, for a unit that others may be
// ordered after. (INVOCATION_ID does not tell: a terminal's shell inherits it.)
func inBoot(state, execPID string, pid int) bool {
	return state == "initializing" || state == "starting" || execPID == fmt.Sprint(pid)
}

// Close lets go of the machine.
func (h *Host) Close() error { return h.Tree.Close() }

// Look takes the snapshot that a plan for want needs.
func (h *Host) Look(ctx context.Context, want plan.Wanted, record plan.Record) (plan.Snapshot, error) {
	s := plan.Snapshot{Live: h.Live, Boot: h.Boot, Record: record}
	accounts, err := ReadAccounts(h.Tree)
	if err != nil {
		return s, fmt.Errorf("look at users: %w", err)
	}
	targets := plan.Look(want, record)
	s.UserIDs, s.Groups = accounts.userIDs(), accounts.groups
	s.Runner = accounts.userName(uint32(os.Geteuid())) + ":" + accounts.groupName(uint32(os.Getegid()))
	s.Users = h.users(targets.Users, accounts)
	if err := h.hostnames(&s); err != nil {
		return s, fmt.Errorf("look at the host name: %w", err)
	}
	s.Files = h.files(targets.Files, accounts)
	if s.Units, err = h.units(ctx, targets.Units); err != nil {
		s.Blind = fmt.Sprintf("the states of units are not known: %v", err)
	}
	return s, nil
}

func (h *Host) hostnames(s *plan.Snapshot) error {
	text, err := h.Tree.ReadFile("/etc/hostname")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.StaticHostname = strings.TrimSpace(string(text))
	if s.Hostname = s.StaticHostname; !h.Live {
		return nil
	}
	ask := h.Hostname
	if ask == nil {
		ask = os.Hostname
	}
	s.Hostname, err = ask()
	return err
}

// users leaves out keys that cannot be looked at: to write them says why, and only if
// there are some to write.
func (h *Host) users(names []string, accounts Accounts) map[string]plan.Account {
	out := map[string]plan.Account{}
	for _, name := range names {
		if a, ok := accounts.users[name]; ok {
			a, _ = withKeys(h.Tree, a)
			slices.Sort(a.Groups)
			out[name] = a
		}
	}
	return out
}

func (h *Host) files(paths []string, accounts Accounts) map[string]plan.Entry {
	out := map[string]plan.Entry{}
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") {
			continue // the plan says that it is a bad one
		}
		st, err := h.Tree.Lstat(p)
		if err != nil {
			continue // to write it makes directories, or says what is in the way
		}
		e := plan.Entry{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
			Owner: accounts.userName(st.Uid) + ":" + accounts.groupName(st.Gid)}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			e.Dir = true
		case unix.S_IFLNK:
			e.Link, err = h.Tree.Readlink(p)
			e.Content, _ = h.Tree.ReadFile(p) // it may lead nowhere
		default:
			e.Content, err = h.Tree.ReadFile(p)
		}
		if err != nil {
			e.Unreadable = err.Error()
		}
		out[p] = e
	}
	return out
}

// units asks systemd, or looks at the links in an image.
func (h *Host) units(ctx context.Context, names []string) (map[string]plan.Unit, error) {
	out := map[string]plan.Unit{}
	var loadable []string
	for _, name := range names {
		if h.Live && !unitfile.IsTemplate(name) {
			loadable = append(loadable, name)
			continue
		}
		args := []string{"is-enabled", "--", name}
		if !h.Live {
			args = []string{"--root=" + h.Dir, "is-enabled", "--", name}
		}
		state, _ := h.Cmd.Run(ctx, "", "systemctl", args...) // fails for one that is not enabled
		out[name] = plan.Unit{Enabled: strings.TrimSpace(state)}
	}
	if len(loadable) == 0 {
		return out, nil
	}
	text, err := h.Cmd.Run(ctx, "", "systemctl", slices.Concat([]string{"show",
		"--property=LoadState,ActiveState,UnitFileState,NeedDaemonReload", "--"}, loadable)...)
	if err != nil {
		return nil, err
	}
	blocks := strings.Split(strings.TrimSpace(text), "\n\n")
	if len(blocks) != len(loadable) {
		return nil, fmt.Errorf("systemctl show told of %d units, not of %d", len(blocks), len(loadable))
	}
	for i, name := range loadable {
		out[name] = parseUnit(blocks[i])
	}
	return out, nil
}

// parseUnit reads the lines that systemctl shows of one unit.
func parseUnit(block string) plan.Unit {
	values := map[string]string{}
	for line := range strings.Lines(block) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[k] = v
	}
	return plan.Unit{
		Missing:    values["LoadState"] == "not-found",
		Active:     slices.Contains([]string{"active", "activating", "reloading"}, values["ActiveState"]),
		Enabled:    values["UnitFileState"],
		NeedReload: values["NeedDaemonReload"] == "yes",
	}
}
