package unitshttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/model"
)

type whoKey struct{}

func withWho(ctx context.Context, who access.Who) context.Context {
	return context.WithValue(ctx, whoKey{}, who)
}

// whoOf is who sent the request; the zero value, who may do nothing, before serve
// has found out.
func whoOf(r *http.Request) access.Who {
	who, _ := r.Context().Value(whoKey{}).(access.Who)
	return who
}

// act is one thing that a request did, or failed to do.
type act struct {
	unit, machine string // "" none
	what          string // "destroyed"
	why           string
}

// audited carries out a request that changes something: it is decided whether it is
// allowed, done, and written down, whatever came of it. what is the request if it
// fails; done are what it did, one for each unit.
func (s *Server) audited(r *http.Request, req access.Request, what act, do func(ctx context.Context, by string) (done []act, err error)) error {
	who := whoOf(r)
	var done []act
	err := access.Decide(who, req)
	if err == nil {
		done, err = do(r.Context(), who.Name)
	}
	if err != nil {
		outcome := ": failed"
		if errors.As(err, new(*access.Denied)) {
			outcome = ": refused"
		}
		what.what, what.why = cmp.Or(what.what, req.Doing)+outcome, err.Error()
		done = []act{what}
	}
	for _, a := range done {
		s.note(who, a, err)
	}
	return err
}

// note writes one act down: in the log of this daemon and among the cluster's
// events.
func (s *Server) note(who access.Who, a act, err error) {
	args := []any{"by", who.Name, "role", string(who.Role), "from", who.From, "what", a.what}
	for _, pair := range [][2]string{{"unit", a.unit}, {"machine", a.machine}, {"why", a.why}} {
		if pair[1] != "" {
			args = append(args, pair[0], pair[1])
		}
	}
	if err != nil {
		s.Log.Warn("audit", args...)
	} else {
		s.Log.Info("audit", args...)
	}
	if s.Events == nil {
		return
	}
	if err != nil {
		ok, held := s.unmet.take(who)
		if !ok {
			return
		}
		if held > 0 {
			a.why = fmt.Sprintf("%s (and %d more requests of theirs before it that failed or were refused: see the logs)", a.why, held)
		}
	}
	s.Events(model.Event{
		At: time.Now(), Kind: model.Request, Unit: short(a.unit), Machine: short(a.machine),
		What: short(a.what), Why: short(a.why), By: short(who.String()),
	})
}

// unmet bounds how many events are written of requests that change nothing. The log
// has them all.
type unmet struct {
	mu     sync.Mutex
	ration access.Ration
}

func newUnmet() *unmet {
	return &unmet{ration: access.Ration{Burst: 20, Every: 10 * time.Second, Callers: 100}}
}

func (u *unmet) take(who access.Who) (ok bool, held int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ration.Take(string(who.Role)+" "+who.Name, time.Now())
}

func (s *Server) whoami(w http.ResponseWriter, r *http.Request) error {
	who := whoOf(r)
	reply(w, http.StatusOK, fleet.WhoAmI{Name: who.Name, Role: string(who.Role), Prefix: who.Prefixes})
	return nil
}
