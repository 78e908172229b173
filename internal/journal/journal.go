// Package journal reads units' logs from systemd's journal, through journalctl: the
// journal's files have no other reader that a static binary could contain.
package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/fault"
	"flotilla/internal/lifecycle"
	"flotilla/internal/unit"
)

// Config says which journal, and with what program it is read.
type Config struct {
	// User chooses the logs of the calling user's own units.
	User bool
	// Program is what is run. "" means journalctl.
	Program string
	// Boot is the id of this boot, 32 hexadecimal digits. "" means lifecycle.BootID.
	Boot string
}

// Reader is a unit.LogReader over journalctl.
type Reader struct{ cfg Config }

var _ unit.LogReader = (*Reader)(nil)

// New returns a Reader. Nothing is run before ReadLog.
func New(cfg Config) *Reader {
	if cfg.Program == "" {
		cfg.Program = "journalctl"
	}
	if cfg.Boot == "" {
		cfg.Boot, _ = lifecycle.BootID() // without it journalctl finds out by itself
	}
	return &Reader{cfg: cfg}
}

// ReadLog implements unit.LogReader. Entries are those that "journalctl -u" shows:
// the lines of the unit's processes and what systemd itself says of the unit.
func (r *Reader) ReadLog(ctx context.Context, q unit.LogQuery, emit func(unit.LogEntry) error) error {
	if len(q.Units) == 0 {
		return errors.New("read the journal: no units are named")
	}
	if !q.Follow {
		return r.read(ctx, q, emit)
	}
	err := r.follow(ctx, q, emit)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// read gives what there is. With a cursor journalctl counts lines from the cursor
// on, where the newest are asked for: then the counting is done here.
func (r *Reader) read(ctx context.Context, q unit.LogQuery, emit func(unit.LogEntry) error) error {
	if q.Lines == 0 {
		return nil
	}
	if q.Lines < 0 || (q.After == "" && q.Since.IsZero()) {
		return r.run(ctx, q, emit)
	}
	all := q
	all.Lines = -1
	last := make([]unit.LogEntry, 0, min(q.Lines, 1024))
	err := r.run(ctx, all, func(e unit.LogEntry) error {
		if len(last) == q.Lines {
			last = last[1:]
		}
		last = append(last, e)
		return nil
	})
	for _, e := range last {
		if err != nil {
			return err
		}
		err = emit(e)
	}
	return err
}

// follow gives what there is, which may be of boots before this one, and what comes.
// A journalctl that follows knows of this boot alone, so it reads twice and goes on at
// the cursor that it has come to.
func (r *Reader) follow(ctx context.Context, q unit.LogQuery, emit func(unit.LogEntry) error) error {
	if q.Lines == 0 {
		return r.run(ctx, q, emit)
	}
	before := q
	before.Follow = false
	err := r.read(ctx, before, func(e unit.LogEntry) error {
		q.After = e.Cursor
		return emit(e)
	})
	if err != nil {
		return err
	}
	q.Lines = -1
	return r.run(ctx, q, emit)
}

// args is journalctl's command line.
func (r *Reader) args(q unit.LogQuery) []string {
	args := []string{"--output=json", "--all", "--no-pager"}
	unitFlag := "--unit="
	if r.cfg.User {
		unitFlag = "--user-unit="
	}
	for _, u := range q.Units {
		args = append(args, unitFlag+u)
	}
	lines := "all"
	if q.Lines >= 0 {
		lines = strconv.Itoa(q.Lines)
	}
	args = append(args, "--lines="+lines)
	if q.Follow {
		args = append(args, "--follow")
	}
	// Since systemd 251 --follow means --boot too, and neither --boot=all nor --merge
	// takes that back in all versions. In a container journalctl would take the host's
	// boot for its own, see lifecycle.BootID. It counts after --follow only.
	if q.Follow && r.cfg.Boot != "" {
		args = append(args, "--boot="+r.cfg.Boot)
	}
	// It takes one of the two: with a cursor, run looks at the time.
	switch {
	case q.After != "" && q.Lines != 0:
		args = append(args, "--after-cursor="+q.After)
	case !q.Since.IsZero():
		args = append(args, "--since="+q.Since.UTC().Format("2006-01-02 15:04:05.000000 UTC"))
	}
	return args
}

// run runs journalctl once. The process has ended when it returns.
func (r *Reader) run(ctx context.Context, q unit.LogQuery, emit func(unit.LogEntry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.cfg.Program, r.args(q)...)
	cmd.WaitDelay = time.Second
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fault.Hint(fmt.Errorf("read the journal of %s: %w", strings.Join(q.Units, " "), err),
			"the journal is read with journalctl, which comes with systemd")
	}
	err = entries(out, q.Units, func(e unit.LogEntry) error {
		if e.Time.Before(q.Since) {
			return nil
		}
		return emit(e)
	})
	if err != nil {
		cancel() // nobody reads on: the process would block
	}
	waitErr := cmd.Wait()
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case waitErr != nil:
		return complain(q, waitErr, complaint.String())
	}
	return nil
}

// complain makes an error of what journalctl says.
func complain(q unit.LogQuery, err error, stderr string) error {
	words := strings.Join(strings.Fields(stderr), " ")
	wrapped := fmt.Errorf("read the journal of %s: journalctl: %w: %s", strings.Join(q.Units, " "), err, words)
	if strings.Contains(words, "permission") || strings.Contains(words, "not seeing messages") {
		return fault.Hint(wrapped, "be root, or a member of the group systemd-journal")
	}
	return wrapped
}

// entries reads journalctl's output line by line. Lines that are no objects are
// remarks such as "-- No entries --"; a last line without its end is half an entry
// of a journalctl that was told to stop.
func entries(r io.Reader, units []string, emit func(unit.LogEntry) error) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read the journal: %w", err)
		case line[0] != '{':
			continue
		}
		e, err := parse(line, units)
		if err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		if err := emit(e); err != nil {
			return err
		}
	}
}
