package fault

import (
	"errors"
	"fmt"
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
