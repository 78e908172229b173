package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/supervisor/service"
	"flotilla/internal/unit"
)

// streams is where a command's output goes, open for its start.
type streams struct {
	stdout, stderr *os.File
	out            *output // nil if nothing goes to the log
	opened         []*os.File
}

func (st *streams) close() {
	for _, f := range st.opened {
		f.Close()
	}
}

// abandon removes what a command that did not start has no use for.
func (st *streams) abandon() {
	if st.out != nil {
		st.out.f.Close()
		_ = os.Remove(st.out.Path)
	}
}

func (u *svc) openStreams(e service.Spawn) (*streams, error) {
	c := u.m.Config().Context
	st := &streams{}
	var err error
	// "inherit" for stdout means what stdin has: nothing.
	if st.stdout, err = u.openStream(st, c.Stdout, e, nil); err != nil {
		st.close()
		return nil, err
	}
	if st.stderr, err = u.openStream(st, c.Stderr, e, st.stdout); err != nil {
		st.close()
		return nil, err
	}
	return st, nil
}

func (u *svc) openStream(st *streams, s service.Stream, e service.Spawn, inherited *os.File) (*os.File, error) {
	flags := os.O_WRONLY | os.O_CREATE
	switch s.Kind {
	case "null":
		return nil, nil
	case "inherit":
		return inherited, nil
	case "journal":
		return u.openLog(st, e)
	case "append":
		flags |= os.O_APPEND
	case "truncate":
		flags |= os.O_TRUNC
	}
	if inherited != nil && inherited.Name() == s.Path {
		return inherited, nil
	}
	f, err := os.OpenFile(s.Path, flags, 0o644)
	if err != nil {
		return nil, err
	}
	st.opened = append(st.opened, f)
	return f, nil
}

// openLog makes the FIFO that a command's log lines come through.
func (u *svc) openLog(st *streams, e service.Spawn) (*os.File, error) {
	if st.out != nil {
		return st.opened[len(st.opened)-1], nil
	}
	c := u.m.Config().Context
	o := &output{
		s: u.s, unit: u.name, drained: u.outputDrained,
		outputRecord: outputRecord{
			Path:  u.s.path("run", "out", fmt.Sprintf("%s.%d", short(u.name), time.Now().UnixNano())),
			Ident: c.Ident, Level: c.LogLevel, Prefix: c.LevelPrefix,
		},
	}
	if o.Ident == "" {
		o.Ident = filepath.Base(e.Command.Path)
	}
	if err := unix.Mkfifo(o.Path, 0o600); err != nil {
		return nil, fmt.Errorf("make FIFO for the log: %w", err)
	}
	if err := o.open(); err != nil {
		return nil, err
	}
	// The command reads and writes, so there is a reader while no supervisor
	// runs: it blocks when the FIFO is full, and is not killed by SIGPIPE.
	fd, err := unix.Open(o.Path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		o.f.Close()
		return nil, fmt.Errorf("open FIFO for the log: %w", err)
	}
	f := os.NewFile(uintptr(fd), o.Path)
	st.out, st.opened = o, append(st.opened, f)
	return f, nil
}

// outputRecord is what an adopting supervisor must know of an output.
type outputRecord struct {
	Path   string
	PID    int
	Ident  string
	Level  int
	Prefix bool
}

// output carries what one command and its children print to the log.
type output struct {
	outputRecord
	s       *Supervisor
	unit    string
	drained func(*output) // the last writer has gone

	f    *os.File
	conn syscall.RawConn
	mu   sync.Mutex // held while reading
	part []byte     // the beginning of a line
	done bool

	begun bool // it is being read; belongs to the loop
}

func (o *output) open() error {
	f, err := os.OpenFile(o.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open FIFO for the log: %w", err)
	}
	o.f = f
	o.conn, err = f.SyscallConn()
	return err
}

// begin reads from now on, unless it does so already.
func (o *output) begin() {
	if !o.begun {
		o.begun = true
		go o.read()
	}
}

// read carries lines until the last writer has gone.
func (o *output) read() {
	err := o.conn.Read(func(fd uintptr) bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.take(int(fd))
	})
	if err == nil { // not released
		o.drained(o)
	}
}

// drain carries what is there by now.
func (o *output) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.conn.Control(func(fd uintptr) { o.take(int(fd)) })
}

// release stops reading and leaves the FIFO to the next supervisor.
func (o *output) release() { o.f.Close() }

// maxLine is where longer lines are cut, as the journal does (journald.conf(5),
// "LineMax=").
const maxLine = 48 << 10

// take reads until there is nothing; true if there will be nothing more.
func (o *output) take(fd int) bool {
	var buf [16 << 10]byte
	for !o.done {
		n, err := unix.Read(fd, buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false
		case n <= 0:
			o.done = true
			if len(o.part) > 0 {
				o.emit([][]byte{o.part})
			}
			continue
		}
		o.part = append(o.part, buf[:n]...)
		o.emit(o.lines())
	}
	return true
}

// lines takes the whole lines off what was read.
func (o *output) lines() [][]byte {
	var out [][]byte
	for {
		i := bytes.IndexByte(o.part, '\n')
		switch {
		case i >= 0 && i <= maxLine:
			out = append(out, o.part[:i])
			o.part = o.part[i+1:]
		case len(o.part) > maxLine:
			out = append(out, o.part[:maxLine])
			o.part = o.part[maxLine:]
		default:
			o.part = slices.Clone(o.part)
			return out
		}
	}
}

func (o *output) emit(lines [][]byte) {
	if len(lines) == 0 {
		return
	}
	now := time.Now()
	entries := make([]unit.LogEntry, len(lines))
	for i, line := range lines {
		level := o.Level
		if o.Prefix {
			level, line = cutLevel(level, line)
		}
		entries[i] = unit.LogEntry{
			Time: now, Machine: o.s.cfg.Machine, Unit: o.unit, Ident: o.Ident,
			PID: o.PID, Priority: level, Message: string(line),
		}
	}
	o.s.append(entries...)
}

// cutLevel takes "<N>" off a line (sd-daemon(3)).
func cutLevel(level int, line []byte) (int, []byte) {
	if len(line) >= 3 && line[0] == '<' && line[2] == '>' && line[1] >= '0' && line[1] <= '7' {
		return int(line[1] - '0'), line[3:]
	}
	return level, line
}

// outputDrained is called by an output, outside the loop.
func (u *svc) outputDrained(o *output) {
	u.s.post(func() {
		o.f.Close()
		_ = os.Remove(o.Path)
		u.outputs = slices.DeleteFunc(u.outputs, func(p *output) bool { return p == o })
	})
}
