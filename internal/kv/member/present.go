package member

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"flotilla/internal/kv/whereabouts"
)

// leaderlessFor is for how long nobody has led, as a person says it: " for 3s", or ""
// while that is not known.
func (s *scout) leaderlessFor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaderless.IsZero() {
		return ""
	}
	return " for " + time.Since(s.leaderless).Round(time.Second).String()
}

// noteLeader keeps account of since when nobody leads.
func (s *scout) noteLeader(there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case there:
		s.leaderless = time.Time{}
	case s.leaderless.IsZero():
		s.leaderless = time.Now()
	}
}

// count asks all other members on their peer ports. It returns how many members
// there are, and how many answer; this one is among both.
func (s *scout) count(ctx context.Context) (members, answer int) {
	me, ok := s.me()
	if !ok {
		return 0, 0
	}
	body, err := json.Marshal(me)
	if err != nil {
		s.log.Error("cannot write this member's card", "err", err)
		return 0, 0
	}
	recorded := s.view().Recorded
	var wg sync.WaitGroup
	there := make([]bool, len(recorded))
	for i, m := range recorded {
		wg.Go(func() { there[i] = m.ID == me.ID || s.answers(ctx, m, body) })
	}
	wg.Wait()
	for _, ok := range there {
		if ok {
			answer++
		}
	}
	return len(recorded), answer
}

// answers reports whether the member answers at one of its recorded addresses.
func (s *scout) answers(ctx context.Context, m whereabouts.Member, body []byte) bool {
	for _, u := range m.PeerURLs {
		if c, err := s.askOne(ctx, u, body); err == nil && c.ID == m.ID {
			return true
		}
	}
	return false
}

// present says how many of the members answer, for a person.
func (s *scout) present(ctx context.Context) string {
	members, answer := s.count(ctx)
	return fmt.Sprintf("%d of %d members reachable, this one among them", answer, members)
}
