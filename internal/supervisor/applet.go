package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/lifecycle"
	"flotilla/internal/logx"
)

// Applet is "flotilla supervisor". It is out of the overview: "flotilla up" runs
// it.
func Applet() applet.Applet {
	return applet.Applet{
		Name:    "supervisor",
		Summary: "run units where systemd is not PID 1",
		Run: func(ctx context.Context, env applet.Env) int {
			return cli.Run(ctx, env, command(env))
		},
	}
}

func command(env applet.Env) *cobra.Command {
	var cfg Config
	var readyFD int
	cmd := &cobra.Command{
		Use:   "supervisor --dir DIR",
		Short: "run units where systemd is not PID 1",
		Long: "Runs units where systemd is not PID 1. 'flotilla up' starts it by itself.\n" +
			"SIGTERM stops all units and ends it; SIGKILL leaves them running, and the next one adopts them.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Log = logx.New(env.Stderr, slog.LevelInfo)
			return serve(cmd.Context(), cfg, readyFD)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Dir, "dir", "", "where units, their log and their state are kept")
	f.StringVar(&cfg.Machine, "machine", "", "name of this machine in log entries (default: the host name)")
	f.StringArrayVar(&cfg.Provides, "provide", nil, "a unit that others may require and that counts as active (repeatable)")
	f.BoolVar(&cfg.NoCgroup, "no-cgroup", false, "track processes as where no cgroup can be made")
	f.IntVar(&readyFD, "ready-fd", 0, "write a line to this descriptor when ready, or why it failed")
	_ = cmd.MarkFlagRequired("dir") // fails for an unknown flag only
	return cmd
}

// serve runs the supervisor of this process.
func serve(ctx context.Context, cfg Config, readyFD int) error {
	cfg.Subreaper = true
	syscall.Umask(0o022)
	// Services expect SIGPIPE to be ignored (systemd.exec(5), "IgnoreSIGPIPE=").
	signal.Ignore(syscall.SIGPIPE)
	outlast(syscall.SIGHUP)
	closeInherited(readyFD)
	tell := readyTeller(readyFD)
	s := New(cfg)
	// SIGTERM, by way of ctx, is an orderly shutdown: Serve itself must not end.
	stop := context.AfterFunc(ctx, func() {
		if err := s.Shutdown(context.Background()); err != nil {
			cfg.Log.Error("shutdown failed", "err", err)
		}
	})
	defer stop()
	answered := make(chan error, 1)
	err := s.Serve(context.WithoutCancel(ctx), func() {
		l, err := s.Listen()
		if err != nil {
			s.quit(err)
			return
		}
		go func() { answered <- s.Answer(l) }()
		cfg.Log.Info("supervisor ready", "dir", cfg.Dir, "pid", os.Getpid())
		tell(nil)
		lifecycle.Trim()
	})
	if err != nil {
		tell(err)
		return err
	}
	_ = os.Remove(s.socket())
	return errors.Join(err, <-answered)
}

// outlast makes sig do nothing to us, and so with all signals that we came to ignore
// from whoever started us. They are caught and dropped: what is ignored would be so
// in the services too, and a shell cannot trap what it was born ignoring.
func outlast(sig syscall.Signal) {
	dropped := make(chan os.Signal, 1)
	signal.Notify(dropped, sig)
	for other := syscall.Signal(1); other < 32; other++ {
		if other != syscall.SIGPIPE && signal.Ignored(other) {
			signal.Notify(dropped, other)
		}
	}
}

// closeInherited lets go of what our starter had open and did not mean for us: a lock
// on a file would be held for as long as we run, or any service. What this program
// opens itself an execve would close; that tells the others.
func closeInherited(readyFD int) {
	open, _ := os.ReadDir("/proc/self/fd") // without /proc nothing is closed
	for _, e := range open {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 || fd == readyFD {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
}

// readyTeller returns what tells the starter how the start went; it speaks once.
func readyTeller(fd int) func(error) {
	if fd <= 0 {
		return func(error) {}
	}
	f := os.NewFile(uintptr(fd), "ready-fd")
	syscall.CloseOnExec(fd)
	return func(err error) {
		if f == nil {
			return
		}
		if err != nil {
			fmt.Fprintf(f, "%v\n", err)
		} else {
			fmt.Fprint(f, readyLine)
		}
		f.Close()
		f = nil
	}
}
