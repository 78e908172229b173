package unittest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/tools/txtar"

	"flotilla/internal/unit"
)

// script is a case as text. The comment of the archive holds the steps, one a
// line. Lines that begin with '#' say what the case is about. A file whose name
// is a unit's ("web.service") is installed before the first step; one in a folder
// ("changed/web.service") is a text for install and refused; any other is
// written to the work directory. "$DIR" stands for the work directory in files.
//
//	needs processes|root            leave the case out where that is missing
//	install NAME [FILE]             install the file's text as NAME
//	refused NAME FILE               Install says no, or else a start job cannot be queued
//	remove NAME...                  remove the units
//	reload                          read changed files again
//	start|stop|restart UNIT[=R]...  send one job each, together; each ends in R (done),
//	                                or cannot be queued (R is "error")
//	begin JOBS                      as the line above, e.g. "begin start a.service", but go on
//	end                             wait for what begin began
//	is UNIT STATE [FIELD=VALUE]...  the unit's status now; STATE is ACTIVE or ACTIVE/SUB
//	wait UNIT STATE [F=V]...        the unit's status becomes so
//	mark UNIT                       remember its main PID, for pid=same and pid=new
//	kill UNIT SIGNAL                send a signal to its main process
//	installed [UNIT]...             exactly these units are installed
//	show UNIT CODE                  Show returns CODE and names the unit
//	log UNIT TEXT                   a line of the unit's log contains TEXT; lines are
//	                                compared as "[IDENTIFIER PRIORITY] MESSAGE"
//	write FILE TEXT                 write a file in the work directory
//	delete FILE                     delete it
//	file FILE [WORD]...             a file appears there with exactly these words, or any
//	nofile FILE                     there is no such file
//	before FILE A B                 the word A comes before the word B in the file
//	alive FILE                      every process whose PID is in the file runs
//	ended FILE                      none of them runs any more
//	signal FILE SIGNAL              send a signal to the processes whose PID is in the file
//
// Fields: load, result, exit, restarts (N, or N+ for at least N), pid (yes, no,
// same, new), reload (yes, no), fragment (yes, no), job (yes, no), desc.
type script struct {
	file  string
	about []string
	needs []string
	steps []step
	files []txtar.File
}

type step struct {
	line int
	text string
	verb string
	args []string
}

// verbs says how many arguments each verb takes at least.
var verbs = map[string]struct {
	min int
	run func(p *player, args []string) error
}{
	"install":   {1, (*player).install},
	"refused":   {2, (*player).refused},
	"remove":    {1, (*player).remove},
	"reload":    {0, (*player).reload},
	"start":     {1, func(p *player, a []string) error { return p.jobs(unit.Start, a) }},
	"stop":      {1, func(p *player, a []string) error { return p.jobs(unit.Stop, a) }},
	"restart":   {1, func(p *player, a []string) error { return p.jobs(unit.Restart, a) }},
	"begin":     {2, (*player).begin},
	"end":       {0, (*player).end},
	"is":        {2, (*player).is},
	"wait":      {2, (*player).wait},
	"mark":      {1, (*player).mark},
	"kill":      {2, (*player).kill},
	"installed": {0, (*player).installed},
	"show":      {2, (*player).show},
	"log":       {2, (*player).log},
	"write":     {2, (*player).write},
	"delete":    {1, (*player).delete},
	"file":      {1, (*player).hasFile},
	"nofile":    {1, (*player).noFile},
	"before":    {3, (*player).before},
	"alive":     {1, (*player).alive},
	"ended":     {1, (*player).ended},
	"signal":    {2, (*player).signal},
}

func parseScript(name string, data []byte) (*script, error) {
	ar := txtar.Parse(data)
	sc := &script{file: name, files: ar.Files}
	for i, line := range strings.Split(string(ar.Comment), "\n") {
		line = strings.TrimSpace(line)
		args := strings.Fields(line)
		switch {
		case line == "":
		case line[0] == '#':
			sc.about = append(sc.about, strings.TrimSpace(line[1:]))
		case args[0] == "needs":
			sc.needs = append(sc.needs, args[1:]...)
		default:
			s := step{line: i + 1, text: line, verb: args[0], args: args[1:]}
			if v, ok := verbs[s.verb]; !ok || len(s.args) < v.min {
				return nil, fmt.Errorf("%s:%d: %q: no such step, or arguments are missing", name, s.line, line)
			}
			sc.steps = append(sc.steps, s)
		}
	}
	if len(sc.about) == 0 || len(sc.steps) == 0 {
		return nil, fmt.Errorf("%s: a script says first what it is about ('# ...') and has steps", name)
	}
	return sc, nil
}

