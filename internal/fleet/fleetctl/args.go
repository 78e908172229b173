package fleetctl

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flotilla/internal/fault"
	"flotilla/internal/unitfile"
)

// resolveCommand writes out a shortened command (list-m) and refuses one that is
// unknown or ambiguous. args have double dashes already.
func resolveCommand(root *cobra.Command, args []string) ([]string, error) {
	at := commandIndex(root.PersistentFlags(), args)
	if at < 0 || strings.HasPrefix(args[at], "__complete") {
		return args, nil
	}
	var names, fits []string
	for _, c := range root.Commands() {
		if c.Name() == args[at] {
			return args, nil
		}
		names = append(names, c.Name())
		if strings.HasPrefix(c.Name(), args[at]) && args[at] != "" {
			fits = append(fits, c.Name())
		}
	}
	switch len(fits) {
	case 0:
		return nil, unknownCommand(args[at], names)
	case 1:
		out := slices.Clone(args)
		out[at] = fits[0]
		return out, nil
	}
	return nil, fault.Hint(fault.Usage("ambiguous command %q", args[at]), "it begins %s", strings.Join(fits, ", "))
}

func unknownCommand(name string, names []string) error {
	err := fault.Usage("unknown command %q", name)
	if near := fault.Nearest(name, names); near != "" {
		return fault.Hint(err, "did you mean %q?", near)
	}
	return fault.Hint(err, "there are: %s", strings.Join(names, " "))
}

// commandIndex is the index of the first argument that is neither a global flag
// nor a global flag's value; -1 if there is none.
func commandIndex(global *pflag.FlagSet, args []string) int {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch name, isFlag := strings.CutPrefix(a, "--"); {
		case a == "--":
			return -1
		case isFlag:
			f := global.Lookup(name) // finds nothing for name=value
			if f != nil && f.NoOptDefVal == "" {
				i++
			}
		case strings.HasPrefix(a, "-") && a != "-":
		default:
			return i
		}
	}
	return -1
}

// maxExpansion is how many names braces may expand to: above what a cluster is
// made for, below what would fill the memory.
const maxExpansion = 10000

// expandBraces expands {a,b} and {1..3} in every argument, as a shell would have
// done that knows them.
func expandBraces(args []string) ([]string, error) {
	var out []string
	for _, a := range args {
		names, ok := braces(a, maxExpansion)
		if !ok {
			return nil, fault.Usage("%s expands to more than %d names", a, maxExpansion)
		}
		out = append(out, names...)
	}
	return out, nil
}

// braces expands s from left to right. Braces without a comma or a range in them
// stay as they are, and so do braces that are not closed. ok is false if there
// would be more than limit names.
func braces(s string, limit int) (names []string, ok bool) {
	for open := 0; open < len(s); open++ {
		if s[open] != '{' {
			continue
		}
		end, parts := braceParts(s[open:])
		if end == 0 {
			continue
		}
		if len(parts) == 1 {
			if parts, ok = rangeParts(parts[0], limit); !ok {
				return nil, false
			} else if parts == nil {
				continue
			}
		}
		for _, p := range parts {
			some, ok := braces(s[:open]+p+s[open+end:], limit-len(names))
			if !ok {
				return nil, false
			}
			names = append(names, some...)
		}
		return names, true
	}
	return []string{s}, limit >= 1
}

// braceParts splits the group that s begins with at its own commas. end is the
// length of the group, 0 if it is not closed.
func braceParts(s string) (end int, parts []string) {
	depth, from := 0, 1
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1, append(parts, s[from:i])
			}
		case ',':
			if depth == 1 {
				parts = append(parts, s[from:i])
				from = i + 1
			}
		}
	}
	return 0, nil
}

// rangeParts expands the inside of {1..3}, {03..1}, {a..e} or {1..9..2}; nil if it
// is no range. ok is false if there would be more than limit parts.
func rangeParts(inside string, limit int) (parts []string, ok bool) {
	ends := strings.Split(inside, "..")
	if len(ends) != 2 && len(ends) != 3 {
		return nil, true
	}
	from, to, show, isRange := rangeEnds(ends[0], ends[1])
	step := 1
	if len(ends) == 3 {
		n, err := strconv.Atoi(ends[2])
		if err != nil || n == 0 {
			return nil, true
		}
		step = max(n, -n)
	}
	if !isRange {
		return nil, true
	}
	count := max(to-from, from-to)/step + 1
	if count > limit {
		return nil, false
	}
	if to < from {
		step = -step
	}
	for i := range count {
		parts = append(parts, show(from+i*step))
	}
	return parts, true
}

