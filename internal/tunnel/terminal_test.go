package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// pty is a terminal, and the end at which its person sits.
func pty(t *testing.T) (terminal, person *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return terminal, person
}

func TestTerminalOf(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if TerminalOf(file, nil) != nil || TerminalOf(strings.NewReader(""), nil) != nil {
		t.Error("what is no terminal was taken for one")
	}
}

func TestAskReadsOneLine(t *testing.T) {
	terminal, person := pty(t)
	var out bytes.Buffer
	term := TerminalOf(terminal, &out)
	if _, err := person.WriteString("yes\nsecret\nthe rest\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := term.Ask(t.Context(), "Sure? ", true); got != "yes" || err != nil || out.String() != "Sure? " {
		t.Errorf("%q, %v, asked %q", got, err, &out)
	}
	if got, err := term.Ask(t.Context(), "Word: ", false); got != "secret" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := readLine(terminal); got != "the rest" || err != nil {
		t.Errorf("what followed was eaten: %q, %v", got, err)
	}
}

// Whoever interrupts a question for a passphrase sees again what they type.
func TestAskInterrupted(t *testing.T) {
	terminal, _ := pty(t)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(writes, 8)
	go func() {
		<-asked
		cancel()
	}()
	if _, err := TerminalOf(terminal, asked).Ask(ctx, "Word: ", false); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil || state.Lflag&unix.ICANON == 0 {
		t.Errorf("%+v, %v", state, err)
	}
}

type writes chan string

func (w writes) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func TestRawAndResize(t *testing.T) {
	terminal, person := pty(t)
	resize := func(columns, rows uint16) {
		if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
			t.Fatal(err)
		}
	}
	resize(80, 24)
	screen, restore, err := TerminalOf(terminal, nil).Raw("xterm")
	if err != nil {
		t.Fatal(err)
	}
	if screen.Size != (Size{80, 24}) || screen.Type != "xterm" {
		t.Errorf("%+v", screen)
	}
	resize(100, 30)
	// The kernel tells only those whose controlling terminal it is.
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	if got := <-screen.Resized; got != (Size{100, 30}) {
		t.Errorf("then %+v", got)
	}
	restore()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil || state.Lflag&unix.ICANON == 0 {
		t.Errorf("not restored: %+v, %v", state, err)
	}
}
