// Package applet runs one of the programs that the binary holds: a link name or
// the first argument picks it.
package applet

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"flotilla/internal/fault"
)

// Version is the release that this binary was built from, as git describes it.
// The build sets it (-ldflags -X); "dev" means that it was built by hand.
var Version = "dev"

// Env is all that a program gets from outside. A test builds one by hand.
type Env struct {
	// Called is what the program was called as, for help and hints that can be typed as they
	// are: the name of a link ("coreos-cloudinit"), or two words ("flotilla cloudinit"). ""
	// where nobody called it, as in a manual.
	Called    string
	Args      []string // the arguments after the program's name
	Stdin     io.Reader
	Stdout    io.Writer
	Stderr    io.Writer
	LookupEnv func(string) (string, bool) // as os.LookupEnv
}

// Getenv returns the variable's value, "" if it is not set.
func (e Env) Getenv(key string) string {
	if e.LookupEnv == nil {
		return ""
	}
	v, _ := e.LookupEnv(key)
	return v
}

// CalledOr returns Called, or name where nobody called the program.
func (e Env) CalledOr(name string) string {
	if e.Called == "" {
		return name
	}
	return e.Called
}

// NameOr returns the program's own name among what it was called as: what its errors begin
// with. It is name where nobody called it.
func (e Env) NameOr(name string) string {
	called := e.CalledOr(name)
	return called[strings.LastIndexByte(called, ' ')+1:]
}

// Applet is one program of the binary.
type Applet struct {
	Name    string
	Aliases []string // further link names, such as coreos-cloudinit
	Group   string   // heading in the overview; "" keeps it out of the overview
	Summary string   // one line, lower case, no full stop
	// Completes: Run answers a shell that completes a command line, "__complete"
	// and the words typed so far, as cobra's commands do.
	Completes bool
	// Run is the program. It ends when ctx is cancelled and returns the exit code.
	Run func(ctx context.Context, env Env) int
}

// Table is all programs, in the order of the overview.
type Table []Applet

// Find returns the applet with this name or alias.
func (t Table) Find(name string) (Applet, bool) {
	for _, a := range t {
		if a.Name == name || slices.Contains(a.Aliases, name) {
			return a, true
		}
	}
	return Applet{}, false
}

// classic are the names that the programs had when each was a binary of its own, and
// that scripts, documents and fingers know.
var classic = []string{
	"coreos-cloudinit", "etcd", "etcdctl", "fleetctl", "fleetd", "locksmithctl", "locksmithd",
}

// Links returns the link names that whoever installs the binary makes for it, sorted:
// the classic names of the programs that it holds. The binary prints them itself
// ("flotilla __links").
func (t Table) Links() []string {
	return slices.DeleteFunc(slices.Clone(classic), func(name string) bool {
		_, ok := t.Find(name)
		return !ok
	})
}

// Exec runs the program that this process was called as and ends the process. The
// first SIGINT or SIGTERM ends the program's context, a second one the process.
func (t Table) Exec() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(t.Main(ctx, os.Args[0], Env{
		Args:      os.Args[1:],
		Stdin:     os.Stdin,
		Stdout:    os.Stdout,
		Stderr:    os.Stderr,
		LookupEnv: os.LookupEnv,
	}))
}

// ExecNamed is Exec if this process was called as one of the table's programs, and
// otherwise does nothing. It may be called from a package's init.
func (t Table) ExecNamed() {
	if _, _, ok := t.pick(os.Args[0], Env{Args: os.Args[1:]}); !ok {
		return
	}
	// The goroutine that runs the inits is tied to its thread, which makes every
	// switch to it dear: the program gets one of its own, and ends the process.
	go t.Exec()
	select {}
}

// pick returns the applet that the binary's name picks, else the first argument, and env
// as it gets it.
func (t Table) pick(argv0 string, env Env) (Applet, Env, bool) {
	base := filepath.Base(argv0)
	if a, ok := t.Find(base); ok {
		env.Called = base
		return a, env, true
	}
	if len(env.Args) == 0 {
		return Applet{}, env, false
	}
	a, ok := t.Find(env.Args[0])
	if ok {
		env.Called, env.Args = base+" "+env.Args[0], env.Args[1:]
	}
	return a, env, ok
}

