// Package confload reads a daemon's settings from a classic configuration file,
// the environment and flags: one name in each, flags before environment before
// file, and every problem told at once with its place.
//
//	file         agent_ttl = 30s
//	environment  FLEET_AGENT_TTL=30s
//	flag         --agent_ttl 30s (also --agent-ttl)
package confload

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"flotilla/internal/fault"
)

// Set is the settings of a program. The zero value has none.
type Set struct {
	// Place names where a variable's value comes from, "FILE:LINE": what systemd reads from
	// a file arrives in the environment, and a person looks for it in the file. "" and a nil
	// Place name the variable itself.
	Place func(variable, value string) string

	settings []*setting
	problems []Problem
	notices  []Problem
}

type setting struct {
	name  string
	usage string
	set   func(string) error
	show  func() string
	flag  *rawFlag // nil: Flags was not called
	where string   // of the value that counts; "" is the default
}

// Problem is one thing wrong with the configuration.
type Problem struct {
	Where string // "FILE:LINE", the variable's name, or the flag's
	Msg   string
}

// String is "WHERE: MSG".
func (p Problem) String() string { return p.Where + ": " + p.Msg }

// Error is all problems of a configuration, one a line.
type Error struct{ Problems []Problem }

// Error lists the problems.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Func adds a setting of any kind: set takes its text, show gives it back for
// people to read. Names are lower case with underscores.
func (s *Set) Func(name, usage string, set func(string) error, show func() string) {
	s.settings = append(s.settings, &setting{name: name, usage: usage, set: set, show: show})
}

// String adds a text.
func (s *Set) String(p *string, name, usage string) {
	s.Func(name, usage, func(v string) error { *p = v; return nil }, func() string { return *p })
}

// Bool adds a yes or no: true, false, 1, 0 and the like, as strconv.ParseBool.
func (s *Set) Bool(p *bool, name, usage string) {
	s.Func(name, usage, func(v string) error {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", v)
		}
		*p = b
		return nil
	}, func() string { return strconv.FormatBool(*p) })
}

// Int adds a number between low and high.
func (s *Set) Int(p *int, low, high int, name, usage string) {
	s.Func(name, usage, func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < low || n > high {
			return fmt.Errorf("%q is not a number from %d to %d", v, low, high)
		}
		*p = n
		return nil
	}, func() string { return strconv.Itoa(*p) })
}

// Duration adds a time of at least low: a number with a unit ("30s", "1m30s"), or
// a bare number of seconds ("1.0"), as the classic files have it.
func (s *Set) Duration(p *time.Duration, low time.Duration, name, usage string) {
	s.Func(name, usage, func(v string) error {
		d, err := parseDuration(v)
		if err != nil {
			return err
		}
		if d < low {
			return fmt.Errorf("%v is too short: at least %v", d, low)
		}
		*p = d
		return nil
	}, func() string { return p.String() })
}

func parseDuration(v string) (time.Duration, error) {
	if sec, err := strconv.ParseFloat(v, 64); err == nil && sec >= 0 && sec < 1e9 {
		return time.Duration(sec * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		return 0, fmt.Errorf("%q is neither a time such as 30s nor a number of seconds", v)
	}
	return d, nil
}

// List adds a list: a,b or ["a","b"].
func (s *Set) List(p *[]string, name, usage string) {
	s.Func(name, usage, func(v string) error {
		*p = parseList(v)
		return nil
	}, func() string { return strings.Join(*p, ",") })
}

func parseList(v string) []string {
	if inner, ok := strings.CutPrefix(v, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			v = inner
		}
	}
	var out []string
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.Trim(strings.TrimSpace(part), `"'`); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// Pairs adds a map: k=v,k2=v2, blanks trimmed, each pair split at its first =; of
// equal keys the last counts.
func (s *Set) Pairs(p *map[string]string, name, usage string) {
	s.Func(name, usage, func(v string) error {
		m := map[string]string{}
		for part := range strings.SplitSeq(v, ",") {
			if strings.TrimSpace(part) == "" {
				continue
			}
			key, value, ok := strings.Cut(part, "=")
			key, value = strings.TrimSpace(key), strings.TrimSpace(value)
			if !ok || key == "" {
				return fmt.Errorf("%q is not key=value", strings.TrimSpace(part))
			}
			m[key] = value
		}
		*p = m
		return nil
	}, func() string { return joinPairs(*p) })
}

// Ignored adds a setting of old that has no effect any more; giving it is told in
// Notices with the reason.
func (s *Set) Ignored(name, why string) {
	s.settings = append(s.settings, &setting{name: name, usage: "no effect: " + why})
}

// rawFlag keeps what the command line said until it is its turn.
type rawFlag struct {
	text string
	set  bool
	bare bool // the flag may stand alone, meaning true
	def  func() string
}

func (f *rawFlag) Set(v string) error { f.text, f.set = v, true; return nil }
func (f *rawFlag) Type() string {
	if f.bare {
		return "bool"
	}
	return "value"
}

func (f *rawFlag) String() string {
	if f.set || f.def == nil {
		return f.text
	}
	return f.def()
}

// Flags adds a flag for each setting, with underscores and, as well, with dashes.
func (s *Set) Flags(fs *pflag.FlagSet) {
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "-", "_"))
	})
	for _, one := range s.settings {
		one.flag = &rawFlag{def: one.show}
		if one.show != nil && (one.show() == "true" || one.show() == "false") {
			one.flag.bare = true
		}
		f := fs.VarPF(one.flag, one.name, "", one.usage)
		if one.flag.bare {
			f.NoOptDefVal = "true"
		}
	}
}

