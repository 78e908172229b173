package etcdctl

import (
	"errors"
	"flag"
	"fmt"
	"strings"

	"flotilla/internal/fault"
)

// parse sets the flags in args and returns the rest. Known flags may stand
// anywhere before "--". Anything else with a dash is a flag before the first
// operand and an operand behind it, so that "set /k -5" stores "-5"; only what
// exceeds the operands that the command reads is taken for a mistyped flag. From the
// operand numbered foreign on, if that is not 0, all is another program's.
func parse(fs *flag.FlagSet, args []string, atMost, foreign int) (operands []string, err error) {
	var ours []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		if foreign > 0 && len(operands) >= foreign {
			operands = append(operands, args[i:]...)
			break
		}
		if a == "--" {
			operands = append(operands, args[i+1:]...)
			break
		}
		name, hasValue, isFlag := asFlag(a)
		if !isFlag {
			operands = append(operands, a)
			continue
		}
		f := fs.Lookup(name)
		switch {
		case f == nil && name != "h" && name != "help" && len(operands) > 0:
			if atMost > 0 && len(operands) >= atMost {
				return nil, fmt.Errorf("flag provided but not defined: -%s", name)
			}
			operands = append(operands, a)
			continue
		case f != nil && !hasValue && !isBool(f) && i+1 < len(args):
			ours = append(ours, a)
			i++
			a = args[i]
		}
		ours = append(ours, a)
	}
	return operands, fs.Parse(ours)
}

// asFlag splits -name, --name and their forms with =value.
func asFlag(a string) (name string, hasValue, ok bool) {
	if len(a) < 2 || a[0] != '-' {
		return "", false, false
	}
	name = strings.TrimPrefix(a[1:], "-")
	name, _, hasValue = strings.Cut(name, "=")
	return name, hasValue, name != ""
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// nearestFlag adds the flag that an unknown one may have been meant to be.
func nearestFlag(err error, fs *flag.FlagSet) error {
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		return err
	}
	var names []string
	fs.VisitAll(func(f *flag.Flag) {
		if len(f.Name) > 1 {
			names = append(names, f.Name)
		}
	})
	if near := fault.Nearest(name, names); near != "" {
		return fault.Hint(errors.New(err.Error()), "did you mean --%s?", near)
	}
	return err
}