// Main picks the applet by the name the binary was called with (argv0), else by
// the first argument, runs it and returns its exit code.
func (t Table) Main(ctx context.Context, argv0 string, env Env) int {
	if a, env, ok := t.pick(argv0, env); ok {
		return a.Run(ctx, env)
	}
	if len(env.Args) == 0 {
		t.Overview(env.Stdout)
		return fault.ExitOK
	}
	name := env.Args[0]
	env.Args = env.Args[1:]
	switch name {
	case "help", "--help", "-help", "-h":
		return t.help(ctx, argv0, env)
	case "version", "--version", "-version", "-v":
		fmt.Fprintf(env.Stdout, "flotilla version %s\n", Version)
		return fault.ExitOK
	case "__links":
		fmt.Fprintln(env.Stdout, strings.Join(t.Links(), "\n"))
		return fault.ExitOK
	case "__complete", "__completeNoDesc":
		return t.complete(ctx, name, env)
	}
	t.unknown(env.Stderr, name)
	return fault.ExitUsage
}

func (t Table) help(ctx context.Context, argv0 string, env Env) int {
	if len(env.Args) == 0 {
		t.Overview(env.Stdout)
		return fault.ExitOK
	}
	a, env, ok := t.pick(argv0, env)
	if !ok {
		t.unknown(env.Stderr, env.Args[0])
		return fault.ExitUsage
	}
	env.Args = append([]string{"--help"}, env.Args...)
	return a.Run(ctx, env)
}

// What a shell is told behind the suggestions, in cobra's numbers.
const (
	elseFiles = ":0" // complete file names where nothing fits
	noFiles   = ":4"
)

// complete answers a shell: with the names of programs for the first word, and else
// with what the program that it names answers.
func (t Table) complete(ctx context.Context, request string, env Env) int {
	if len(env.Args) > 1 {
		a, ok := t.Find(env.Args[0])
		if !ok || !a.Completes {
			fmt.Fprintln(env.Stdout, elseFiles)
			return fault.ExitOK
		}
		env.Args = append([]string{request}, env.Args[1:]...)
		return a.Run(ctx, env)
	}
	typed := strings.Join(env.Args, "")
	for _, a := range t {
		if a.Group != "" && strings.HasPrefix(a.Name, typed) {
			fmt.Fprintf(env.Stdout, "%s\t%s\n", a.Name, a.Summary)
		}
	}
	fmt.Fprintln(env.Stdout, noFiles)
	return fault.ExitOK
}

// Overview prints what there is.
func (t Table) Overview(w io.Writer) {
	fmt.Fprintf(w, "flotilla: a handful of Linux machines become one; the unit file is the API.\n\n")
	fmt.Fprintf(w, "usage: flotilla COMMAND [ARGS...]    or a link named COMMAND to this binary\n")
	group := ""
	for _, a := range t {
		if a.Group == "" {
			continue
		}
		if a.Group != group {
			group = a.Group
			fmt.Fprintf(w, "\n%s\n", group)
		}
		fmt.Fprintf(w, "  %-12s %s\n", a.Name, a.Summary)
	}
	fmt.Fprintf(w, "\nfirst try: flotilla up          help of one: flotilla help COMMAND          version: flotilla version\n")
}

func (t Table) unknown(w io.Writer, name string) {
	fmt.Fprintf(w, "flotilla: unknown command %q\n", name)
	if near := fault.Nearest(name, t.names()); near != "" {
		fmt.Fprintf(w, "hint: did you mean %q?\n", near)
	}
	fmt.Fprintf(w, "hint: there are: %s\n", strings.Join(t.names(), " "))
}

func (t Table) names() []string {
	var out []string
	for _, a := range t {
		if a.Group != "" {
			out = append(out, a.Name)
		}
	}
	return out
}
