package service

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"flotilla/internal/unitfile"
)

var update = flag.Bool("update", false, "write what the machine wants into the scenarios")

// Each file is a unit and a story: lines that begin with ">" are events, the lines
// below each are the effects that the machine must want, in order. See story.event
// for the words. PIDs count from 100.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil || len(ar.Files) != 2 {
				t.Fatal("want a unit and a story", err)
			}
			got := play(newStory(t, string(ar.Files[0].Data)), string(ar.Files[1].Data))
			if *update {
				ar.Files[1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(ar.Files[1].Data); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// play tells the events of a story and returns it with their effects.
func play(st *story, text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		event, ok := strings.CutPrefix(line, "> ")
		if !ok {
			continue
		}
		fmt.Fprintln(&b, line)
		for _, effect := range st.tell(event) {
			fmt.Fprintln(&b, effect)
		}
	}
	return b.String()
}

type story struct {
	t       *testing.T
	m       *Machine
	now     time.Time
	pid     int
	failing bool // the next command cannot be executed
	rest    bool // processes besides main and control
	file    int  // what the PID file says
	again   bool // the unit's job is a restart
	alien   bool // the daemon is the child of another process of the unit
}

func (st *story) Others() bool     { return st.rest }
func (st *story) Lone() int        { return st.file }
func (st *story) Restarting() bool { return st.again }
func (st *story) Alien(int) bool   { return st.alien }
func (st *story) PIDFile() (int, error) {
	if st.file == 0 {
		return 0, fmt.Errorf("no file")
	}
	return st.file, nil
}

func newStory(t *testing.T, unit string) *story {
	f, err := unitfile.ParseBundle(unit)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Compile("a.service", f, func(byte) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	st := &story{t: t, now: time.Unix(1e9, 0), pid: 100}
	st.m = NewMachine(cfg, st, Memory{})
	return st
}

// tell hands one event to the machine and plays the world for what it wants.
func (st *story) tell(event string) []string {
	queue := st.event(event)
	var out []string
	for len(queue) > 0 {
		e := queue[0]
		queue = queue[1:]
		out = append(out, describeEffect(e))
		if s, ok := e.(Spawn); ok {
			queue = append(queue, st.spawn(s)...)
		}
	}
	return out
}

func (st *story) spawn(s Spawn) []Effect {
	if st.failing {
		st.failing = false
		return st.m.SpawnFailed(st.now, s.Role, ExitExec, "no such file")
	}
	st.pid++
	return st.m.Spawned(st.now, s.Role, st.pid)
}

// event: start, stop, restart (what begins with a stop), reload, empty, pidfile N, rest yes|no, nofile (the next
// command is missing), main|control EXIT, alien (the daemon has a parent in the
// unit), foreign EXIT (the main process, told to its parent), notify WORDS, after SPAN (time passes and
// the machine is woken if it wanted that).
func (st *story) event(text string) []Effect {
	f := strings.Fields(text)
	switch f[0] {
	case "start":
		return st.m.Start(st.now)
	case "stop", "restart":
		st.again = f[0] == "restart"
		return st.m.Stop(st.now)
	case "reload":
		return st.m.Reload(st.now)
	case "empty":
		st.rest = false
		return st.m.Empty(st.now)
	case "rest":
		st.rest = f[1] == "yes"
	case "nofile":
		st.failing = true
	case "pidfile":
		st.file, _ = strconv.Atoi(f[1])
		return st.m.PIDFileChanged(st.now)
	case "main":
		return st.m.MainExited(st.now, exit(f[1]))
	case "alien":
		st.alien = true
	case "foreign":
		e := exit(f[1])
		e.Foreign = true
		return st.m.MainExited(st.now, e)
	case "control":
		return st.m.ControlExited(st.now, exit(f[1]))
	case "notify":
		return st.m.Notified(st.now, Message{
			PID: st.m.MainPID, Ready: slices.Contains(f, "ready"), Reloading: slices.Contains(f, "reloading"),
			Stopping: slices.Contains(f, "stopping"), Alive: slices.Contains(f, "alive"),
		})
	case "after":
		return st.after(f[1])
	default:
		st.t.Fatalf("no event %q", text)
	}
	return nil
}

func (st *story) after(span string) []Effect {
	d, err := unitfile.ParseSpan(span)
	if err != nil {
		st.t.Fatal(err)
	}
	st.now = st.now.Add(d)
	if at := st.m.Next(); at.IsZero() || at.After(st.now) {
		return nil
	}
	return st.m.Tick(st.now)
}

// exit reads "1" or "TERM".
func exit(s string) Exit {
	if n, err := strconv.Atoi(s); err == nil {
		return Exit{Code: n}
	}
	n, err := unitfile.ParseSignal(s)
	if err != nil {
		panic(err)
	}
	return Exit{Code: n, Signal: true}
}

func describeEffect(e Effect) string {
	switch e := e.(type) {
	case Changed:
		return fmt.Sprintf("%s -> %s", e.From, e.To)
	case Spawn:
		return strings.TrimSpace(fmt.Sprintf("run %s: %v %s", e.Phase, e.Command, strings.Join(e.Env, " ")))
	case Kill:
		s := fmt.Sprintf("kill %s %v", unitfile.SignalName(e.Signal), e.PIDs)
		if e.Group {
			s += " and the rest"
		}
		return s
	case Log:
		return "log " + strings.TrimPrefix(e.Text, "a.service: ")
	case Watch:
		return fmt.Sprintf("watch %d", e.PID)
	}
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", e), "service."))
}

// Whatever happens in whatever order, a stop job ends in an inactive unit once its
// processes are gone: a machine never waits for something that cannot come.
func TestEveryStopEnds(t *testing.T) {
	units := []string{
		"ExecStart=/a\n", "Type=forking\nExecStart=/a\n", "Type=forking\nPIDFile=/p\nExecStart=/a\n",
		"Type=notify\nExecStartPre=/p\nExecStart=/a\nExecStop=/s\nExecStopPost=/q\nRestart=always\n",
		"Type=oneshot\nExecStart=/a\nExecStart=/b\nRemainAfterExit=yes\n", "ExecStart=/a\nKillMode=mixed\nRestart=always\nWatchdogSec=1\n",
	}
	events := []string{
		"start", "stop", "restart", "main 0", "main 1", "main KILL", "foreign KILL", "alien", "control 0", "control 1", "empty", "rest yes", "notify ready",
		"notify reloading", "notify stopping", "notify alive", "after 100ms", "after 100s", "nofile", "pidfile 77", "reload",
	}
	for seed := range 3000 {
		st := newStory(t, "[Service]\n"+units[seed%len(units)])
		var told []string
		for n, x := 0, uint32(seed)*2654435761+1; n < 12; n++ {
			x = x*1664525 + 1013904223
			event := events[int(x>>16)%len(events)]
			if (strings.HasPrefix(event, "main") || strings.HasPrefix(event, "foreign")) && st.m.MainPID <= 0 || strings.HasPrefix(event, "control") && st.m.ControlPID <= 0 {
				continue
			}
			told = append(told, event)
			st.tell(event)
		}
		st.tell("stop")
		for range 30 {
			st.wind()
		}
		if !st.m.State.Inactive() {
			t.Fatalf("unit %d, seed %d: %s after %q", seed%len(units), seed, st.m.State, told)
		}
	}
}

// wind lets every process end.
func (st *story) wind() {
	switch {
	case st.m.ControlPID > 0:
		st.tell("control 0")
	case st.m.MainPID > 0:
		st.tell("main 0")
	default:
		st.tell("empty")
	}
}
