package fleetctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/cli"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// The levels of a finding.
const (
	levelOK   = "ok"
	levelWarn = "warn" // deserves a look
	levelBad  = "bad"
)

// finding is one line of doctor.
type finding struct {
	Check string   `json:"check"`
	Level string   `json:"level"`          // ok, warn or bad
	Says  string   `json:"says"`           // what was found
	Each  []string `json:"each,omitempty"` // one by one: units, machines
	Try   string   `json:"try,omitempty"`  // what to do about it
}

// slowRoll is how long a roll may take before it is looked at.
const slowRoll = 10 * time.Minute

// maxEach is how many units or machines a finding names on the screen.
const maxEach = 5

func (s *session) doctor() *cobra.Command {
	f := &format{}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "look for what is wrong with the cluster, and say what to do about it",
		Long: "Look for what is wrong with the cluster, and say what to do about it. The exit code is 1 if\n" +
			"something is bad; what only deserves a look (warn) leaves it 0.\n\n" +
			"  fleetctl doctor\n" +
			"  fleetctl doctor -o json | jq '.[] | select(.level != \"ok\")'",
		Args: noArgs,
		RunE: s.reporting(func(ctx context.Context, _ []string) error { return s.doDoctor(ctx, f) }),
	}
	f.flags(cmd, "text|json")
	return cmd
}

func (s *session) doDoctor(ctx context.Context, f *format) error {
	asJSON, err := f.asJSON("text")
	if err != nil {
		return err
	}
	c, err := s.api()
	if err != nil {
		return err
	}
	findings := examine(ctx, c, time.Now())
	if asJSON {
		err = cli.JSON(s.env.Stdout, findings)
	} else {
		s.sayFindings(findings)
	}
	if slices.ContainsFunc(findings, func(f finding) bool { return f.Level == levelBad }) {
		return errors.Join(err, fault.Code(fault.ExitFailed, fault.ErrSilent))
	}
	return err
}

func (s *session) sayFindings(findings []finding) {
	colour := s.colours()
	shades := map[string]string{levelOK: green, levelWarn: yellow, levelBad: red}
	for _, f := range findings {
		s.say("%s  %-9s %s", colour(shades[f.Level], fmt.Sprintf("%-4s", f.Level)), f.Check, f.Says)
		for _, e := range f.Each[:min(len(f.Each), maxEach)] {
			s.say("                %s", e)
		}
		if more := len(f.Each) - maxEach; more > 0 {
			s.say("                ... and %d more (-o json has all)", more)
		}
		if f.Try != "" {
			s.say("                try: %s", f.Try)
		}
	}
}

// evidence is what doctor has been told.
type evidence struct {
	now      time.Time
	machines []api.Machine
	units    []api.Unit
	states   []api.UnitState
	rolls    []api.Roll
	engine   *api.Engine // nil: the server cannot say
	store    *api.Store  // nil: the server cannot say
}

// examine asks the server for everything that there is to judge. When it does not
// answer, that is the finding.
func examine(ctx context.Context, c *fleet.Client, now time.Time) []finding {
	e := evidence{now: now}
	start := time.Now()
	var err error
	if e.machines, err = c.MachinesUsed(ctx); err != nil {
		return withStore(ctx, c, unreachable(c, err))
	}
	took := time.Since(start)
	e.units, err = c.Units(ctx)
	if err == nil {
		e.states, err = c.States(ctx, fleet.StateFilter{})
	}
	if err == nil {
		if e.rolls, err = c.Rolls(ctx); isClassic(err) {
			err = nil
		}
	}
	if err == nil {
		var engine api.Engine
		if engine, err = c.Engine(ctx); err == nil {
			e.engine = &engine
		} else if isClassic(err) {
			err = nil
		}
	}
	if err != nil {
		return withStore(ctx, c, unreachable(c, err))
	}
	e.store = storeOf(ctx, c)
	findings := []finding{{Check: "api", Level: levelOK, Says: fmt.Sprintf("%s answers in %s, and its store answers", c.Endpoint(), took.Round(time.Millisecond))}}
	return append(findings, judgeEvidence(e)...)
}

