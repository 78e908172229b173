package cloudinitcmd

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/cloudinit/apply"
	"flotilla/internal/cloudinit/plan"
)

// slowly is a machine whose programs take their time.
type slowly time.Duration

func (d slowly) Run(context.Context, string, string, ...string) (string, error) {
	time.Sleep(time.Duration(d))
	return "", nil
}

// Who waits for a unit is told so, once, and not for one that is quick.
func TestLongCommandsAreTold(t *testing.T) {
	for _, c := range []struct {
		takes time.Duration
		want  string
	}{
		{time.Second, ""},
		{time.Hour, "waiting for etcd.service to start; how far it is: systemctl status etcd.service"},
	} {
		synctest.Test(t, func(t *testing.T) {
			said := ""
			m := machine{Host: &apply.Host{Cmd: slowly(c.takes)}, say: func(format string, args ...any) { said += fmt.Sprintf(format, args...) }}
			if err := m.Do(t.Context(), plan.Step{Kind: plan.Command, Verb: "start", Target: "etcd.service"}); err != nil {
				t.Error(err)
			}
			if said != c.want {
				t.Errorf("after %v it said %q, want %q", c.takes, said, c.want)
			}
		})
	}
}
