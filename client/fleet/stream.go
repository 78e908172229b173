package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	api "flotilla/api/fleet"
)

// ExitCodeHeader is the header or trailer of GET /units/NAME/status that carries
// the exit code of systemctl status.
const ExitCodeHeader = "X-Exit-Code"

// ErrEnded: a watch ended though nobody asked for it, because the server stopped.
// Watch again: it begins with what is there.
var ErrEnded = errors.New("the stream ended")

// Watch yields what is there (units without options, states, machines), then a
// Change with only Synced set, then every change, until ctx is done or the stream
// breaks; the last pair of a broken stream has the error. With units it is about those,
// their states and rolls, and the machines; a server of an older release tells of all.
func (c *Client) Watch(ctx context.Context, units ...string) iter.Seq2[api.Change, error] {
	var q url.Values
	if len(units) > 0 {
		q = url.Values{"unit": units}
	}
	return func(yield func(api.Change, error) bool) {
		stopped := false
		err := stream(ctx, c, "/watch", q, func(ch api.Change) bool {
			stopped = !yield(ch, nil)
			return !stopped
		})
		switch {
		case stopped || ctx.Err() != nil:
			return
		case err == nil:
			err = &Error{Endpoint: c.target.name, Request: request(http.MethodGet, "/watch"), Code: http.StatusOK, Err: ErrEnded}
		}
		yield(api.Change{}, err)
	}
}

// LogEntry is one line of a unit's log.
type LogEntry = api.LogLine

// JournalOptions chooses entries of a unit's log.
type JournalOptions struct {
	Lines   *int   // at most so many of the newest; nil leaves the number to the server
	Follow  bool   // go on with new entries until the context is done
	Machine string // id of the machine whose log is meant; "" the one the unit is on
}

// Journal yields entries of a unit's log, oldest first. It ends after the last one,
// with Follow when ctx is done; the last pair of a broken stream has the error.
func (c *Client) Journal(ctx context.Context, unit string, o JournalOptions) iter.Seq2[LogEntry, error] {
	q := query("machine", o.Machine)
	if o.Lines != nil {
		q.Set("lines", strconv.Itoa(*o.Lines))
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	return sequence[LogEntry](ctx, c, unitPath(unit)+"/journal", q)
}

// sequence yields the lines of a stream; the last pair of a broken one has the
// error. That ctx is done is none.
func sequence[T any](ctx context.Context, c *Client, path string, q url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		stopped := false
		err := stream(ctx, c, path, q, func(item T) bool {
			stopped = !yield(item, nil)
			return !stopped
		})
		if err != nil && !stopped && ctx.Err() == nil {
			var none T
			yield(none, err)
		}
	}
}

// stream reads newline-delimited JSON until it ends, ctx is done or emit returns
// false. A line that holds an API error instead of a T ends it with that error:
// this is how a server says what broke after it had begun to answer.
func stream[T any](ctx context.Context, c *Client, path string, q url.Values, emit func(T) bool) error {
	start := time.Now()
	resp, err := c.open(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fail := &Error{Endpoint: c.target.name, Request: request(http.MethodGet, path), Code: resp.StatusCode}
	for dec := json.NewDecoder(resp.Body); ; {
		var line json.RawMessage
		var item T
		var bad api.ErrorBody
		err := dec.Decode(&line)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.Join(json.Unmarshal(line, &item), json.Unmarshal(line, &bad))
		}
		fail.Waited = time.Since(start)
		switch {
		case err != nil:
			fail.Err = plainCause(ctx, err)
			return fail
		case bad.Error.Code != 0:
			fail.Code = bad.Error.Code
			fail.say(bad.Error)
			return fail
		case !emit(item):
			return nil
		}
	}
}

// Status writes what "systemctl status" prints about the unit on its machine, or on
// the machine with the given id, and returns that command's exit code: 0 active, 3
// not active, 4 no such unit.
func (c *Client) Status(ctx context.Context, w io.Writer, unit, machine string) (int, error) {
	path := unitPath(unit) + "/status"
	resp, err := c.open(ctx, http.MethodGet, path, query("machine", machine), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	fail := &Error{Endpoint: c.target.name, Request: request(http.MethodGet, path), Code: resp.StatusCode}
	if _, err := io.Copy(w, resp.Body); err != nil {
		fail.Err = plainCause(ctx, err)
		return 0, fail
	}
	value := resp.Trailer.Get(ExitCodeHeader) // trailers are known only after the body
	if value == "" {
		value = resp.Header.Get(ExitCodeHeader)
	}
	code, err := strconv.Atoi(value)
	if err != nil {
		fail.Err = fmt.Errorf("%s is %q, not a number", ExitCodeHeader, value)
		return 0, fail
	}
	return code, nil
}
