package up

import (
	"errors"
	"testing"
)

// What is wrong with a machine is told when it changes, and until it has gone.
func TestFaults(t *testing.T) {
	var f faults
	broken := errors.New("its supervisor has ended")
	for i, step := range []struct {
		daemon string
		err    error
		news   bool
		is     string
	}{
		{fleetDaemon, nil, false, ""},
		{supervisorDaemon, broken, true, "its supervisor has ended"},
		{supervisorDaemon, errors.New("its supervisor has ended"), false, "its supervisor has ended"},
		{fleetDaemon, errors.New("fleetd ended"), true, "its supervisor has ended\nfleetd ended"},
		{supervisorDaemon, nil, true, "fleetd ended"},
		{fleetDaemon, nil, true, ""},
	} {
		news := f.set(step.daemon, step.err)
		is := ""
		if err := f.err(); err != nil {
			is = err.Error()
		}
		if news != step.news || is != step.is {
			t.Errorf("step %d: news %t, it is %q; want %t, %q", i, news, is, step.news, step.is)
		}
	}
}
