package unitfile

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"flotilla/internal/fault"
)

// FleetSection is the section that says where in the cluster a unit may run.
// systemd ignores sections whose names begin with X-.
const FleetSection = "X-Fleet"

// The options of the [X-Fleet] section.
const (
	MachineID       = "MachineID"       // one machine, by full or 8-digit id
	MachineOf       = "MachineOf"       // names of units to share a machine with
	MachineMetadata = "MachineMetadata" // key=value of the machine
	Conflicts       = "Conflicts"       // globs of unit names to keep away from
	Replaces        = "Replaces"        // globs of unit names to push off the machine
	Global          = "Global"          // boolean: on every machine that fits

	// Those that the original did not have.
	Cores          = "Cores"          // processors that the unit asks for: 0.5, 2
	Memory         = "Memory"         // memory that the unit asks for: 512M
	Strategy       = "Strategy"       // spread or pack
	Spread         = "Spread"         // metadata key over whose values instances are spread
	Prefers        = "Prefers"        // key=value that a machine should better have
	Singleton      = "Singleton"      // boolean: at most one runs, in place of at least one
	MoveAfter      = "MoveAfter"      // time span, or never: when to leave a machine that is away
	MaxUnavailable = "MaxUnavailable" // how many of a group a roll may take down at a time
	HealthyAfter   = "HealthyAfter"   // time span for which a new copy must have been active
	HealthCheck    = "HealthCheck"    // command, URL or tcp://HOST:PORT that must succeed
	HealthyTimeout = "HealthyTimeout" // time span after which a new copy counts as bad
	MaxRunning     = "MaxRunning"     // on how many machines a global unit may run at a time
)

var fleetOptions = []string{
	MachineID, MachineOf, MachineMetadata, Conflicts, Replaces, Global,
	Cores, Memory, Strategy, Spread, Prefers, Singleton, MoveAfter,
	MaxUnavailable, HealthyAfter, HealthCheck, HealthyTimeout, MaxRunning,
}

// legacyOptions are the spellings that fleet had before 0.8 and never dropped.
var legacyOptions = map[string]string{
	"X-ConditionMachineID":       MachineID,
	"X-ConditionMachineBootID":   MachineID,
	"X-ConditionMachineOf":       MachineOf,
	"X-ConditionMachineMetadata": MachineMetadata,
	"X-Conflicts":                Conflicts,
}

// The words of systemd.syntax(7) for booleans; fleet took all but the first list
// for false.
var (
	trueWords  = []string{"true", "yes", "1", "on", "t"}
	falseWords = []string{"false", "no", "0", "off", "f", ""}
)

// IsTrue reports whether a boolean of [X-Fleet] is true, as fleet read it.
func IsTrue(value string) bool {
	return slices.Contains(trueWords, strings.ToLower(value))
}

// Check says everything that is wrong with a unit before it is given to the
// cluster: its name, a text without options, sections that nobody reads for blanks
// in their names, and in [X-Fleet] unknown options and malformed values, which fleet
// ignored so that the constraint vanished. Whether
// the options go together is not its business: see model.ParseRequirements.
func Check(name string, f File) []Problem {
	var problems []Problem
	if err := CheckName(name); err != nil {
		problems = append(problems, Problem{Msg: err.Error()})
	}
	if len(f.Options) == 0 {
		problems = append(problems, Problem{Msg: "no options: a unit file needs a [Section] and an option below it"})
	}
	return append(problems, CheckFleet(name, f)...)
}

// CheckFleet is the part of Check that is about the names of sections and [X-Fleet]:
// what can be said of a drop-in too.
func CheckFleet(name string, f File) []Problem {
	problems := slices.Clone(f.Strays)
	for _, o := range f.Options {
		if o.Section != FleetSection {
			continue
		}
		for _, msg := range checkFleetOption(name, o) {
			problems = append(problems, Problem{Line: o.Line, Col: o.Col, Msg: msg})
		}
	}
	return problems
}

// checkFleetOption says what is wrong with one option of [X-Fleet].
func checkFleetOption(name string, o Option) []string {
	option := canonicalOption(o.Name)
	if option == "" {
		return []string{unknownOption(o.Name)}
	}
	values, err := fleetValues(option, o.Value)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", o.Name, err)}
	}
	var msgs []string
	for _, v := range values {
		if msg := checkFleetValue(name, option, v); msg != "" {
			msgs = append(msgs, fmt.Sprintf("%s: %s", o.Name, msg))
		}
	}
	if len(values) == 0 && option != Global && option != Singleton {
		msgs = append(msgs, o.Name+": the value is empty")
	}
	return msgs
}

func checkFleetValue(name, option, v string) string {
	switch option {
	case MachineMetadata, Prefers:
		if !IsTemplate(name) {
			v = ExpandFleet(v, name) // %i of what is no instance leaves nothing
		}
		if _, _, ok := CutMetadata(v); !ok {
			return fmt.Sprintf("%q is not key=value%s", v, severalHint(v))
		}
	case MachineOf:
		if err := CheckName(ExpandFleet(v, name)); err != nil {
			return fmt.Sprintf("%q is not a unit name: %v", v, err)
		}
	case Conflicts, Replaces:
		if _, err := path.Match(ExpandFleet(v, name), ""); err != nil {
			return fmt.Sprintf("%q is not a pattern: it would match nothing", v)
		}
	case Global, Singleton:
		if w := strings.ToLower(v); !slices.Contains(trueWords, w) && !slices.Contains(falseWords, w) {
			return fmt.Sprintf("%q is not a boolean (true or false)", v)
		}
	default:
		if !IsTemplate(name) {
			v = ExpandFleet(v, name)
		}
		return checkOwnValue(option, v)
	}
	return ""
}

