// Package demo tells the project's story on real parts: three machines become one, a
// unit runs on one of them, its machine loses power, the unit runs on another.
//
// The story is told once, in story.go; where it is told is a stage: lab machines, or
// "flotilla up" for those who are not root.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
	"flotilla/internal/lab/machines"
)

// machine is one of the stage's machines.
type machine struct {
	name string
	id   string // machine id, 32 hexadecimal digits
}

// stage is where the story is told.
type stage interface {
	// title says what the machines are.
	title() string
	// boot makes the machines and starts the cluster on them; it says what it does
	// by way of say.
	boot(ctx context.Context, n int, say func(format string, args ...any)) error
	machines(ctx context.Context) ([]machine, error)
	// fleetctl runs on a machine that has power, in a directory that holds the
	// examples.
	fleetctl(ctx context.Context, args ...string) (string, error)
	// running asks those who run the units, not the cluster, which are active.
	running(ctx context.Context) ([]row, error)
	// examples is the directory of the unit files this stage can run.
	examples() string
	cutPower(ctx context.Context, name string) error
	powerOn(ctx context.Context, name string) error
	// close takes everything away, also after a failed boot.
	close(ctx context.Context) error
}

// Command is "flotilla lab demo".
func Command(env applet.Env) *cobra.Command {
	var on string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "three machines, a unit, a power cut: the whole story",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := choose(on, env)
			if err != nil {
				return err
			}
			return perform(cmd.Context(), env.Stdout, s)
		},
	}
	cmd.Flags().StringVar(&on, "on", "auto", "`STAGE`: lab (real systemd machines, root), up (one process, no root) or auto")
	return cmd
}

// choose returns the stage: lab machines where they can be had, unless told.
func choose(on string, env applet.Env) (stage, error) {
	host, err := machines.Inspect()
	if err != nil {
		return nil, err
	}
	unfit := host.Check()
	switch {
	case on == "up":
		return newUpStage(env)
	case on == "lab" && unfit != nil:
		return nil, unfit
	case on == "auto" && unfit != nil:
		fmt.Fprintf(env.Stdout, "No lab machines here (%v),\nso the machines are parts of one process and the built-in supervisor runs their units.\n\n", unfit)
		return newUpStage(env)
	case on == "lab" || on == "auto":
		return newLabStage(host)
	}
	return nil, fault.Usage("no stage %q: there are lab, up and auto", on)
}

// perform tells the story and takes the stage away, also when the story ends early.
func perform(ctx context.Context, w io.Writer, s stage) (err error) {
	t := &teller{w: w, stage: s}
	defer func() {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		err = errors.Join(err, t.step(context.WithoutCancel(ctx), "Clean up", s.close))
		if err == nil {
			fmt.Fprintf(w, "\nThat is the story; it took %s. Now yourself: flotilla up, or sudo flotilla lab up 3 --cluster\n", t.total())
		}
	}()
	return t.tell(ctx)
}
