package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// Terminal is the one that a person sits at.
type Terminal struct {
	in  *os.File
	out io.Writer
}

var _ Asker = (*Terminal)(nil)

// TerminalOf returns the terminal behind standard input, or nil if it is none.
// Questions are written to out.
func TerminalOf(stdin io.Reader, out io.Writer) *Terminal {
	f, ok := stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return &Terminal{in: f, out: out}
}

// Ask asks and reads one line. When ctx ends it returns, with the terminal as it was.
func (t *Terminal) Ask(ctx context.Context, question string, echo bool) (string, error) {
	fd := int(t.in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("ask at the terminal: %w", err)
	}
	fmt.Fprint(t.out, question)
	type reply struct {
		text string
		err  error
	}
	answer := make(chan reply, 1)
	go func() {
		if echo {
			text, err := readLine(t.in)
			answer <- reply{text, err}
			return
		}
		text, err := term.ReadPassword(fd)
		fmt.Fprintln(t.out)
		answer <- reply{string(text), err}
	}()
	select {
	case <-ctx.Done():
		// The read goes on; the process is about to end.
		_ = term.Restore(fd, before)
		return "", context.Cause(ctx)
	case r := <-answer:
		if r.err != nil {
			return "", fmt.Errorf("no answer at the terminal: %w", r.err)
		}
		return r.text, nil
	}
}

// readLine reads up to a newline and not a byte more: what follows is for the
// command.
func readLine(r io.Reader) (string, error) {
	var line strings.Builder
	var b [1]byte
	for {
		n, err := r.Read(b[:])
		switch {
		case n == 1 && b[0] == '\n':
			return strings.TrimSuffix(line.String(), "\r"), nil
		case n == 1:
			line.WriteByte(b[0])
		case errors.Is(err, io.EOF) && line.Len() > 0:
			return line.String(), nil
		case err != nil:
			return "", err
		}
	}
}

// Raw hands the terminal over to a command elsewhere: keys go there as they are
// pressed. The function it returns takes it back.
func (t *Terminal) Raw(termType string) (screen *Screen, restore func(), err error) {
	fd := int(t.in.Fd())
	size, err := t.size()
	if err != nil {
		return nil, nil, fmt.Errorf("look at the terminal: %w", err)
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, nil, fmt.Errorf("hand over the terminal: %w", err)
	}
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	resized := make(chan Size)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-changes:
			case <-done:
				return
			}
			size, err := t.size()
			if err != nil {
				return // no terminal any more: the command sees its input end
			}
			select {
			case resized <- size:
			case <-done:
				return
			}
		}
	}()
	return &Screen{Type: termType, Size: size, Resized: resized}, func() {
		signal.Stop(changes)
		close(done)
		_ = term.Restore(fd, before) // no terminal any more: nothing to restore
	}, nil
}

func (t *Terminal) size() (Size, error) {
	columns, rows, err := term.GetSize(int(t.in.Fd()))
	return Size{Columns: columns, Rows: rows}, err
}