// rangeEnds reads two numbers or two letters. A number with leading zeros makes
// all of them as wide as the widest end.
func rangeEnds(a, b string) (from, to int, show func(int) string, ok bool) {
	if isLetter(a) && isLetter(b) {
		return int(a[0]), int(b[0]), func(n int) string { return string(rune(n)) }, true
	}
	from, errA := strconv.Atoi(a)
	to, errB := strconv.Atoi(b)
	const big = 1 << 40 // keeps the arithmetic on the ends from overflowing
	if errA != nil || errB != nil || max(from, -from) > big || max(to, -to) > big {
		return 0, 0, nil, false
	}
	width := 0
	if padded(a) || padded(b) {
		width = max(len(a), len(b))
	}
	return from, to, func(n int) string { return fmt.Sprintf("%0*d", width, n) }, true
}

func isLetter(s string) bool {
	return len(s) == 1 && ('a' <= s[0] && s[0] <= 'z' || 'A' <= s[0] && s[0] <= 'Z')
}

func padded(s string) bool {
	s = strings.TrimLeft(s, "+-")
	return len(s) > 1 && s[0] == '0'
}

// unitArg is the unit that an argument names; one that cannot be a unit's name is a
// usage error.
func unitArg(arg string) (string, error) {
	if arg == "" {
		return "", fault.Usage("a unit's name is empty")
	}
	name := unitfile.Complete(arg)
	if err := unitfile.CheckName(name); err != nil {
		return "", fault.Code(fault.ExitUsage, fmt.Errorf("%s: %w", name, err))
	}
	return name, nil
}

func isGlob(s string) bool { return strings.ContainsAny(s, "*?[") }

// globName is the pattern of unit names that an argument with * ? or [ means: the
// suffix may be left out of it as it may be left out of a name, unless the pattern
// ends in a * that covers it.
func globName(arg string) string {
	if strings.HasSuffix(arg, "*") {
		return arg
	}
	return unitfile.Complete(arg)
}

// selection is the units that arguments choose among those that are known.
type selection struct {
	names   []string // in order of the arguments, a pattern's in order of name, each once
	byGlob  map[string]bool
	unknown []string // named plainly and not known
}

// choose applies names and patterns to the known names, which are sorted. A
// malformed pattern is a usage error; one that fits nothing is not.
func choose(args, known []string) (selection, error) {
	args, err := expandBraces(args)
	if err != nil {
		return selection{}, err
	}
	sel := selection{byGlob: map[string]bool{}}
	seen := map[string]bool{}
	add := func(list *[]string, name string) {
		if !seen[name] {
			seen[name] = true
			*list = append(*list, name)
		}
	}
	for _, a := range args {
		if !isGlob(a) {
			name := unitfile.Complete(a)
			if _, found := slices.BinarySearch(known, name); found {
				delete(sel.byGlob, name)
				add(&sel.names, name)
			} else {
				add(&sel.unknown, name)
			}
			continue
		}
		for _, name := range known {
			fits, err := path.Match(globName(a), name)
			if err != nil {
				return selection{}, fault.Usage("pattern %q: %v", a, err)
			}
			if fits && !seen[name] {
				sel.byGlob[name] = true
				add(&sel.names, name)
			}
		}
	}
	return sel, nil
}

// matcher reports whether a unit is among those that a listing's arguments choose;
// no arguments choose all.
func matcher(args []string) (func(name string) bool, error) {
	args, err := expandBraces(args)
	if err != nil {
		return nil, err
	}
	var patterns []string
	for _, a := range args {
		if !isGlob(a) {
			patterns = append(patterns, strings.ReplaceAll(unitfile.Complete(a), `\`, `\\`))
			continue
		}
		if _, err := path.Match(globName(a), ""); err != nil {
			return nil, fault.Usage("pattern %q: %v", a, err)
		}
		patterns = append(patterns, globName(a))
	}
	return func(name string) bool {
		return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool {
			fits, _ := path.Match(p, name)
			return fits
		})
	}, nil
}
