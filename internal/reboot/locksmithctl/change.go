package locksmithctl

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flotilla/internal/fault"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
)

func (s *session) lock() *cobra.Command {
	var why string
	c := &cobra.Command{
		Use:   "lock [MACHINE]",
		Short: "take a slot for a machine, by default for this one, until it is unlocked",
		Long: "Take a slot for a machine, by default for this one. It is a person's until somebody\n" +
			"unlocks it: nobody takes the machine for dead because it is silent.",
	}
	c.Flags().StringVar(&why, "why", "locked by hand", "what status and history say about it")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage(c, "lock takes one machine at most")
		}
		id, err := s.id(args)
		if err == nil {
			err = s.with(func(l *lock.Lock) error {
				d := s.detail(id)
				d.Phase, d.Why = sema.ByHand, why
				return change(c.Context(), l, func(v sema.Semaphore) (sema.Semaphore, error) { return v.Take(id, d) })
			})
		}
		return s.failed("locking", err)
	}
	return c
}

func (s *session) unlock() *cobra.Command {
	c := &cobra.Command{
		Use:   "unlock [MACHINE]",
		Short: "give a machine's slot back, by default this one's",
		Long: "Give a machine's slot back, by default this one's. If the machine had been given up and\n" +
			"all is stopped because of it, the others go on.",
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage(c, "unlock takes one machine at most")
		}
		id, err := s.id(args)
		if err == nil {
			err = s.with(func(l *lock.Lock) error {
				return change(c.Context(), l, func(v sema.Semaphore) (sema.Semaphore, error) { return v.Release(id) })
			})
		}
		return s.failed("unlocking", err)
	}
	c.ValidArgsFunction = func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		var holders []string
		err := errors.Join(s.fromEnvironment(c), s.with(func(l *lock.Lock) error {
			now, err := l.Read(c.Context())
			holders = now.Holders
			return err
		}))
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return holders, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// detail is what a new holder's entry says of a machine. Of another machine than this
// one nothing is known here.
func (s *session) detail(id string) sema.Detail {
	d := sema.Detail{Since: time.Now().UTC().Truncate(time.Microsecond)}
	if own, err := s.machine.ID(); err != nil || own != id {
		return d
	}
	d.Hostname = s.machine.Hostname()
	if boot, err := s.machine.BootID(); err == nil {
		d.Boot = boot
	}
	return d
}

// change changes the lock and explains what it refuses.
func change(ctx context.Context, l *lock.Lock, f func(sema.Semaphore) (sema.Semaphore, error)) error {
	now, err := l.Change(ctx, f)
	switch {
	case errors.Is(err, sema.ErrStopped):
		return fault.Hint(err, "look after the machine, then 'locksmithctl%s resume'", groupFlag(l))
	case errors.Is(err, sema.ErrFull), errors.Is(err, sema.ErrNotHolder):
		return fault.Hint(err, "max is %d, %s", now.Max, now.HeldBy())
	case errors.Is(err, sema.ErrLost):
		return fault.Hint(err, "'locksmithctl%s unlock' says that it is well", groupFlag(l))
	}
	return err
}

func groupFlag(l *lock.Lock) string {
	if l.Group() == "" {
		return ""
	}
	return " -group " + l.Group()
}

func (s *session) setMax() *cobra.Command {
	return s.setting("set-max N", "let N machines reboot at a time", "Max",
		func(v sema.Semaphore) int { return v.Max }, sema.Semaphore.SetMax)
}

func (s *session) setStopAfter() *cobra.Command {
	return s.setting("set-stop-after N", "stop after N machines in a row that did not come back or came back bad; 0: never", "Stop-After",
		func(v sema.Semaphore) int { return v.StopAfter }, sema.Semaphore.SetStopAfter)
}

// setting is a command that changes one number of the lock, which it calls name.
func (s *session) setting(use, short, name string, get func(sema.Semaphore) int, set func(sema.Semaphore, int) (sema.Semaphore, error)) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short}
	c.RunE = func(c *cobra.Command, args []string) error {
		n, err := number(c, args)
		if err != nil {
			return err
		}
		var old int
		err = s.with(func(l *lock.Lock) error {
			return change(c.Context(), l, func(v sema.Semaphore) (sema.Semaphore, error) {
				old = get(v)
				return set(v, n)
			})
		})
		if err != nil {
			return s.failed("setting "+strings.ToLower(name), err)
		}
		fmt.Fprintf(s.env.Stdout, "Old-%s: %d\n%s: %d\n", name, old, name, n)
		return nil
	}
	return c
}

