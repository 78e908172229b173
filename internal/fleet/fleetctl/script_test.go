package fleetctl

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	api "flotilla/api/fleet"
	"flotilla/internal/applet"
	"flotilla/internal/unit/unittest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("TEST_MACHINE_ID_FILE"); path != "" {
		machineIDFile = path
	}
	testscript.Main(m, map[string]func(){
		"fleetctl": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			defer stop()
			os.Exit(Applet().Run(ctx, applet.Env{Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv}))
		},
	})
}

// Each script has a cluster of its own, which these commands set up:
//
//	machine ID [IP [KEY=VALUE...]]   a machine is present
//	behave UNIT STEP...              what happens when it is started (see carryOut)
//	report UNIT MACHINE ACTIVE/SUB [MESSAGE]   the machine reports that now
//	log UNIT TEXT                    a line in the unit's log
//	classic                          be a fleet 1.0 server
//	broken CODE [TEXT]               answer every request like that
//	sent [-inorder] [REQUEST...]     exactly these have changed something since the last time
//	asked-at-most N                  so many requests since the last time
//	watched ['UNIT...'|all...]       exactly these watches were asked for since the last time
//	until-reported UNIT ACTIVE/SUB   go on when a machine reports that
//	until-said FILE TEXT             go on when the text is in the file
//	cut                              break every watch, as a restart of the daemon does
//	answers 'METHOD PATH' FILE       answer that with what is in the file
//	rolls-end FILE|well              every roll ends so (JSON: state, failed, machine, why, log)
//	roll FILE                        there is such a roll (JSON)
//	describe MACHINE FILE            the machine has these fields as well (JSON)
//	sshd [-no-sockets] IP...         each machine has an SSH server, and the person a key to it
//	reinstall IP                     the machine has another SSH host key from now on
//	channels IP [TYPE...]            so was its SSH server used since it was started
//	exits CODE fleetctl ...          as exec, with that exit code
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"machine": cmdMachine, "behave": cmdBehave, "report": cmdReport, "log": cmdLog,
			"classic": cmdClassic, "broken": cmdBroken, "sent": cmdSent,
			"exits": cmdExits, "asked-at-most": cmdAsked, "watched": cmdWatched,
			"until-reported": cmdUntilReported, "until-said": cmdUntilSaid, "cut": cmdCut,
			"answers": cmdAnswers, "rolls-end": cmdRollsEnd, "roll": cmdRoll, "describe": cmdDescribe,
			"sshd": cmdSSHD, "reinstall": cmdReinstall, "channels": cmdChannels,
		},
	})
}

type fakeKey struct{}

func setup(env *testscript.Env) error {
	f := newFakeAPI()
	socket := filepath.Join(env.WorkDir, "fleet.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: f.handler()}
	go srv.Serve(l)
	env.Defer(func() { close(f.done); srv.Close() })
	env.Values[fakeKey{}] = f
	env.Values[sshdsKey{}] = sshds{}
	env.Setenv("FLEETCTL_ENDPOINT", "unix://"+socket)
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("TZ", "UTC")
	return nil
}

func fake(ts *testscript.TestScript) *fakeAPI { return ts.Value(fakeKey{}).(*fakeAPI) }

func cmdMachine(ts *testscript.TestScript, _ bool, args []string) {
	m := api.Machine{ID: args[0]}
	if len(args) > 1 {
		m.PrimaryIP = args[1]
		for _, kv := range args[2:] {
			k, v, _ := strings.Cut(kv, "=")
			if m.Metadata == nil {
				m.Metadata = map[string]string{}
			}
			m.Metadata[k] = v
		}
	}
	f := fake(ts)
	f.locked(func() {
		f.machines[m.ID] = m
		f.broadcast(api.Change{Machine: &m})
	})
}

func cmdWatched(ts *testscript.TestScript, _ bool, want []string) {
	f := fake(ts)
	f.locked(func() {
		got := f.watched
		f.watched = nil
		if !slices.Equal(got, want) {
			ts.Fatalf("watched %q, want %q", got, want)
		}
	})
}

func cmdBehave(ts *testscript.TestScript, _ bool, args []string) {
	f := fake(ts)
	f.locked(func() { f.behave[args[0]] = args[1:] })
}

func cmdReport(ts *testscript.TestScript, _ bool, args []string) {
	f := fake(ts)
	active, sub, _ := strings.Cut(args[2], "/")
	f.locked(func() {
		st := f.states[[2]string{args[0], args[1]}]
		st.Name, st.MachineID = args[0], args[1]
		st.SystemdActiveState, st.SystemdSubState, st.SystemdLoadState = active, sub, loaded
		st.Message = strings.Join(args[3:], " ")
		f.setState(st)
	})
}

func cmdLog(ts *testscript.TestScript, _ bool, args []string) {
	f := fake(ts)
	f.locked(func() { f.logs[args[0]] = append(f.logs[args[0]], strings.Join(args[1:], " ")) })
}

func cmdClassic(ts *testscript.TestScript, _ bool, _ []string) {
	f := fake(ts)
	f.locked(func() { f.classic = true })
}

func cmdBroken(ts *testscript.TestScript, _ bool, args []string) {
	f := fake(ts)
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	f.locked(func() { f.broken, f.brokenBy = code, strings.Join(args[1:], " ") })
}

func cmdSent(ts *testscript.TestScript, _ bool, args []string) {
	f := fake(ts)
	f.locked(func() {
		if len(args) > 0 && args[0] == "-inorder" {
			args = args[1:]
		} else {
			slices.Sort(f.sent)
		}
		if got := strings.Join(f.sent, ", "); got != strings.Join(args, ", ") {
			ts.Fatalf("sent %q, want %q", got, strings.Join(args, ", "))
		}
		f.sent = nil
	})
}

func cmdAsked(ts *testscript.TestScript, _ bool, args []string) {
	f := fake(ts)
	most, err := strconv.Atoi(args[0])
	ts.Check(err)
	f.locked(func() {
		if f.asked > most {
			ts.Fatalf("%d requests", f.asked)
		}
		f.asked = 0
	})
}

func cmdUntilReported(ts *testscript.TestScript, _ bool, args []string) {
	f := fake(ts)
	until(ts, args[0]+" to become "+args[1], func() (found bool) {
		f.locked(func() {
			for k, st := range f.states {
				found = found || k[0] == args[0] && st.SystemdActiveState+"/"+st.SystemdSubState == args[1]
			}
		})
		return found
	})
}

func cmdUntilSaid(ts *testscript.TestScript, _ bool, args []string) {
	until(ts, args[1], func() bool {
		b, _ := os.ReadFile(ts.MkAbs(args[0])) // it may not be there yet
		return strings.Contains(string(b), args[1])
	})
}

// until waits for a condition, but not for ever.
func until(ts *testscript.TestScript, what string, met func() bool) {
	err := unittest.Eventually(context.Background(), func() error {
		if !met() {
			return errors.New("waited for " + what)
		}
		return nil
	})
	ts.Check(err)
}

func cmdCut(ts *testscript.TestScript, _ bool, _ []string) {
	f := fake(ts)
	f.locked(func() {
		close(f.cut)
		f.cut = make(chan struct{})
	})
}

// cmdExits runs a command and wants an exit code. testscript tells success from
// failure alone, and cannot say by which code.
func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec("sh", append([]string{"-c", `"$@"; code=$?; [ $code = "$0" ] || { echo "exit code $code" >&2; exit 99; }`}, args...)...)
	ts.Check(err)
}