// storeOf is what the server says of the store's members; nil: nothing.
func storeOf(ctx context.Context, c *fleet.Client) *api.Store {
	st, err := c.Store(ctx)
	switch {
	case isClassic(err):
		return nil
	case err != nil:
		return &api.Store{Why: err.Error()}
	}
	return &st
}

// withStore adds to a server that answers and cannot do its work what is wrong with its
// store, if it knows: what it has to say of that needs no leader.
func withStore(ctx context.Context, c *fleet.Client, f finding) []finding {
	findings := []finding{f}
	if f.Check == "store" {
		if st := storeOf(ctx, c); st != nil && len(st.Members) > 0 {
			findings = append(findings, judgeStore(evidence{store: st}))
		}
	}
	return findings
}

func unreachable(c *fleet.Client, err error) finding {
	f := finding{Check: "api", Level: levelBad, Says: err.Error(), Try: strings.Join(append(fault.Hints(err), apiHints(err)...), "; ")}
	var e *fleet.Error
	if errors.As(err, &e) && e.Code != 0 {
		f.Check, f.Says = "store", fmt.Sprintf("%s answers, and cannot do its work: %v", c.Endpoint(), err)
	}
	return f
}

// judgeEvidence says what is wrong. It depends on nothing but the evidence.
func judgeEvidence(e evidence) []finding {
	findings := []finding{}
	for _, judge := range []func(evidence) finding{
		judgeStore, judgeEngine, judgeMachines, judgeCordons, judgeVersions, judgeFailed, judgeUnplaced, judgeRolls, judgeReverted,
	} {
		if f := judge(e); f.Says != "" {
			findings = append(findings, f)
		}
	}
	return findings
}

// judgeStore looks for members of the store that do not answer, and for alarms.
func judgeStore(e evidence) finding {
	f := finding{Check: "members", Level: levelOK}
	switch {
	case e.store == nil:
		return finding{}
	case len(e.store.Members) == 0:
		f.Says = "the store's members could not be asked: " + model.OneLine(first(e.store.Why, "it tells of none"))
		return f
	}
	voters, reached, well, leader, alarmed := 0, 0, 0, "", false
	for _, m := range e.store.Members {
		if !m.Learner {
			voters++
		}
		if m.Answers && !m.Learner {
			reached++
		}
		if m.Healthy && !m.Learner {
			well++
		}
		if m.Leader {
			leader = m.Name
		}
		alarmed = alarmed || len(m.Alarms) > 0
		if ill := illness(m); ill != "" {
			f.Level = levelBad
			f.Each = append(f.Each, ill)
		}
	}
	f.Says = fmt.Sprintf("%d of %s of the store %s", reached, count(voters, "member"), map[bool]string{true: "answers", false: "answer"}[reached == 1])
	switch {
	case alarmed:
		f.Says = "the store has raised an alarm, and may take no writes"
		f.Try = "NOSPACE: make room on its disk or raise its quota, then 'ETCDCTL_API=3 etcdctl defrag' and 'alarm disarm'; CORRUPT: 'etcdctl cluster-health', and restore that member"
	case well <= voters/2:
		f.Says = "no leader: " + f.Says
		f.Try = "bring them back: 'systemctl status etcd' there; when most of them are gone for good: 'etcd help recover'"
	case len(f.Each) > 0:
		f.Try = "'etcdctl cluster-health', and 'systemctl status etcd' there; one that is gone for good: 'etcdctl member remove'"
	case leader != "":
		f.Says += ", " + leader + " leads"
	}
	return f
}

// illness is what is wrong with a member of the store; "" nothing.
func illness(m api.StoreMember) string {
	name := m.Name
	if m.URL != "" {
		name += " (" + m.URL + ")"
	}
	switch why := model.OneLine(m.Why); {
	case len(m.Alarms) > 0:
		return name + ": alarm " + strings.Join(m.Alarms, ", ")
	case !m.Answers:
		return name + " does not answer: " + why
	case !m.Healthy && !isAlarm(m.Why):
		return name + " answers and is not healthy: " + why
	}
	return ""
}

