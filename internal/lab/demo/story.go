package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

const (
	size   = 3 // machines
	hello  = "hello.service"
	global = "heartbeat.service"

	// startLimit is how long units may take to start: Docker starts with the first.
	startLimit = 60 * time.Second
	// moveLimit is how long units of a machine without power may be away.
	moveLimit = 25 * time.Second
	// returnLimit is how long a machine may take from power on until its units run.
	returnLimit = 60 * time.Second
	// settled is how long the end of the story is watched for a unit that runs twice.
	settled = 5 * time.Second
)

// teller performs the steps and says how long each took.
type teller struct {
	w     io.Writer
	stage stage
	began time.Time
	steps int
}

func (t *teller) total() string { return seconds(time.Since(t.began)) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// step says what is done, does it and says how long it took.
func (t *teller) step(ctx context.Context, what string, do func(context.Context) error) error {
	t.steps++
	fmt.Fprintf(t.w, "\n%d. %s\n", t.steps, what)
	began := time.Now()
	if err := do(ctx); err != nil {
		return fmt.Errorf("step %d (%s), after %s: %w", t.steps, what, seconds(time.Since(began)), err)
	}
	fmt.Fprintf(t.w, "   done in %s\n", seconds(time.Since(began)))
	return nil
}

func (t *teller) say(format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), "\n")
	fmt.Fprintf(t.w, "   %s\n", strings.ReplaceAll(text, "\n", "\n   "))
}

// fleetctl shows a command as typed, runs it and shows what it prints.
func (t *teller) fleetctl(ctx context.Context, typed string, args ...string) error {
	if len(args) == 0 {
		args = strings.Fields(typed)
	}
	t.say("$ fleetctl %s", typed)
	out, err := t.stage.fleetctl(ctx, args...)
	if out != "" {
		t.say("%s", out)
	}
	return err
}

// shown is a step that is one command.
func (t *teller) shown(typed string, args ...string) func(context.Context) error {
	return func(ctx context.Context) error { return t.fleetctl(ctx, typed, args...) }
}

// tell is the story.
func (t *teller) tell(ctx context.Context) error {
	t.began = time.Now()
	fmt.Fprintf(t.w, "%s\n", t.stage.title())
	dir := t.stage.examples()
	var victim machine
	for _, s := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"Boot three machines and start the cluster on them", func(ctx context.Context) error {
			return t.stage.boot(ctx, size, t.say)
		}},
		{"Look at the machines", t.shown("list-machines")},
		{"Start hello, from the first talk", t.start("start "+dir+"/hello.service", nil, hello, 1)},
		{"Look at it", func(ctx context.Context) error {
			return errors.Join(t.fleetctl(ctx, "list-units"), t.journal(ctx))
		}},
		{"Start a template on three machines: Conflicts=hello@* keeps the instances apart", func(ctx context.Context) error {
			if err := t.fleetctl(ctx, "submit "+dir+"/hello@.service"); err != nil {
				return err
			}
			return t.start("start hello@{1..3}", []string{"start", "hello@1", "hello@2", "hello@3"}, "hello@", size)(ctx)
		}},
		{"Start a global unit: one on every machine", t.start("start "+dir+"/heartbeat.service", nil, global, size)},
		{"Look at all of it", t.shown("list-units")},
		{"Cut the power of the machine that runs hello", func(ctx context.Context) (err error) {
			victim, err = t.cutPower(ctx)
			return err
		}},
		{"See it run elsewhere", func(ctx context.Context) error { return t.moved(ctx, victim) }},
		{"Switch the machine on again", func(ctx context.Context) error { return t.back(ctx, victim) }},
		{"Nothing runs twice", t.once},
	} {
		if err := t.step(ctx, s.what, s.do); err != nil {
			return err
		}
	}
	return nil
}

// start is a step that starts units and waits until n whose names begin with prefix
// are active.
func (t *teller) start(typed string, args []string, prefix string, n int) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := t.fleetctl(ctx, typed, args...); err != nil {
			return err
		}
		return t.until(ctx, startLimit, fmt.Sprintf("%d of %s active", n, prefix), func(rows []row) bool {
			return t.active(rows, prefix) == n
		})
	}
}

