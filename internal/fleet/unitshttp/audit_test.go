package unitshttp

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/model"
)

// Whoever is refused all the time does not fill the store, nor push out what others
// did; what was done is always told.
func TestRefusalsAreRationed(t *testing.T) {
	var events []model.Event
	s := New(Config{}, Deps{Events: func(e model.Event) { events = append(events, e) }, Log: slog.New(slog.DiscardHandler)})
	mallory, anna := access.Who{Name: "mallory", Role: access.Viewer, From: "10.0.0.9"}, access.Who{Name: "anna", Role: access.Admin}
	for range 1000 {
		s.note(mallory, act{what: "destroy: refused", why: "may not"}, errors.New("may not"))
	}
	s.note(anna, act{what: "destroy: failed"}, errors.New("no such unit"))
	for range 100 {
		s.note(anna, act{what: "destroyed"}, nil)
	}
	if len(events) != 20+1+100 || !strings.HasPrefix(events[20].By, "anna") {
		t.Errorf("%d events", len(events))
	}
	s.unmet.ration.Every = 1 // time goes by
	s.note(mallory, act{what: "destroy: refused", why: "may not"}, errors.New("may not"))
	if last := events[len(events)-1]; !strings.Contains(last.Why, "980 more requests of theirs") {
		t.Errorf("%+v", last)
	}
}