// number is the one argument of a command.
func number(c *cobra.Command, args []string) (int, error) {
	if len(args) != 1 {
		return 0, usage(c, "%s takes one number, not %d arguments", c.Name(), len(args))
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 0 {
		return 0, usage(c, "%s: %q is not a number from 0 on", c.Name(), args[0])
	}
	return n, nil
}

func (s *session) resume() *cobra.Command {
	c := &cobra.Command{
		Use:   "resume",
		Short: "go on after a stop: machines that were given up lose their slots and are forgotten",
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(c, "resume takes no arguments")
		}
		var was sema.Semaphore
		err := s.with(func(l *lock.Lock) error {
			return change(c.Context(), l, func(v sema.Semaphore) (sema.Semaphore, error) {
				was = v
				return v.Resume()
			})
		})
		if err != nil {
			return s.failed("resuming", err)
		}
		for _, one := range was.Bad {
			fmt.Fprintf(s.env.Stdout, "Forgotten: %s: %s: %s\n", sema.Name(one.Machine, one.Hostname), one.Result, one.Why)
		}
		return nil
	}
	return c
}

func (s *session) reboot() *cobra.Command {
	var why string
	c := &cobra.Command{
		Use:   "reboot",
		Short: "take a slot for this machine and reboot it (root only)",
		Long: "Take a slot for this machine and reboot it, whatever the window. A machine that holds a\n" +
			"slot keeps it. locksmithd gives the slot back when the machine is up and well.",
	}
	c.Flags().StringVar(&why, "why", "rebooted by hand", "what status and history say about it")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(c, "reboot takes no arguments")
		}
		if !s.machine.IsRoot() {
			return fault.Hint(errors.New("only root may reboot the machine"), "sudo %s reboot", s.env.CalledOr("locksmithctl"))
		}
		return s.rebootNow(c.Context(), why)
	}
	return c
}

// rebootNow takes the slot and reboots. What forbids the reboot is asked about first,
// and a slot that turns out to be of no use is given back: it would block the others.
func (s *session) rebootNow(ctx context.Context, why string) error {
	blocked, err := s.machine.Blockers(ctx)
	if err != nil {
		return err
	}
	if len(blocked) > 0 {
		return fault.Hint(fmt.Errorf("the reboot is forbidden by %s", strings.Join(blocked, "; ")), "systemd-inhibit --list shows them")
	}
	id, err := s.id(nil)
	if err != nil {
		return s.failed("locking", err)
	}
	d := s.detail(id)
	d.Phase, d.Why = sema.Rebooting, why
	return s.with(func(l *lock.Lock) error {
		var before sema.Semaphore
		err := change(ctx, l, func(v sema.Semaphore) (sema.Semaphore, error) {
			before = v
			return v.AcquireByHand(id, d)
		})
		if err != nil {
			return s.failed("locking", hinted(err))
		}
		if err = s.machine.Reboot(ctx); err == nil {
			return nil
		}
		// Also when somebody has pressed Ctrl-C: a machine that says that it reboots, and
		// does not, would be taken for lost.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		back := change(ctx, l, func(v sema.Semaphore) (sema.Semaphore, error) { return undo(v, before, id) })
		return errors.Join(err, s.failed("unlocking", back))
	})
}

// undoLimit is how long the store may take to forget a reboot that was not.
const undoLimit = 10 * time.Second

// undo makes the machine what it was before: no holder, or one in the phase it was in.
func undo(now, before sema.Semaphore, id string) (sema.Semaphore, error) {
	if !before.Holds(id) {
		return now.GiveBack(id)
	}
	was := before.Details[id]
	return now.Refresh(id, sema.Detail{Phase: was.Phase, Why: was.Why})
}

func (s *session) sendNeedReboot() *cobra.Command {
	c := &cobra.Command{
		Use:   "send-need-reboot",
		Short: "say on the system bus that a reboot is needed, as the update engine does (root only)",
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(c, "send-need-reboot takes no arguments")
		}
		if !s.machine.IsRoot() {
			return fault.Hint(errors.New("nobody believes it of another user than root"), "sudo %s send-need-reboot", s.env.CalledOr("locksmithctl"))
		}
		return s.machine.SendNeedReboot(c.Context())
	}
	return c
}
