package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"flotilla/internal/supervisor/proc"
	"flotilla/internal/supervisor/service"
	"flotilla/internal/unitfile"
)

// gone reports whether a signal failed because there was nobody to get it.
func gone(err error) bool { return errors.Is(err, unix.ESRCH) }

// account is whom a command runs as.
type account struct {
	cred              *syscall.Credential // nil: as we are
	name, home, shell string
	set               bool // User= is set
}

// start starts a command of the unit. Errors are *proc.StartError where systemd
// would have a process that ends with a status of its own.
func (u *svc) start(e service.Spawn) (int, error) {
	cfg := u.m.Config()
	who, err := lookupAccount(cfg.Context, e.Command.Privileged)
	if err != nil {
		return 0, err
	}
	if err := u.listen(); err != nil {
		return 0, err
	}
	env, err := u.environment(e, who)
	if err != nil {
		return 0, err
	}
	argv, unset := e.Command.Argv(env)
	for _, name := range unset {
		u.s.logUnit(u.name, 7, fmt.Sprintf("%s: Referenced but unset environment variable evaluates to an empty string: %s", u.name, name))
	}
	spec := proc.Spec{
		Path: e.Command.Path, Argv: argv, Env: env, Cred: who.cred,
		UMask: cfg.Context.UMask, Nice: cfg.Context.Nice, OOM: cfg.Context.OOMScoreAdjust,
		Limits: cfg.Context.Limits, Group: u.group,
	}
	if spec.Dir, err = workingDirectory(cfg.Context, who); err != nil {
		return 0, err
	}
	return u.startWith(spec, e)
}

// startWith opens the command's output and starts it.
func (u *svc) startWith(spec proc.Spec, e service.Spawn) (int, error) {
	st, err := u.openStreams(e)
	if err != nil {
		return 0, &proc.StartError{Status: service.ExitStdout, Err: err}
	}
	defer st.close()
	spec.Stdout, spec.Stderr = st.stdout, st.stderr
	pidKnown := make(chan int, 1)
	pid, err := u.s.procs.Start(spec, func(x service.Exit) { u.exited(<-pidKnown, x) })
	if err != nil {
		st.abandon()
		return 0, err
	}
	pidKnown <- pid
	if st.out != nil {
		st.out.PID = pid
		u.outputs = append(u.outputs, st.out)
	}
	return pid, nil
}

// lookupAccount finds whom a command runs as. Without the privilege to become
// somebody else, only ourselves will do.
func lookupAccount(c service.Context, privileged bool) (account, error) {
	if privileged || c.User == "" && c.Group == "" && len(c.SupplementaryGroup) == 0 {
		return account{}, nil
	}
	cred := &syscall.Credential{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	a := account{cred: cred}
	if c.User != "" {
		p, err := findUser(c.User)
		if err != nil {
			return account{}, &proc.StartError{Status: service.ExitUser, Err: fmt.Errorf("user %s: %w", c.User, err)}
		}
		a.set, a.name, a.home, a.shell = true, p.Username, p.HomeDir, loginShell(p.Username)
		cred.Uid, cred.Gid = number(p.Uid), number(p.Gid)
		ids, _ := p.GroupIds() // nobody but the primary group is a valid answer
		for _, id := range ids {
			cred.Groups = append(cred.Groups, number(id))
		}
	}
	for i, name := range append([]string{c.Group}, c.SupplementaryGroup...) {
		if name == "" {
			continue
		}
		gid, err := findGroup(name)
		if err != nil {
			return account{}, &proc.StartError{Status: service.ExitGroup, Err: fmt.Errorf("group %s: %w", name, err)}
		}
		if i == 0 {
			cred.Gid = gid
		} else {
			cred.Groups = append(cred.Groups, gid)
		}
	}
	return a.permitted()
}

func (a account) permitted() (account, error) {
	if os.Geteuid() == 0 {
		return a, nil
	}
	if int(a.cred.Uid) == os.Geteuid() && int(a.cred.Gid) == os.Getegid() {
		a.cred = nil // nothing to change
		return a, nil
	}
	return account{}, &proc.StartError{Status: service.ExitUser, Err: fmt.Errorf(
		"become user %d and group %d: the supervisor runs as user %d and group %d, not as root",
		a.cred.Uid, a.cred.Gid, os.Geteuid(), os.Getegid())}
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}

func findUser(name string) (*user.User, error) {
	if _, err := strconv.Atoi(name); err == nil {
		return user.LookupId(name)
	}
	return user.Lookup(name)
}

func findGroup(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return number(g.Gid), nil
}

// loginShell reads the shell from /etc/passwd, which package user does not tell.
func loginShell(name string) string {
	data, _ := os.ReadFile("/etc/passwd")
	for line := range strings.SplitSeq(string(data), "\n") {
		f := strings.Split(line, ":")
		if len(f) == 7 && f[0] == name {
			return f[6]
		}
	}
	return "/bin/sh"
}

// workingDirectory checks what a command starts in: the kernel's error would not
// tell a missing directory from a missing program.
func workingDirectory(c service.Context, who account) (string, error) {
	dir := c.WorkingDirectory
	switch {
	case dir == "" && os.Geteuid() == 0:
		return "/", nil
	case dir == "~" && who.set:
		dir = who.home
	case dir == "" || dir == "~":
		// A supervisor of a user is like that user's systemd: it starts at home.
		dir = homeDir()
	}
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = &fs.PathError{Op: "chdir", Path: dir, Err: syscall.ENOTDIR}
	}
	switch {
	case err == nil:
		return dir, nil
	case c.ChdirMayFail:
		return "/", nil
	}
	return "", &proc.StartError{Status: service.ExitChdir, Err: fmt.Errorf("change to directory %s: %w", dir, err)}
}