func (t *teller) active(rows []row, prefix string) int {
	n := 0
	for _, r := range rows {
		if strings.HasPrefix(r.unit, prefix) && r.active == "active" && r.sub == "running" {
			n++
		}
	}
	return n
}

// journal shows the unit's log as soon as there is some.
func (t *teller) journal(ctx context.Context) error {
	args := []string{"journal", "--lines", "3", "hello"}
	err := poll(ctx, startLimit, func() (bool, error) {
		out, err := t.stage.fleetctl(ctx, args...)
		return strings.Contains(out, "Hello World"), err
	})
	if err != nil {
		return fmt.Errorf("wait for hello to say something: %w", err)
	}
	return t.fleetctl(ctx, strings.Join(args, " "))
}

// cutPower finds the machine that runs hello and cuts its power.
func (t *teller) cutPower(ctx context.Context) (machine, error) {
	rows, err := t.units(ctx)
	if err != nil {
		return machine{}, err
	}
	all, err := t.stage.machines(ctx)
	if err != nil {
		return machine{}, err
	}
	at := where(rows, hello)
	i := slices.IndexFunc(all, func(m machine) bool { return len(at) == 1 && strings.HasPrefix(m.id, at[0]) })
	if i < 0 {
		return machine{}, fmt.Errorf("hello is active on %v, which is not one of the machines", at)
	}
	t.say("%s runs hello: every process on it is killed, nothing gets to say a last word", all[i].name)
	return all[i], t.stage.cutPower(ctx, all[i].name)
}

// moved waits until hello is active on another machine than before.
func (t *teller) moved(ctx context.Context, from machine) error {
	err := t.until(ctx, moveLimit, "hello active on another machine", func(rows []row) bool {
		at := where(rows, hello)
		return len(at) == 1 && !strings.HasPrefix(from.id, at[0])
	})
	if err != nil {
		return err
	}
	t.say("hello is active again; the instance of hello@ that was there waits: each of the others has one")
	return t.fleetctl(ctx, "list-units")
}

// back switches the machine on and waits until it runs its share again.
func (t *teller) back(ctx context.Context, m machine) error {
	if err := t.stage.powerOn(ctx, m.name); err != nil {
		return err
	}
	err := t.until(ctx, returnLimit, "all units active, each once", func(rows []row) bool {
		return t.active(rows, global) == size && t.active(rows, "hello@") == size && t.active(rows, hello) == 1
	})
	if err != nil {
		return err
	}
	return t.fleetctl(ctx, "list-units")
}

// once watches that every unit is active, and on one machine only.
func (t *teller) once(ctx context.Context) error {
	looks := 0
	for end := time.Now().Add(settled); time.Now().Before(end); looks++ {
		rows, err := t.stage.running(ctx)
		if err != nil {
			return err
		}
		if found := twice(rows, global); len(found) > 0 {
			return fmt.Errorf("runs twice: %s", strings.Join(found, "; "))
		}
		if t.active(rows, "hello") != size+1 || t.active(rows, global) != size {
			return fmt.Errorf("not everything runs: %v", rows)
		}
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	t.say("looked %d times in %s: every unit is active on one machine, %s on each", looks, seconds(settled), global)
	return nil
}

func (t *teller) units(ctx context.Context) ([]row, error) {
	out, err := t.stage.fleetctl(ctx, "list-units", "--no-legend")
	return parseUnits(out), err
}

// until polls list-units until cond holds. An error of the command counts only when
// it is the last: just after a power cut the store may be busy electing.
func (t *teller) until(ctx context.Context, limit time.Duration, what string, cond func([]row) bool) error {
	var rows []row
	err := poll(ctx, limit, func() (bool, error) {
		var err error
		rows, err = t.units(ctx)
		return err == nil && cond(rows), err
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w; last seen: %v", what, err, rows)
	}
	return nil
}

// poll calls done until it says so or the limit is reached; then the last error tells
// why not.
func poll(ctx context.Context, limit time.Duration, done func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := done()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("not within %s", seconds(limit)), err)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