func (sc *script) title() string {
	return strings.TrimSuffix(path.Base(sc.file), ".txtar")
}

func (sc *script) play(t *testing.T, s Subject) {
	t.Log(strings.Join(sc.about, " "))
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit)
	defer cancel()
	p := &player{Subject: s, ctx: ctx, sc: sc, marks: map[string]int{}}
	if err := p.prepare(); err != nil {
		t.Fatalf("%s: %v", sc.file, err)
	}
	for _, s := range sc.steps {
		if err := verbs[s.verb].run(p, s.args); err != nil {
			t.Fatalf("%s:%d: %s: %v%s", sc.file, s.line, s.text, err, p.picture())
		}
	}
}

// player carries a script out on a subject.
type player struct {
	Subject
	ctx   context.Context
	sc    *script
	marks map[string]int // main PID by unit
	begun []begun
}

type begun struct {
	want map[string]string
	out  <-chan unit.Outcome
}

// prepare writes the files and installs the units, in the order of the archive.
func (p *player) prepare() error {
	for _, f := range p.sc.files {
		switch {
		case strings.Contains(f.Name, "/"):
		case isUnit(f.Name):
			if err := p.Manager.Install(p.ctx, f.Name, p.text(f)); err != nil {
				return err
			}
		default:
			if err := os.WriteFile(p.path(f.Name), []byte(p.text(f)), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func isUnit(name string) bool {
	types := []string{".service", ".socket", ".timer", ".path", ".mount", ".target", ".slice"}
	return slices.Contains(types, filepath.Ext(name))
}

func (p *player) text(f txtar.File) string {
	return strings.ReplaceAll(string(f.Data), "$DIR", p.Dir)
}

func (p *player) path(name string) string { return filepath.Join(p.Dir, name) }

func (p *player) lookup(name string) (string, error) {
	for _, f := range p.sc.files {
		if f.Name == name {
			return p.text(f), nil
		}
	}
	return "", fmt.Errorf("no file %s in the script", name)
}

func (p *player) install(args []string) error {
	text, err := p.lookup(args[len(args)-1])
	if err != nil {
		return err
	}
	return p.Manager.Install(p.ctx, args[0], text)
}

func (p *player) refused(args []string) error {
	text, err := p.lookup(args[1])
	if err != nil {
		return err
	}
	if err := p.Manager.Install(p.ctx, args[0], text); err != nil {
		return p.notInstalled(args[0])
	}
	o := <-p.Manager.Run(p.ctx, []unit.Job{{Kind: unit.Start, Unit: args[0]}})
	if o.Err == nil {
		return fmt.Errorf("installed, and the start job ended in %s", o.Result)
	}
	return p.Manager.Remove(p.ctx, args[0])
}

func (p *player) notInstalled(name string) error {
	have, err := p.Manager.Installed(p.ctx)
	if _, ok := have[name]; ok {
		return errors.New("the install failed and left the file behind")
	}
	return err
}

func (p *player) remove(args []string) error {
	for _, name := range args {
		if err := p.Manager.Remove(p.ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (p *player) reload([]string) error { return p.Manager.Reload(p.ctx) }

func (p *player) jobs(kind unit.Kind, args []string) error {
	p.send(kind, args)
	return p.end(nil)
}

func (p *player) begin(args []string) error {
	p.send(unit.Kind(args[0]), args[1:])
	return nil
}

func (p *player) send(kind unit.Kind, args []string) {
	b := begun{want: map[string]string{}}
	var jobs []unit.Job
	for _, a := range args {
		name, want, ok := strings.Cut(a, "=")
		if !ok {
			want = string(unit.Done)
		}
		b.want[name] = want
		jobs = append(jobs, unit.Job{Kind: kind, Unit: name})
	}
	b.out = p.Manager.Run(p.ctx, jobs)
	p.begun = append(p.begun, b)
}

func (p *player) end([]string) error {
	var errs []error
	for _, b := range p.begun {
		for o := range b.out {
			errs = append(errs, checkOutcome(o, b.want[o.Job.Unit]))
			delete(b.want, o.Job.Unit)
		}
		for name := range b.want {
			errs = append(errs, fmt.Errorf("no outcome for %s", name))
		}
	}
	p.begun = nil
	return errors.Join(errs...)
}

func checkOutcome(o unit.Outcome, want string) error {
	got := string(o.Result)
	if o.Err != nil {
		got = "error"
	}
	if got == want || slices.Contains(strings.Split(want, "|"), got) {
		return nil
	}
	return fmt.Errorf("the job for %s ended in %s, want %s (error: %v)", o.Job.Unit, got, want, o.Err)
}

func (p *player) status(name string) (unit.Status, error) {
	all, err := p.Manager.Status(p.ctx, name)
	if err != nil {
		return unit.Status{}, err
	}
	if len(all) != 1 || all[0].Name != name {
		return unit.Status{}, fmt.Errorf("asked for %s, got %+v", name, all)
	}
	return all[0], nil
}

func (p *player) is(args []string) error {
	st, err := p.status(args[0])
	if err != nil {
		return err
	}
	return p.matches(st, args[1:])
}

func (p *player) wait(args []string) error {
	return Eventually(p.ctx, func() error { return p.is(args) })
}

// Eventually calls f until it returns nil and gives up after the suite's limit,
// with f's last error.
func Eventually(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// matches compares a status with the words of is and wait; "a|b" holds for either.
func (p *player) matches(st unit.Status, want []string) error {
	for _, w := range want {
		field, value, ok := strings.Cut(w, "=")
		if !ok {
			field, value = "state", w
		}
		if err := p.matchesOne(st, field, strings.Split(value, "|")); err != nil {
			return err
		}
	}
	return nil
}

func (p *player) matchesOne(st unit.Status, field string, values []string) error {
	var got string
	for _, value := range values {
		var err error
		if got, err = p.field(st, field, value); err != nil {
			return err
		}
		if got == value {
			return nil
		}
	}
	return fmt.Errorf("%s is %s, want %s; status %+v", field, got, strings.Join(values, " or "), st)
}

// field returns a field of st in the words that value is written in: a value that
// holds comes back as it is.
func (p *player) field(st unit.Status, field, value string) (string, error) {
	switch field {
	case "state":
		if !strings.Contains(value, "/") {
			return st.Active, nil
		}
		return st.Active + "/" + st.Sub, nil
	case "load":
		return st.Load, nil
	case "result":
		return st.Result, nil
	case "exit":
		return strconv.Itoa(st.ExitCode), nil
	case "desc":
		return st.Description, nil
	case "restarts":
		min, ok := strings.CutSuffix(value, "+")
		if n, err := strconv.Atoi(min); ok && err == nil && st.Restarts >= n {
			return value, nil
		}
		return strconv.Itoa(st.Restarts), nil
	case "pid":
		return p.pid(st, value), nil
	case "reload":
		return yesNo(st.NeedReload), nil
	case "fragment":
		return yesNo(st.Fragment != ""), nil
	case "job":
		return yesNo(st.Job), nil
	}
	return "", fmt.Errorf("no field %q", field)
}

func (p *player) pid(st unit.Status, value string) string {
	if value == "yes" || value == "no" || st.MainPID == 0 {
		return yesNo(st.MainPID != 0)
	}
	if st.MainPID == p.marks[st.Name] {
		return "same"
	}
	return "new"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (p *player) mark(args []string) error {
	st, err := p.status(args[0])
	p.marks[args[0]] = st.MainPID
	return err
}

func (p *player) kill(args []string) error {
	st, err := p.status(args[0])
	if err != nil {
		return err
	}
	if st.MainPID == 0 {
		return fmt.Errorf("%s has no main process", args[0])
	}
	return syscall.Kill(st.MainPID, unix.SignalNum(args[1]))
}

func (p *player) installed(args []string) error {
	have, err := p.Manager.Installed(p.ctx)
	if err != nil {
		return err
	}
	if len(have) != len(args) {
		return fmt.Errorf("installed are %q", have)
	}
	for _, name := range args {
		text, err := p.lookup(name)
		if err == nil && have[name] != text {
			return fmt.Errorf("%s is installed as %q, want %q", name, have[name], text)
		}
	}
	return nil
}

func (p *player) show(args []string) error {
	var out bytes.Buffer
	code, err := p.Manager.Show(p.ctx, &out, args[0])
	if err != nil {
		return err
	}
	if strconv.Itoa(code) != args[1] || !strings.Contains(out.String(), args[0]) {
		return fmt.Errorf("code %d and this text:\n%s", code, &out)
	}
	return nil
}

func (p *player) log(args []string) error {
	want := strings.Join(args[1:], " ")
	return Eventually(p.ctx, func() error {
		entries, err := readAll(p.ctx, p.Log, unit.LogQuery{Units: args[:1], Lines: -1})
		if err != nil {
			return err
		}
		for _, e := range entries {
			if strings.Contains(fmt.Sprintf("[%s %d] %s", e.Ident, e.Priority, e.Message), want) {
				return nil
			}
		}
		return fmt.Errorf("no such line among %q", messages(entries))
	})
}

func readAll(ctx context.Context, r unit.LogReader, q unit.LogQuery) ([]unit.LogEntry, error) {
	var out []unit.LogEntry
	err := r.ReadLog(ctx, q, func(e unit.LogEntry) error {
		out = append(out, e)
		return nil
	})
	return out, err
}

func messages(entries []unit.LogEntry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Message)
	}
	return out
}

func (p *player) write(args []string) error {
	return os.WriteFile(p.path(args[0]), []byte(strings.Join(args[1:], " ")+"\n"), 0o644)
}

func (p *player) delete(args []string) error { return os.Remove(p.path(args[0])) }

func (p *player) words(name string) ([]string, error) {
	data, err := os.ReadFile(p.path(name))
	return strings.Fields(string(data)), err
}

func (p *player) hasFile(args []string) error {
	return Eventually(p.ctx, func() error {
		got, err := p.words(args[0])
		if err == nil && len(args) > 1 && !slices.Equal(got, args[1:]) {
			return fmt.Errorf("the file holds %q", got)
		}
		return err
	})
}

func (p *player) noFile(args []string) error {
	got, err := p.words(args[0])
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("there is one, with %q (%v)", got, err)
}

func (p *player) before(args []string) error {
	return Eventually(p.ctx, func() error {
		got, err := p.words(args[0])
		if err != nil {
			return err
		}
		a, b := slices.Index(got, args[1]), slices.Index(got, args[2])
		if a < 0 || b < 0 || a > b {
			return fmt.Errorf("the file holds %q", got)
		}
		return nil
	})
}

func (p *player) pids(name string) ([]int, error) {
	words, err := p.words(name)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, w := range words {
		pid, err := strconv.Atoi(w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, pid)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no PID", name)
	}
	return out, nil
}

func (p *player) alive(args []string) error {
	pids, err := p.pids(args[0])
	for _, pid := range pids {
		if !runs(pid) {
			return fmt.Errorf("process %d has ended", pid)
		}
	}
	return err
}

func (p *player) ended(args []string) error {
	pids, err := p.pids(args[0])
	if err != nil {
		return err
	}
	return Eventually(p.ctx, func() error {
		for _, pid := range pids {
			if runs(pid) {
				return fmt.Errorf("process %d still runs", pid)
			}
		}
		return nil
	})
}

// runs says whether a process exists and is more than a zombie that its parent
// has not reaped yet.
func runs(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func (p *player) signal(args []string) error {
	pids, err := p.pids(args[0])
	for _, pid := range pids {
		if err := syscall.Kill(pid, unix.SignalNum(args[1])); err != nil {
			return fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return err
}

// picture is what a person wants to see of a case that failed: the status of every
// unit and the end of its log.
func (p *player) picture() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var b strings.Builder
	for _, f := range p.sc.files {
		if !isUnit(f.Name) || strings.Contains(f.Name, "/") {
			continue
		}
		st, err := p.Manager.Status(ctx, f.Name)
		fmt.Fprintf(&b, "\n%+v %v", st, err)
		if p.Log == nil {
			continue
		}
		entries, _ := readAll(ctx, p.Log, unit.LogQuery{Units: []string{f.Name}, Lines: 20})
		for _, e := range entries {
			fmt.Fprintf(&b, "\n  %s[%d]: %s", e.Ident, e.PID, e.Message)
		}
	}
	return b.String()
}