// isAlarm reports whether a member is not healthy because of an alarm, which another one
// may have raised.
func isAlarm(why string) bool { return strings.HasPrefix(strings.ToLower(why), "alarm") }

func judgeEngine(e evidence) finding {
	f := finding{Check: "engine", Level: levelOK}
	switch {
	case e.engine == nil:
		f.Level, f.Says = levelWarn, "this server cannot say whether an engine leads"
	case e.engine.Leader == "":
		f.Level, f.Says = levelBad, "no engine leads: units that run go on, and nothing is placed or moved"
		f.Try = "'journalctl -u fleet' on the machines; some fleetd must be running without disable_engine"
	case e.engine.Held != "":
		f.Level, f.Says = levelWarn, "moves are held: "+model.OneLine(e.engine.Held)
		f.Try = "bring the machines back; those that will not return: 'fleetctl forget MACHINE' (or raise hold_fraction, a setting of fleetd); 'fleetctl events' says since when"
	default:
		f.Says = "the one of machine " + shortID(e.engine.Leader, false) + " leads"
	}
	return f
}

// judgeMachines looks for machines that hold units and are not present.
func judgeMachines(e evidence) finding {
	present := map[string]bool{}
	for _, m := range e.machines {
		present[m.ID] = true
	}
	away := map[string]int{}
	for _, u := range e.units {
		if u.MachineID != "" && !present[u.MachineID] {
			away[u.MachineID]++
		}
	}
	f := finding{Check: "machines", Level: levelOK, Says: count(len(e.machines), "machine") + " present"}
	if len(e.machines) == 0 {
		f.Level, f.Says, f.Try = levelBad, "no machine is present", "start fleetd on some: 'systemctl start fleet'"
		return f
	}
	for _, id := range sortedKeys(away) {
		f.Each = append(f.Each, fmt.Sprintf("%s is away, and has %s", shortID(id, false), count(away[id], "unit")))
	}
	if len(away) > 0 {
		f.Level, f.Says = levelBad, f.Says+", "+fmt.Sprint(len(away))+" silent"
		f.Try = "look at its power, network and 'systemctl status fleet'; its units move if it stays away"
		if e.engine != nil && e.engine.Held != "" {
			f.Try = "look at its power, network and 'systemctl status fleet'; its units stay there while moves are held; if it will not return: 'fleetctl forget MACHINE'"
		}
	}
	return f
}

func judgeCordons(e evidence) finding {
	f := finding{Check: "cordons", Level: levelWarn, Try: "'fleetctl uncordon MACHINE' when the work is done"}
	for _, m := range e.machines {
		if c := m.Cordon; c != nil {
			line := shortID(m.ID, false) + " is " + machineState(m) + " by " + orDash(c.By) + " since " + timeCell(c.At)
			if c.Why != "" {
				line += ": " + model.OneLine(c.Why)
			}
			f.Each = append(f.Each, line)
		}
	}
	if len(f.Each) > 0 {
		f.Says = count(len(f.Each), "machine") + " to be spared"
	}
	return f
}

func judgeVersions(e evidence) finding {
	by := map[string][]string{}
	for _, m := range e.machines {
		if m.Version != "" {
			by[m.Version] = append(by[m.Version], shortID(m.ID, false))
		}
	}
	if len(by) < 2 {
		return finding{}
	}
	f := finding{Check: "versions", Level: levelWarn, Says: fmt.Sprintf("%d versions of fleetd", len(by)), Try: "finish the upgrade"}
	for _, v := range sortedKeys(by) {
		f.Each = append(f.Each, v+": "+strings.Join(by[v], " "))
	}
	return f
}

