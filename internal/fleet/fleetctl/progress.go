package fleetctl

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// silentFor is how long a wait says nothing.
	silentFor = time.Second
	// lineEvery is the least time between two lines where lines cannot be taken back.
	lineEvery = 5 * time.Second
)

// progress shows what a wait waits for: on a terminal in one line that is written
// over, elsewhere a line whenever it has become something else.
type progress struct {
	w        io.Writer
	terminal bool
	start    time.Time
	shown    string    // what was written last
	at       time.Time // when; zero: never
}

func newProgress(w io.Writer, start time.Time) *progress {
	return &progress{w: w, terminal: isTerminal(w), start: start}
}

// isTerminal reports whether w is a terminal; /dev/null is none.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (p *progress) update(now time.Time, text string) {
	elapsed := now.Sub(p.start)
	switch {
	case elapsed < silentFor:
	case p.terminal:
		text = fmt.Sprintf("waiting for %s (%d s)", text, int(elapsed.Seconds()))
		if text != p.shown {
			fmt.Fprintf(p.w, "\r\x1b[K%s", text)
			p.shown, p.at = text, now
		}
	case text != p.shown && (p.at.IsZero() || now.Sub(p.at) >= lineEvery):
		fmt.Fprintf(p.w, "waiting for %s\n", text)
		p.shown, p.at = text, now
	}
}

// clear takes the line back, before something else is printed.
func (p *progress) clear() {
	if p.terminal && p.shown != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = ""
	}
}