// checkOwnValue is checkFleetValue for the options that the original did not have.
func checkOwnValue(option, v string) string {
	var err error
	switch option {
	case Cores:
		_, err = ParseCores(v)
	case Memory:
		_, err = ParseBytes(v)
	case MoveAfter:
		_, err = ParseMoveAfter(v)
	case HealthyAfter, HealthyTimeout:
		_, err = ParseSpan(v)
	case MaxUnavailable, MaxRunning:
		_, err = ParseCount(v)
	case HealthCheck:
		_, err = ParseHealthCheck(v)
	case Strategy:
		if v != "spread" && v != "pack" {
			return fmt.Sprintf("%q is neither spread nor pack", v)
		}
	case Spread:
		if strings.ContainsAny(v, "= \t/") {
			return fmt.Sprintf("%q is not the name of a metadata key", v)
		}
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func severalHint(v string) string {
	if !strings.ContainsAny(v, " \t") {
		return ""
	}
	return `; quote each of several: "a=1" "b=2"`
}

// CutMetadata takes a value of MachineMetadata apart. ok is false unless it has
// exactly one = with something on either side.
func CutMetadata(v string) (key, value string, ok bool) {
	key, value, found := strings.Cut(v, "=")
	return key, value, found && key != "" && value != "" && !strings.Contains(value, "=")
}

// canonicalOption is the present name of an option of [X-Fleet], "" if there is
// none of that name.
func canonicalOption(name string) string {
	if slices.Contains(fleetOptions, name) {
		return name
	}
	return legacyOptions[name]
}

func unknownOption(name string) string {
	msg := fmt.Sprintf("unknown option %q in [%s]", name, FleetSection)
	if near := fault.Nearest(name, fleetOptions); near != "" {
		return msg + "; did you mean " + near + "?"
	}
	return msg + "; there are: " + strings.Join(fleetOptions, ", ")
}

// Notices says what works but should be written otherwise, or can hardly be
// meant: what Parse read past, legacy spellings, options of which only one value
// counts, the one option that is often written where systemd ignores it, and sockets
// that need a file which the cluster puts on no machine.
func Notices(f File) []Problem {
	notices := slices.Clone(f.Notices)
	ids := 0
	for _, o := range f.Options {
		if o.Section == "Service" && o.Name == "StartLimitIntervalSec" {
			// Its old name, StartLimitInterval, and StartLimitBurst count there.
			notices = append(notices, Problem{o.Line, o.Col, o.Name + " belongs in [Unit]: systemd ignores it in [Service]"})
		}
		if o.Section == "Socket" && o.Name == "Accept" && IsTrue(o.Value) {
			notices = append(notices, Problem{o.Line, o.Col,
				"Accept=yes starts instances of a template, and a template is on no machine: its file has to be there by other means"})
		}
		if o.Section != FleetSection {
			continue
		}
		if now, ok := legacyOptions[o.Name]; ok {
			notices = append(notices, Problem{o.Line, o.Col, fmt.Sprintf("%s is an old spelling of %s", o.Name, now)})
		}
		if canonicalOption(o.Name) == MachineID {
			if ids++; ids > 1 {
				notices = append(notices, Problem{o.Line, o.Col, "MachineID: only the first value counts"})
			}
		}
	}
	sortProblems(notices)
	return notices
}

func sortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}

// FleetAt returns where an option of [X-Fleet] first occurs, as a problem to be
// worded; the file as a whole if it does not.
func (f File) FleetAt(option string) Problem {
	for _, o := range f.Options {
		if o.Section == FleetSection && canonicalOption(o.Name) == option {
			return Problem{Line: o.Line, Col: o.Col}
		}
	}
	return Problem{}
}

// Fleet returns the values of an option of [X-Fleet] in order, legacy spellings
// included, specifiers not expanded. A line that begins and ends with a quote is a
// list of quoted words; other lines are one value, blanks included, except those
// of Conflicts and Replaces, which are split at blanks. Lines that Check would
// refuse give what can be read of them.
func (f File) Fleet(option string) []string {
	var values, bootIDs []string
	for _, o := range f.Options {
		if o.Section != FleetSection || canonicalOption(o.Name) != option {
			continue
		}
		vs, _ := fleetValues(option, o.Value)
		if o.Name == "X-ConditionMachineBootID" {
			bootIDs = append(bootIDs, vs...)
			continue
		}
		values = append(values, vs...)
	}
	if option == MachineID && len(values) == 0 {
		return bootIDs
	}
	return values
}

// fleetValues splits one line of [X-Fleet] into its values. The error says that
// its quotes do not pair; the values are then those that could be read.
func fleetValues(option, line string) ([]string, error) {
	line = Unfold(line)
	values := []string{line}
	var err error
	if len(line) > 1 && strings.HasPrefix(line, `"`) && strings.HasSuffix(line, `"`) {
		values, err = fleetWords(line)
	} else if strings.Contains(line, `"`) {
		err = fmt.Errorf("%s: a quoted list must begin and end with a quote", line)
	}
	if option == Conflicts || option == Replaces {
		values = strings.Fields(strings.Join(values, " "))
	}
	return slices.DeleteFunc(values, func(v string) bool { return v == "" }), err
}

// fleetWords splits a list of quoted words at the blanks between quotes. Unlike
// QuotedWords it knows no escapes, as fleet did not.
func fleetWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quoted := false
	for _, r := range line {
		switch {
		case r == '"':
			quoted = !quoted
		case !quoted && (r == ' ' || r == '\t'):
			words = append(words, word.String())
			word.Reset()
		default:
			word.WriteRune(r)
		}
	}
	words = append(words, word.String())
	if quoted {
		return words, fmt.Errorf("%s: a quote is not closed", line)
	}
	return words, nil
}