func homeDir() string {
	if h, err := os.UserHomeDir(); err == nil {
		return h
	}
	return "/"
}

// environment puts a command's variables together; later ones win
// (systemd.exec(5), "Environment").
func (u *svc) environment(e service.Spawn, who account) ([]string, error) {
	c := u.m.Config().Context
	env := append(baseEnvironment(), "INVOCATION_ID="+u.group.RunID)
	if who.set {
		env = append(env, "USER="+who.name, "LOGNAME="+who.name, "HOME="+who.home, "SHELL="+who.shell)
	}
	if u.notify != nil {
		env = append(env, "NOTIFY_SOCKET="+u.notify.path)
	}
	if w := u.m.Config().Watchdog; w > 0 && e.Role == service.MainProcess {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(w.Microseconds(), 10))
	}
	if p := u.m.Config().PIDFile; p != "" {
		env = append(env, "PIDFILE="+p)
	}
	env = append(env, e.Env...)
	for _, name := range c.PassEnvironment {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	env = append(env, c.Environment...)
	for _, f := range c.EnvironmentFiles {
		more, err := u.readEnvironment(f)
		if err != nil {
			return nil, err
		}
		env = append(env, more...)
	}
	return slices.DeleteFunc(dedupe(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(c.UnsetEnvironment, name) || slices.Contains(c.UnsetEnvironment, kv)
	}), nil
}

// inherited is what the units of a user's supervisor know of their user.
var inherited = []string{"HOME", "USER", "LOGNAME", "SHELL", "XDG_RUNTIME_DIR"}

func baseEnvironment() []string {
	env := []string{"PATH=" + service.SearchPath}
	names := []string{"LANG"}
	if os.Geteuid() != 0 {
		names = append(names, inherited...)
	}
	for _, name := range names {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// dedupe keeps the last value of each variable, at the place of the first.
func dedupe(env []string) []string {
	at := map[string]int{}
	var out []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := at[name]; ok {
			out[i] = kv
			continue
		}
		at[name] = len(out)
		out = append(out, kv)
	}
	return out
}

// readEnvironment reads the files that an EnvironmentFile= names: it may be a
// pattern.
func (u *svc) readEnvironment(f service.EnvironmentFile) ([]string, error) {
	files, err := filepath.Glob(f.Path)
	if err == nil && len(files) == 0 {
		err = fs.ErrNotExist
	}
	var out []string
	for _, name := range files {
		var data []byte
		if data, err = os.ReadFile(name); err != nil {
			break
		}
		env, problems := unitfile.ParseEnvFile(string(data))
		for _, p := range problems {
			u.s.logUnit(u.name, 4, fmt.Sprintf("%s: %s: %v, ignored", u.name, name, p))
		}
		out = append(out, env...)
	}
	if err != nil && !f.Optional {
		return nil, fmt.Errorf("read environment file %s: %w", f.Path, err)
	}
	return out, nil
}
