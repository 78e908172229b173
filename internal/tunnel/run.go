package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Exit codes beside those of the command itself.
const (
	// ExitNoAnswer: the command could not be run, or its end is not known, as with
	// ssh(1).
	ExitNoAnswer = 255
	exitSignal   = 128 // plus the signal's number, as with shells
)

// Command is what to run on a server.
type Command struct {
	// Line is given to the user's shell there. "" is a login shell.
	Line string
	// The command's streams. A nil Stdin is empty, a nil Stdout or Stderr dropped.
	// The two are written to at the same time, so they must not be the same.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Screen gives the command a terminal. nil: plain streams.
	Screen *Screen
	// ForwardAgent lets the command use our agent.
	ForwardAgent bool
}

// Screen is the terminal that a command sees.
type Screen struct {
	Type    string      // $TERM
	Size    Size        // at the start
	Resized <-chan Size // sizes from then on; may be nil
}

// Size is a terminal's, in characters.
type Size struct{ Columns, Rows int }

// Run runs a command to its end and returns its exit code; 128 and its number for a
// signal. The error says that it could not be run, or that its end was not seen.
func (c *Client) Run(ctx context.Context, cmd Command) (int, error) {
	session, err := c.ssh.NewSession()
	if err != nil {
		return ExitNoAnswer, fmt.Errorf("open a session on %s: %w", c.name, c.lost(err))
	}
	defer session.Close()
	if err := c.prepare(ctx, session, cmd); err != nil {
		return ExitNoAnswer, err
	}
	if cmd.Line == "" {
		err = session.Shell()
	} else {
		err = session.Start(cmd.Line)
	}
	if err != nil {
		return ExitNoAnswer, fmt.Errorf("run a command on %s: %w", c.name, c.lost(err))
	}
	defer context.AfterFunc(ctx, func() {
		_ = session.Signal(ssh.SIGINT) // it may not listen; closing it is what counts
		session.Close()
	})()
	if cmd.Screen != nil {
		done := make(chan struct{})
		defer close(done)
		go follow(session, cmd.Screen.Resized, done)
	}
	return c.exitCode(ctx, session.Wait())
}

// prepare makes a session ready to start the command.
func (c *Client) prepare(ctx context.Context, session *ssh.Session, cmd Command) error {
	session.Stdin, session.Stdout, session.Stderr = cmd.Stdin, cmd.Stdout, cmd.Stderr
	if cmd.ForwardAgent {
		if err := forwardAgent(ctx, c.ssh, c.agentSocket); err != nil {
			return err
		}
		if err := agent.RequestAgentForwarding(session); err != nil {
			return fmt.Errorf("forward the agent to %s: %w", c.name, c.lost(err))
		}
	}
	if s := cmd.Screen; s != nil {
		if err := session.RequestPty(first(s.Type, "dumb"), s.Size.Rows, s.Size.Columns, ssh.TerminalModes{ssh.ECHO: 1}); err != nil {
			return fmt.Errorf("get a terminal on %s: %w", c.name, c.lost(err))
		}
	}
	return nil
}

// follow tells the server each new size of the terminal.
func follow(session *ssh.Session, resized <-chan Size, done <-chan struct{}) {
	for {
		select {
		case size := <-resized:
			// A server that is gone ends the session, which says so.
			_ = session.WindowChange(size.Rows, size.Columns)
		case <-done:
			return
		}
	}
}

// signals are the numbers of the signals that the protocol names (RFC 4254, section
// 6.10), for exit codes.
var signals = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8, "KILL": 9,
	"USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15,
}

func (c *Client) exitCode(ctx context.Context, err error) (int, error) {
	var exit *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case err == nil:
		return 0, nil
	case ctx.Err() != nil:
		return exitSignal + signals["INT"], nil
	case errors.As(err, &exit) && exit.Signal() != "":
		return exitSignal + signals[exit.Signal()], nil
	case errors.As(err, &exit):
		return exit.ExitStatus(), nil
	case errors.As(err, &missing):
		err = errors.New("the connection ended before the command did")
	}
	return ExitNoAnswer, fmt.Errorf("%s: %w", c.name, c.lost(err))
}