// File takes over a configuration file's settings. Call it before Env, and Env
// before FromFlags: the later wins.
func (s *Set) File(name string, text []byte) {
	assignments, problems := parseINI(string(text))
	for _, p := range problems {
		s.problems = append(s.problems, Problem{Where: name + ":" + p.Where, Msg: p.Msg})
	}
	for _, a := range assignments {
		where := fmt.Sprintf("%s:%d", name, a.Line)
		one := s.find(a.Name)
		if one == nil {
			s.unknown(where, a.Name)
			continue
		}
		s.apply(one, where, a.Value)
	}
}

// Env takes over the variables PREFIX + upper-case name that are set, also when
// they are empty.
func (s *Set) Env(prefix string, lookup func(string) (string, bool)) {
	if lookup == nil {
		return
	}
	for _, one := range s.settings {
		name := prefix + strings.ToUpper(one.name)
		if v, ok := lookup(name); ok {
			s.apply(one, s.placeOf(name, v), v)
		}
	}
}

func (s *Set) placeOf(variable, value string) string {
	if s.Place != nil {
		if place := s.Place(variable, value); place != "" {
			return place
		}
	}
	return variable
}

// Where is the place of a setting's value: as in Problem, "" where it is the default.
func (s *Set) Where(name string) string {
	if one := s.find(name); one != nil {
		return one.where
	}
	return ""
}

// FromFlags takes over the flags that were given.
func (s *Set) FromFlags() {
	for _, one := range s.settings {
		if one.flag != nil && one.flag.set {
			s.apply(one, "--"+one.name, one.flag.text)
		}
	}
}

func (s *Set) find(name string) *setting {
	for _, one := range s.settings {
		if one.name == name {
			return one
		}
	}
	return nil
}

// Names are those of all settings.
func (s *Set) Names() []string {
	out := make([]string, len(s.settings))
	for i, one := range s.settings {
		out[i] = one.name
	}
	return out
}

// unknown notes a name that is not ours: ignored, as the classic daemons did, but
// not without a word.
func (s *Set) unknown(where, name string) {
	msg := fmt.Sprintf("unknown key %q, ignored", name)
	if near := fault.Nearest(name, s.Names()); near != "" {
		msg += fmt.Sprintf(" (did you mean %q?)", near)
	}
	s.notices = append(s.notices, Problem{Where: where, Msg: msg})
}

func (s *Set) apply(one *setting, where, value string) {
	if one.set == nil {
		s.notices = append(s.notices, Problem{Where: where, Msg: one.name + " has " + one.usage})
		return
	}
	one.where = where
	if err := one.set(value); err != nil {
		s.problems = append(s.problems, Problem{Where: where, Msg: fmt.Sprintf("%s: %v", one.name, err)})
	}
}

// Err is every problem found so far; nil if there is none.
func (s *Set) Err() error {
	if len(s.problems) == 0 {
		return nil
	}
	return &Error{Problems: s.problems}
}

// Notices is what was ignored, and where.
func (s *Set) Notices() []Problem { return s.notices }

// Effective writes what is in force, as a configuration file.
func (s *Set) Effective(w io.Writer) error {
	for _, one := range s.settings {
		if one.show == nil {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s=%s\n", one.name, quote(one.show())); err != nil {
			return err
		}
	}
	return nil
}

// SameFlags makes the flags of another set, of the same settings, this one's: to
// read the configuration again in a process that has long parsed its arguments.
func (s *Set) SameFlags(other *Set) {
	for _, one := range s.settings {
		if same := other.find(one.name); same != nil {
			one.flag = same.flag
		}
	}
}
