package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/fault"
)

// fake is a source that is available from a time on; 0 is never.
type fake struct {
	kind  string
	from  time.Time
	never bool
	asked int
}

func (f *fake) Name() string                               { return f.kind }
func (f *fake) Type() string                               { return f.kind }
func (f *fake) UserData(context.Context) ([]byte, error)   { return nil, nil }
func (f *fake) Metadata(context.Context) (Metadata, error) { return Metadata{}, nil }
func (f *fake) Available(context.Context) error {
	f.asked++
	switch {
	case f.never:
		return never{fault.Hint(errors.New("not here"), "go elsewhere")}
	case f.from.IsZero() || time.Now().Before(f.from):
		return fmt.Errorf("%s is not up", f.kind)
	}
	return nil
}

func TestFirst(t *testing.T) {
	for _, c := range []struct {
		name    string
		sources map[string]time.Duration // available after; negative: never will be; 0: at no time
		want    string
		err     string
		took    time.Duration
	}{
		{name: "one at once", sources: map[string]time.Duration{"a": 1}, want: "a", took: 100 * time.Millisecond},
		{name: "the quicker one", sources: map[string]time.Duration{"a": 10 * time.Second, "b": time.Second}, want: "b", took: 1500 * time.Millisecond},
		{name: "beside one that never will", sources: map[string]time.Duration{"a": -1, "b": 2 * time.Second}, want: "b", took: 3100 * time.Millisecond},
		{name: "after minutes", sources: map[string]time.Duration{"a": 4 * time.Minute}, want: "a", took: 261100 * time.Millisecond},
		{name: "none in time", sources: map[string]time.Duration{"a": 0, "b": -1}, err: "no source became available within 5m0s: a: a is not up; b: not here", took: 5 * time.Minute},
		{name: "none ever", sources: map[string]time.Duration{"a": -1, "b": -1}, err: "no source became available on this machine: a: not here; b: not here"},
		{name: "none given", err: "no source of a document is given"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var sources []Source
				for _, kind := range []string{"a", "b"} {
					if d, ok := c.sources[kind]; ok {
						f := &fake{kind: kind, never: d < 0}
						if d > 0 {
							f.from = start.Add(d)
						}
						sources = append(sources, f)
					}
				}
				got, err := First(t.Context(), sources, Polling{})
				if err == nil && (got.Type() != c.want || c.err != "") || err != nil && (c.err == "" || err.Error() != c.err) {
					t.Errorf("got %v, %v; want %q, %q", got, err, c.want, c.err)
				}
				if took := time.Since(start); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
			})
		})
	}
}

// A command can tell what it waits for, and for how long until the next question.
func TestFirstReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		_, err := First(t.Context(), []Source{&fake{kind: "a"}}, Polling{
			Pause: time.Second, Longest: 3 * time.Second, Total: 10 * time.Second,
			Report: func(a Attempt) { told = append(told, fmt.Sprintf("%d %s %v", a.Number, a.Source.Type(), a.Again)) },
		})
		want := "1 a 1s, 2 a 2s, 3 a 3s, 4 a 3s, 5 a 3s"
		if got := strings.Join(told, ", "); got != want || err == nil {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}

func TestFirstEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("stopped by a signal")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(stop) })
		if _, err := First(ctx, []Source{&fake{kind: "a"}}, Polling{}); !errors.Is(err, stop) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOEM(t *testing.T) {
	for _, name := range OEMs() {
		f, err := OEM(name)
		if err != nil || len(f.Sources(Fetcher{})) == 0 {
			t.Errorf("%s: %v, %+v", name, err, f)
		}
	}
	_, err := OEM("digitalocan")
	if fault.ExitCode(err) != fault.ExitUsage || !strings.Contains(strings.Join(fault.Hints(err), "\n"), "did you mean digitalocean?") {
		t.Errorf("got %v, %v", err, fault.Hints(err))
	}
}

// Flags win over a preset, and every flag makes a source of its own type.
func TestFlags(t *testing.T) {
	ec2, _ := OEM("ec2-compat")
	got := Flags{EC2: "http://localhost:1/", File: "x"}.Or(ec2)
	if want := (Flags{EC2: "http://localhost:1/", File: "x", ConfigDrive: configDrive}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	all := Flags{File: "f", URL: "http://u/", ConfigDrive: "d", ProcCmdline: true, EC2: "http://e/", GCE: "http://g/",
		DigitalOcean: "http://o/", Packet: "http://p/", CloudSigma: true, VMwareGuestinfo: true, VMwareOVFEnv: "o", WAAgent: "w"}
	var types []string
	for _, s := range all.Sources(Fetcher{}) {
		types = append(types, s.Type()+"="+s.Name())
	}
	want := "local-file=f url=http://u/ cloud-drive=d proc-cmdline=/proc/cmdline ec2-metadata-service=http://e/ gce-metadata-service=http://g/ " +
		"digitalocean-metadata-service=http://o/ packet-metadata-service=http://p/ server-context=/dev/ttyS1 vmware=guestinfo vmware=o waagent=w"
	if got := strings.Join(types, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
