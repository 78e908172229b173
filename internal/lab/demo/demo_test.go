package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"flotilla/examples"
	"flotilla/internal/applet"
)

const listed = `heartbeat.service	aaaaaaaa.../10.10.1.1	active	running
heartbeat.service	bbbbbbbb.../10.10.1.2	active	running
hello.service	aaaaaaaa.../10.10.1.1	active	running
hello@1.service	-	inactive	dead
hello@2.service	bbbbbbbb.../10.10.1.2	active	running
hello@2.service	aaaaaaaa.../10.10.1.1	active	running
`

func TestParseUnits(t *testing.T) {
	rows := parseUnits(listed + "noise\n")
	if len(rows) != 6 {
		t.Fatalf("got %v", rows)
	}
	if at := where(rows, "hello.service"); !slices.Equal(at, []string{"aaaaaaaa"}) {
		t.Errorf("hello is on %v", at)
	}
	if got := twice(rows, "heartbeat.service"); !slices.Equal(got, []string{"hello@2.service on bbbbbbbb and aaaaaaaa"}) {
		t.Errorf("got %v", got)
	}
}

func TestParseSystemd(t *testing.T) {
	got := parseSystemd(machine{name: "m1"}, "hello.service loaded active running Hello world\n\nheartbeat.service loaded failed failed x\n")
	want := []row{{"hello.service", "m1", "active", "running"}, {"heartbeat.service", "m1", "failed", "failed"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// play is a stage on which the cluster does as it is told: its script says on which
// machines hello is after each event.
type play struct {
	off     string   // machine without power
	doubled bool     // hello runs twice after the machine has come back
	stuck   bool     // hello does not move
	did     []string // what was done with the machines
}

func (p *play) title() string { return "A play." }
func (p *play) boot(_ context.Context, n int, _ func(string, ...any)) error {
	p.did = append(p.did, fmt.Sprintf("boot %d", n))
	return nil
}
func (p *play) machines(context.Context) ([]machine, error) {
	return []machine{{"m1", "aaaaaaaa1"}, {"m2", "bbbbbbbb1"}, {"m3", "cccccccc1"}}, nil
}
func (p *play) examples() string { return "examples" }
func (p *play) cutPower(_ context.Context, name string) error {
	p.off = name
	p.did = append(p.did, "cut "+name)
	return nil
}
func (p *play) powerOn(_ context.Context, name string) error {
	p.off = ""
	p.did = append(p.did, "on "+name)
	return nil
}
func (p *play) close(context.Context) error {
	p.did = append(p.did, "close")
	return nil
}

func (p *play) running(ctx context.Context) ([]row, error) {
	out, err := p.fleetctl(ctx, "list-units")
	return parseUnits(out), err
}

func (p *play) fleetctl(_ context.Context, args ...string) (string, error) {
	switch args[0] {
	case "journal":
		return "Hello World\n", nil
	case "list-units":
	default:
		return "", nil
	}
	var b strings.Builder
	for i, id := range []string{"aaaaaaaa", "bbbbbbbb", "cccccccc"} {
		if p.off != fmt.Sprintf("m%d", i+1) {
			fmt.Fprintf(&b, "heartbeat.service %s.../ip active running\nhello@%d.service %s.../ip active running\n", id, i+1, id)
		}
	}
	moved := slices.Contains(p.did, "cut m1") && !p.stuck
	if moved {
		fmt.Fprintln(&b, "hello.service bbbbbbbb.../ip active running")
	}
	if !moved || p.doubled && slices.Contains(p.did, "on m1") {
		fmt.Fprintln(&b, "hello.service aaaaaaaa.../ip active running")
	}
	return b.String(), nil
}

func TestStory(t *testing.T) {
	for _, c := range []struct {
		name string
		play play
		err  string
		did  string
	}{
		{"goes well", play{}, "", "boot 3, cut m1, on m1, close"},
		{"hello does not move", play{stuck: true}, "active on another machine: not within 25.0 s", "boot 3, cut m1, close"},
		{"hello runs twice", play{doubled: true}, "each once: not within 60.0 s", "boot 3, cut m1, on m1, close"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out strings.Builder
				err := perform(t.Context(), &out, &c.play)
				if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q\n%s", err, c.err, out.String())
				}
				if did := strings.Join(c.play.did, ", "); did != c.did {
					t.Errorf("did %s, want %s", did, c.did)
				}
			})
		})
	}
}

func TestInterruptedStoryCleansUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := play{stuck: true}
	if err := perform(ctx, &strings.Builder{}, &p); err == nil || !slices.Contains(p.did, "close") {
		t.Errorf("got %v, did %v", err, p.did)
	}
}

func TestUnknownStage(t *testing.T) {
	if _, err := choose("theatre", applet.Env{Stdout: &strings.Builder{}}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Everything the story starts is there, for both stages.
func TestExamplesAreThere(t *testing.T) {
	for _, name := range []string{"hello.service", "hello@.service", "heartbeat.service"} {
		for _, dir := range []string{"", "plain/"} {
			if _, err := examples.Files.ReadFile(dir + name); err != nil {
				t.Error(err)
			}
		}
	}
}
