package etcdcmd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"time"

	"go.etcd.io/etcd/api/v3/version"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
	"flotilla/internal/lifecycle"
	"flotilla/internal/logx"
)

// stopTimeout is how long the member may take to stop: running requests have a
// second, handing over the leadership a few.
const stopTimeout = 20 * time.Second

// Applet is the program.
func Applet() applet.Applet {
	return applet.Applet{
		Name:    "etcd",
		Group:   "Store",
		Summary: "a member of the store: v2 keys API and v3 on the same ports",
		Run:     run,
	}
}

func run(ctx context.Context, env applet.Env) int {
	switch first, rest := firstOf(env.Args); first {
	case "recover":
		err := runRecover(ctx, env)
		fault.Print(env.Stderr, "etcd recover", err)
		return fault.ExitCode(err)
	case "help":
		err := help(env.Stdout, env.CalledOr("etcd"), rest)
		fault.Print(env.Stderr, "etcd", err)
		return fault.ExitCode(err)
	}
	o := newOptions()
	err := o.parse(env)
	switch {
	case errors.Is(err, flag.ErrHelp):
		o.usage(env.Stdout)
		return fault.ExitOK
	case err == nil && o.version:
		printVersion(env.Stdout)
		return fault.ExitOK
	case err == nil:
		err = serve(ctx, env, o)
	}
	fault.Print(env.Stderr, "etcd", err)
	return fault.ExitCode(err)
}

func firstOf(args []string) (first string, rest []string) {
	if len(args) == 0 {
		return "", nil
	}
	return args[0], args[1:]
}

func printVersion(w io.Writer) {
	fmt.Fprintf(w, "etcd Version: %s\nFlotilla Version: %s\nGo Version: %s\nGo OS/Arch: %s/%s\n",
		version.Version, applet.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// serve runs the member or the proxy until ctx is done, and tells systemd when it is ready.
func serve(ctx context.Context, env applet.Env, o *options) error {
	e := o.cfg.Engine
	log, done, err := newLog(env, e.LogOutputs, e.LogFormat, e.LogLevel)
	if err != nil {
		return err
	}
	defer done()
	name := "member " + e.Name
	if o.proxy != proxyOff {
		name = "proxy"
	}
	return lifecycle.Run(ctx, log, lifecycle.Part{
		Name:        name,
		StopTimeout: stopTimeout,
		Run: func(ctx context.Context, ready func()) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			go giveRoom(ctx)
			defer lifecycle.Notify("STOPPING=1")
			return o.run(ctx, log, ready)
		},
	})
}

// newLog makes the logger that --log-outputs, --log-format and --log-level
// describe: "default", "stderr" and "stdout" are the streams, anything else is a
// file to append to.
func newLog(env applet.Env, outputs []string, format, level string) (*slog.Logger, func(), error) {
	l, err := logx.Level(level)
	if err != nil {
		return nil, nil, fault.Usage("--log-level %q: want debug, info, warn or error", level)
	}
	var to []io.Writer
	var files []*os.File
	done := func() {
		for _, f := range files {
			f.Close()
		}
	}
	for _, name := range outputs {
		switch name {
		case "default", "stderr", "systemd/journal": // the journal reads stderr
			to = append(to, env.Stderr)
		case "stdout":
			to = append(to, env.Stdout)
		default:
			f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				done()
				return nil, nil, fmt.Errorf("--log-outputs: %w", err)
			}
			files = append(files, f)
			to = append(to, f)
		}
	}
	w := io.MultiWriter(to...)
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})), done, nil
	case "console":
		return logx.New(w, l), done, nil
	}
	done()
	return nil, nil, fault.Usage("--log-format %q: want console or json", format)
}
