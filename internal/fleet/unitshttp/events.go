package unitshttp

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
)

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	filter := registry.EventFilter{Unit: q.Get("unit")}
	var follow bool
	var err error
	if id := q.Get("machine"); id != "" {
		if filter.Machine, err = s.machineID(r.Context(), id); err != nil {
			return err
		}
	}
	if filter.Since, err = instant(q, "since", time.Now()); err != nil {
		return err
	}
	if follow, err = truth(q, "follow"); err != nil {
		return err
	}
	if filter.Limit, err = number(q, "lines", 0, 0, maxLines); err != nil {
		return err
	}
	out := newLines(w, follow)
	if !follow {
		all, err := s.Store.ReadEvents(r.Context(), filter)
		if err != nil {
			return err
		}
		for _, e := range all {
			if err := out.write(eventOf(e)); err != nil {
				return nil // the client has gone away
			}
		}
		out.end(nil)
		return nil
	}
	if err := s.answers(r.Context()); err != nil {
		return err
	}
	out.begin()
	if out.flush() == nil {
		// It ends with the request.
		_ = s.Store.FollowEvents(r.Context(), filter, func(e model.Event) error { return out.write(eventOf(e)) })
	}
	return nil
}

// answers returns why the store cannot be read: a stream that has begun cannot tell.
func (s *Server) answers(ctx context.Context) error {
	_, err := s.Store.ReadMachines(ctx)
	return err
}

func eventOf(e model.Event) fleet.Event {
	return fleet.Event{
		At: e.At.UTC(), Kind: string(e.Kind), Unit: e.Unit, Machine: e.Machine, What: e.What, Why: e.Why, By: e.By,
	}
}

// maxLines bounds how many entries may be asked for by number.
const maxLines = 1_000_000

// number reads a parameter that is a number from low to high; otherwise stands for
// none.
func number(q url.Values, name string, otherwise, low, high int) (int, error) {
	v := q.Get(name)
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return 0, refuse(http.StatusBadRequest, "%s: %q is not a number from %d to %d", name, v, low, high)
	}
	return n, nil
}

// truth reads a parameter that is true or false; false stands for none.
func truth(q url.Values, name string) (bool, error) {
	v := q.Get(name)
	if v == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, refuse(http.StatusBadRequest, "%s: %q is neither true nor false", name, v)
	}
	return b, nil
}

// instant reads a parameter that is a time (RFC 3339), or a span before now such as
// 1h30m. The zero time stands for none.
func instant(q url.Values, name string, now time.Time) (time.Time, error) {
	v := q.Get(name)
	if v == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, v); err == nil {
		return at, nil
	}
	if ago, err := time.ParseDuration(v); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, refuse(http.StatusBadRequest, "%s: %q is neither a time such as 2026-01-02T15:04:05Z nor a span such as 1h30m", name, v)
}
