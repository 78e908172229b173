package fault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestPrintHintsOutermostFirst(t *testing.T) {
	err := Hint(errors.New("refused"), "start the store")
	err = Hint(fmt.Errorf("dial: %w", err), "see %s", "journalctl")
	var b strings.Builder
	Print(&b, "fleetctl", err)
	want := "fleetctl: dial: refused\nhint: see journalctl\nhint: start the store\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestHintsOfAllProblemsOnce(t *testing.T) {
	err := Hint(errors.Join(
		Hint(errors.New("unknown key nmae"), "did you mean name?"),
		errors.New("broken"),
		fmt.Errorf("zone: %w", Hint(errors.New("no such zone"), "see timedatectl list-timezones")),
		Hint(errors.New("unknown key nme"), "did you mean name?"),
	), "see --help")
	want := []string{"see --help", "did you mean name?", "see timedatectl list-timezones"}
	if got := Hints(err); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Hints(nil); got != nil {
		t.Errorf("no error has the hints %q", got)
	}
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{Usage("x"), 2},
		{fmt.Errorf("outer: %w", Code(4, errors.New("x"))), 4},
		{Code(5, Code(4, errors.New("x"))), 5},
	} {
		if got := ExitCode(c.err); got != c.want {
			t.Errorf("ExitCode(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestSilentPrintsNothing(t *testing.T) {
	var b strings.Builder
	Print(&b, "x", Code(3, ErrSilent))
	if b.Len() != 0 {
		t.Errorf("printed %q", b.String())
	}
}

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{
		"fletctl":    "fleetctl",
		"FLEETCTL":   "fleetctl",
		"etc":        "etcd",
		"kubernetes": "",
	} {
		if got := Nearest(word, []string{"etcd", "fleetd", "fleetctl"}); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
