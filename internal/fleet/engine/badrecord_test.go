package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// The record of a roll that cannot be read stands in the way of no decision, and the
// next roll is written in its place.
func TestABadRollRecordStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := rolled(t)
		defer s.quit()
		s.put("roll/web@.service", `{"state":"from a later version"}`)
		s.change("v2")
		s.unit("other.service", "v1")
		s.is("a/web@1.service v2", "b/web@2.service v1", "c/web@3.service v1", "a/other.service v1")
	})
}

// Old texts that the store will not take are waited for by their roll alone.
func TestTextsThatCannotBePutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := rolled(t)
		defer s.quit()
		s.mu.Lock()
		s.refuses = errors.New("request is too large")
		s.mu.Unlock()
		s.change("v2")
		s.report("v2")
		s.unit("other.service", "v1")
		s.is("a/web@1.service v2", "b/web@2.service v1", "c/web@3.service v1", "a/other.service v1")
		s.mu.Lock()
		s.refuses = nil
		s.mu.Unlock()
		time.Sleep(time.Minute)
		s.is("a/web@1.service v1", "b/web@2.service v1", "c/web@3.service v1", "a/other.service v1")
	})
}