// judgeFailed looks for units that are to run and failed, or are not healthy.
func judgeFailed(e evidence) finding {
	wanted := map[string]string{}
	for _, u := range e.units {
		wanted[u.Name] = u.DesiredState
	}
	f := finding{Check: "units", Level: levelOK, Says: count(len(e.units), "unit") + ", none failed"}
	failedUnits := map[string]bool{}
	for _, st := range e.states {
		again := st.SystemdSubState == "auto-restart"
		if st.SystemdActiveState != "failed" && !again && !cannotLoad(st) || wanted[st.Name] == "" {
			continue
		}
		line := st.Name + " on " + shortID(st.MachineID, false) + ": " + activity(st)
		if cannotLoad(st) {
			line = st.Name + " on " + shortID(st.MachineID, false) + ": " + st.SystemdLoadState
		}
		if st.Message != "" {
			line += ": " + model.OneLine(st.Message)
		}
		f.Each = append(f.Each, line)
		failedUnits[st.Name] = true
	}
	if len(f.Each) > 0 {
		f.Level, f.Says = levelBad, fmt.Sprintf("%d of %s failed", len(failedUnits), count(len(e.units), "unit"))
		f.Try = "'fleetctl logs UNIT' says why; 'fleetctl start UNIT' tries again"
	}
	return f
}

// judgeUnplaced looks for units that are to be somewhere and are nowhere.
func judgeUnplaced(e evidence) finding {
	f := finding{Check: "placing", Level: levelOK, Says: "every unit that is to be on a machine is on one"}
	undecided := 0
	for _, u := range e.units {
		if u.DesiredState == inactive || u.CurrentState == "" || u.MachineID != "" || unitfile.IsTemplate(u.Name) {
			continue
		}
		if u.Reason == "" {
			undecided++
		}
		f.Each = append(f.Each, u.Name+": "+first(model.OneLine(u.Reason), "nobody has decided yet"))
	}
	if len(f.Each) > 0 {
		f.Level, f.Says = levelBad, count(len(f.Each), "unit")+" on no machine"
		f.Try = "'fleetctl why UNIT' says what each machine lacks"
	}
	if undecided > 0 && undecided == len(f.Each) {
		f.Try = "look again in a few seconds; if it stays so no engine decides: 'journalctl -u fleet'"
	}
	return f
}

func judgeRolls(e evidence) finding {
	f := finding{Check: "rolls", Level: levelOK, Says: "no change is under way"}
	for _, r := range e.rolls {
		switch {
		case r.Final():
			continue
		case r.State == "rolling" && e.now.Sub(r.Started) < slowRoll:
			f.Says = "changes are under way"
			continue
		}
		line := fmt.Sprintf("%s is %s, %d of %d changed", r.Group, r.State, r.Changed, r.Total)
		if r.Why != "" {
			line += ": " + model.OneLine(r.Why)
		}
		f.Each = append(f.Each, line)
	}
	if len(f.Each) > 0 {
		f.Level, f.Says = levelWarn, count(len(f.Each), "change")+" stuck"
		f.Try = "'fleetctl roll resume|revert GROUP'; 'fleetctl rolls' has them all"
	}
	return f
}

// judgeReverted looks for units whose newest text was taken back because a copy with it
// was bad: they run, with the text before.
func judgeReverted(e evidence) finding {
	there := map[string]bool{}
	for _, u := range e.units {
		there[model.GroupOf(u.Name)] = true
	}
	f := finding{Check: "texts", Level: levelWarn}
	group := ""
	for _, r := range e.rolls {
		if r.State != "reverted" || r.Failed == "" || !there[r.Group] {
			continue
		}
		group = r.Group
		f.Each = append(f.Each, fmt.Sprintf("%s: rolled back at %s: %s", r.Group, timeCell(r.Ended), model.OneLine(r.Why)))
	}
	switch len(f.Each) {
	case 0:
		return finding{}
	case 1:
		f.Says = "the newest text of 1 unit was rolled back, and the one before counts"
	default:
		f.Says, group = fmt.Sprintf("the newest texts of %d units were rolled back, and those before count", len(f.Each)), "UNIT"
	}
	f.Try = fmt.Sprintf("'fleetctl history %s' has the text that failed, with --diff N what was new in it; mend it and 'fleetctl apply' it", group)
	return f
}
