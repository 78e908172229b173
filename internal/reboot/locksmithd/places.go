package locksmithd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"flotilla/internal/confload"
	"flotilla/internal/fault"
	"flotilla/internal/unitfile"
)

// environmentFiles is where the unit has systemd read the daemon's variables from, the
// last of them being what coreos-cloudinit leaves; the later counts. The daemon itself gets
// the values alone, and looks into the files to say where one is written.
var environmentFiles = []string{
	"/usr/share/coreos/update.conf",
	"/etc/default/locksmithd",
	"/etc/coreos/update.conf",
	"/run/systemd/system/locksmithd.service.d/20-cloudinit.env",
}

// environment is what these files say.
type environment struct {
	lines    []fileLine
	problems []confload.Problem // lines that say nothing
}

type fileLine struct {
	where string // FILE:LINE
	unitfile.EnvVariable
}

// readEnvironment reads the files that can be read.
func readEnvironment(files []string, read func(string) ([]byte, error)) (e environment) {
	for _, file := range files {
		text, err := read(file)
		if err != nil {
			continue // systemd has passed over it too
		}
		list, problems := unitfile.EnvFileVariables(string(text))
		for _, v := range list {
			e.lines = append(e.lines, fileLine{fmt.Sprintf("%s:%d", file, v.Line), v})
		}
		for _, err := range problems {
			where := file
			var bad *unitfile.EnvFileError
			if errors.As(err, &bad) {
				where, err = fmt.Sprintf("%s:%d", file, bad.Line), bad.Err
			}
			e.problems = append(e.problems, confload.Problem{Where: where, Msg: err.Error()})
		}
	}
	return e
}

// place is the last line that gives a variable this value, "" if none does: then it comes
// from elsewhere, or the file has changed since the start.
func (e environment) place(variable, value string) string {
	for _, l := range slices.Backward(e.lines) {
		if l.Name != variable {
			continue
		}
		if l.Value == value {
			return l.where
		}
		return ""
	}
	return ""
}

// notices is what the files hold that nobody reads: lines that are no assignments, and
// variables that look like one of the daemon's. The classic file has those of other
// daemons too (GROUP, SERVER), which are theirs to judge.
func (e environment) notices(known []string) []confload.Problem {
	out := slices.Clone(e.problems)
	for _, l := range e.lines {
		ours := strings.HasPrefix(l.Name, prefix) || strings.HasPrefix(l.Name, "REBOOT_")
		near := fault.Nearest(l.Name, known)
		if slices.Contains(known, l.Name) || !ours && near == "" {
			continue
		}
		msg := "unknown variable " + l.Name
		if near != "" {
			msg += ", did you mean " + near + "?"
		}
		out = append(out, confload.Problem{Where: l.where, Msg: msg})
	}
	return out
}

// about is what is wrong with the values of settings.
func about(err error, settings ...string) error { return &wrong{err, settings} }

type wrong struct {
	error
	settings []string
}

func (w *wrong) Unwrap() error { return w.error }

// apart takes joined errors apart.
func apart(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, one := range joined.Unwrap() {
		out = append(out, apart(one)...)
	}
	return out
}

// placed puts in front of each error where its settings have been set, as far as they have.
func placed(err error, where func(setting string) string) error {
	var out []error
	for _, one := range apart(err) {
		var w *wrong
		var places []string
		if errors.As(one, &w) {
			for _, name := range w.settings {
				if at := where(name); at != "" {
					places = append(places, at)
				}
			}
		}
		if len(places) > 0 {
			one = fmt.Errorf("%s: %w", strings.Join(places, ", "), one)
		}
		out = append(out, one)
	}
	return errors.Join(out...)
}
