package engine

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/fleet/model"
)

func TestAMachineIsLostAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.machines("a", "b", "c")
		s.engine()
		defer s.quit()
		s.said(" e: its engine leads now # ")
		s.unit("web.service", "v1")
		s.is("a/web.service v1")
		s.said("web.service a: placed # fewest units")
		s.report("")
		s.lose("a")
		time.Sleep(9 * time.Second)
		s.is("a/web.service v1")
		s.said(" a: fell silent # its lease is gone")
		time.Sleep(2 * time.Second)
		s.is("a/web.service v1", "b/web.service v1")
		s.said("web.service a: is to leave # moved to b")
		s.report("")
		s.is("b/web.service v1")
		s.said("web.service a: released # the unit is up on b")
		s.machines("a")
		synctest.Wait()
		s.is("b/web.service v1")
		s.said(" a: came back # it was away for 11s")
	})
}

func TestMovesAreHeldWhenMostMachinesVanish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.machines("a", "b", "c")
		s.engine()
		defer s.quit()
		s.unit("web.service", "v1")
		s.report("")
		s.lose("a", "b")
		time.Sleep(time.Minute)
		s.is("a/web.service v1")
		s.said(" : moves are held # 2 of 3 machines are away")
		if hold := s.get("engine/hold"); !strings.Contains(hold, "2 of 3 machines") {
			t.Errorf("the store says %q", hold)
		}
		// b is back: a is not lost yet for that.
		s.machines("b")
		time.Sleep(9 * time.Second)
		s.is("a/web.service v1")
		s.said(" : moves are not held any more")
		time.Sleep(2 * time.Second)
		s.is("a/web.service v1", "b/web.service v1")
	})
}

// A machine that is forgotten counts no more, so that moves go on; what it had is placed
// elsewhere at once.
func TestAForgottenMachineHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.machines("a", "b", "c")
		s.engine()
		defer s.quit()
		s.unit("web.service", "v1")
		s.unit("db.service", "v1")
		s.report("")
		s.is("a/web.service v1", "b/db.service v1")
		s.lose("a", "b")
		time.Sleep(time.Minute)
		s.is("a/web.service v1", "b/db.service v1")
		s.said(" : moves are held # 2 of 3 machines are away")
		s.put("schedule/a/web.service", "")
		s.put("ask/forget-1", `{"kind":"forget","machine":"a","by":"anna"}`)
		synctest.Wait()
		s.said(" a: forget was asked for # it counts no more among the machines")
		s.is("b/db.service v1", "c/web.service v1")
		if ask := s.get("ask/forget-1"); ask != "" {
			t.Errorf("still asked: %s", ask)
		}
		// One of two is away now, which is not more than half: b has its time anew.
		time.Sleep(11 * time.Second)
		s.is("b/db.service v1", "c/db.service v1", "c/web.service v1")
	})
}

// An engine that has just been elected has seen nobody leave.
func TestAfterAnElectionMovesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.machines("a", "b", "c")
		s.engine()
		s.unit("web.service", "v1")
		s.report("")
		s.quit()
		s.lose("a")
		time.Sleep(time.Hour)
		s.engine()
		defer s.quit()
		s.said(" e: its engine leads now # 1 of the machines that have units are away")
		time.Sleep(9 * time.Second)
		s.is("a/web.service v1")
		time.Sleep(2 * time.Second)
		s.is("a/web.service v1", "b/web.service v1")
	})
}

// rolled is a stage with three instances that run.
func rolled(t *testing.T) *stage {
	s := newStage(t)
	s.machines("a", "b", "c")
	s.engine()
	for _, name := range []string{"web@1.service", "web@2.service", "web@3.service"} {
		s.unit(name, "v1")
	}
	s.report("")
	s.is("a/web@1.service v1", "b/web@2.service v1", "c/web@3.service v1")
	return s
}

func (s *stage) change(version string) {
	for _, name := range []string{"web@1.service", "web@2.service", "web@3.service"} {
		s.unit(name, version)
	}
}

// A roll goes on under another engine where it stood.
func TestARollSurvivesTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := rolled(t)
		s.change("v2")
		s.is("a/web@1.service v2", "b/web@2.service v1", "c/web@3.service v1")
		s.report("")
		s.is("a/web@1.service v2", "b/web@2.service v2", "c/web@3.service v1")
		s.quit()
		s.engine()
		defer func() { s.quit() }()
		time.Sleep(time.Second)
		s.is("a/web@1.service v2", "b/web@2.service v2", "c/web@3.service v1")
		s.report("")
		s.is("a/web@1.service v2", "b/web@2.service v2", "c/web@3.service v2")
		s.report("")
		s.said("web@.service : the roll is done # 3 of 3 changed")
		if r := s.get("roll/web@.service"); !strings.Contains(r, `"state":"done"`) || !strings.Contains(r, `"by":"ann"`) {
			t.Errorf("the record is %s", r)
		}
	})
}

func TestABadVersionGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := rolled(t)
		defer s.quit()
		s.change("v2")
		s.report("")
		s.report("v2") // the second is bad, and the first turns bad
		s.report("v2")
		s.report("v2")
		s.is("a/web@1.service v1", "b/web@2.service v1", "c/web@3.service v1")
		s.said("web@1.service a: the roll of web@.service failed and goes back # exited")
		if r := s.get("roll/web@.service"); !strings.Contains(r, `"state":"reverted"`) || !strings.Contains(r, "no such file") {
			t.Errorf("the record is %s", r)
		}
		want := "web@1.service: reverted: web@1.service on a: exited"
		if len(s.applied) != 3 || s.applied[0] != want {
			t.Errorf("written were %q", s.applied)
		}
		if text := s.get("job/web@3.service/object"); !strings.Contains(text, "v1") {
			t.Errorf("web@3 is %s", text)
		}
	})
}

// A roll that cannot be written down waits, and what else is to be decided does not.
func TestARollThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := rolled(t)
		defer s.quit()
		s.unit("api.service", "v1")
		s.report("")
		s.mu.Lock()
		s.tooLarge = "web@.service"
		s.mu.Unlock()
		s.unit("web@1.service", "v2")
		s.unit("other.service", "v1")
		s.unit("api.service", "v2")
		s.is("a/web@1.service v1", "b/web@2.service v1", "c/web@3.service v1", "a/api.service v2", "b/other.service v1")
		s.said("web@.service : the roll cannot be written down and waits # its record is too large")
		s.report("")
		n := 0
		s.mu.Lock()
		for _, e := range s.events {
			if e.Unit == "web@.service" {
				n++
			}
		}
		s.tooLarge = ""
		s.mu.Unlock()
		if n != 1 {
			t.Errorf("it is told %d times", n)
		}
		s.unit("another.service", "v1")
		s.is("a/web@1.service v2", "b/web@2.service v1", "c/web@3.service v1", "a/api.service v2", "b/other.service v1", "c/another.service v1")
	})
}

func TestFailuresAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.machines("a")
		s.engine()
		defer s.quit()
		s.unit("web.service", "v1")
		for range 3 {
			s.report("v1")
		}
		s.said("web.service a: failed # exited")
		n := 0
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.events {
			if e.Kind == model.Failure {
				n++
			}
		}
		if n != 1 {
			t.Errorf("it is told %d times", n)
		}
	})
}

// What is old goes; what nobody understands goes, too, and it is said.
func TestTidy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.put("destroyed/old.service", toJSON(map[string]time.Time{"at": time.Now().Add(-25 * time.Hour)}))
		s.put("destroyed/new.service", toJSON(map[string]time.Time{"at": time.Now()}))
		s.put("ask/dance-1", `{"kind":"dance","by":"ann"}`)
		s.engine()
		defer s.quit()
		synctest.Wait()
		if s.get("destroyed/old.service") != "" || s.get("destroyed/new.service") == "" || s.get("ask/dance-1") != "" {
			t.Errorf("left is %v", s.values)
		}
		s.said(" : something was asked of the engine that it does not know # dance")
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if s.get("destroyed/new.service") != "" || s.trimmed < 100 {
			t.Errorf("after a day %v, trimmed %d times", s.values, s.trimmed)
		}
	})
}

// At rest an engine writes nothing.
func TestIdleEngineWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := rolled(t)
		defer s.quit()
		s.change("v2")
		for range 4 {
			s.report("")
		}
		rev, events := s.counts()
		time.Sleep(6 * 24 * time.Hour)
		if r, e := s.counts(); r != rev || e != events {
			t.Errorf("%d writes and %d events in six days", r-rev, e-events)
		}
		time.Sleep(2 * 24 * time.Hour)
		if s.get("roll/web@.service") != "" {
			t.Error("the record of the roll stays")
		}
	})
}

// A machine that is drained is left by one unit after the other, and it is said when
// it is empty.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.machines("a", "b")
		s.engine()
		defer s.quit()
		for _, name := range []string{"x.service", "y.service", "z.service"} {
			s.unit(name, "v1")
		}
		s.report("")
		s.is("a/x.service v1", "b/y.service v1", "a/z.service v1")
		s.put("machines/a/cordon", `{"drain":true}`)
		synctest.Wait()
		s.is("a/x.service v1", "b/x.service v1", "b/y.service v1", "a/z.service v1")
		s.report("")
		s.report("")
		s.is("b/x.service v1", "b/y.service v1", "b/z.service v1")
		s.said(" a: drained # ")
	})
}
