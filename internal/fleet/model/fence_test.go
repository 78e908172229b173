package model

import (
	"math"
	"testing"
	"time"
)

func TestMovesAfter(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		req     Requirements
		cluster time.Duration
		want    time.Duration
		ever    bool
	}{
		{Requirements{}, 0, 10 * s, true},
		{Requirements{}, 30 * s, 30 * s, true},
		{Requirements{}, -1, 0, false},
		{Requirements{MoveAfter: 1 * s}, 30 * s, 1 * s, true},
		{Requirements{MoveAfter: 1 * s}, -1, 1 * s, true},
		{Requirements{MoveAfter: -1}, 30 * s, 0, false},
		{Requirements{Singleton: true, MoveAfter: 1 * s}, 0, 5 * s, true},
		{Requirements{Singleton: true}, 0, 10 * s, true},
	} {
		after, ever := c.req.MovesAfter(c.cluster)
		if after != c.want || ever != c.ever {
			t.Errorf("%+v in a cluster with %v: %v, %v", c.req, c.cluster, after, ever)
		}
	}
}

func TestFence(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		req        Requirements
		after      time.Duration
		stop, kill time.Duration
		fenced     bool
	}{
		{Requirements{Singleton: true}, 10 * s, 15 * s, 18 * s, true},
		{Requirements{Singleton: true, MoveAfter: 1}, 5 * s, 10 * s, 13 * s, true}, // not before the lease is over
		{Requirements{Singleton: true, MoveAfter: -1}, Forever, 0, 0, false},
		{Requirements{}, 0, 10 * s, 13 * s, true}, // an entry that says nothing
	} {
		after := c.req.FencedBy(0)
		stop, kill, fenced := Fence(10*s, after)
		if after != c.after || stop != c.stop || kill != c.kill || fenced != c.fenced {
			t.Errorf("%+v: after %v, stop %v, kill %v, %v", c.req, after, stop, kill, fenced)
		}
	}
}

func TestWait(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		p    Placement
		want time.Duration
		ever bool
	}{
		{Placement{MoveAfter: 10 * s}, 10 * s, true},
		{Placement{MoveAfter: 10 * s, WaitFor: 60 * s}, 60 * s, true},
		{Placement{MoveAfter: 10 * s, WaitFor: Forever}, Forever, false},
		{Placement{MoveAfter: Forever}, Forever, false},
		{Placement{}, 0, false}, // its machine does not know that it is a singleton
	} {
		if got, ever := c.p.Wait(); got != c.want || ever != c.ever {
			t.Errorf("%+v: %v, %v", c.p, got, ever)
		}
	}
}

// A span of nothing is said, and is not the cluster's.
func TestMoveAtOnce(t *testing.T) {
	req := NewUnit("a.service", "[X-Fleet]\nMoveAfter=0\n", Launched, 1).Req
	if after, ever := req.MovesAfter(30 * time.Second); !ever || after > time.Microsecond {
		t.Errorf("it moves after %v (%v)", after, ever)
	}
}

// A span that is as good as for ever is for ever, and is not added up to one in the past.
func TestSpansWithoutEnd(t *testing.T) {
	const singleton = "[Service]\nExecStart=/bin/true\n[X-Fleet]\nSingleton=true\nMoveAfter="
	for _, span := range []string{"never", "infinity", "1000y", "292y"} {
		req := NewUnit("a.service", singleton+span+"\n", Launched, 1).Req
		if after, ever := req.MovesAfter(0); ever {
			t.Errorf("%s: it moves after %v", span, after)
		}
		if by := req.FencedBy(0); by != Forever {
			t.Errorf("%s: it is fenced by %v", span, by)
		}
	}
	if after, ever := (Requirements{}).MovesAfter(math.MaxInt64); ever {
		t.Errorf("the cluster's: it moves after %v", after)
	}
	if stop, kill, fenced := Fence(10*time.Second, math.MaxInt64); fenced {
		t.Errorf("it is stopped after %v and killed after %v", stop, kill)
	}
	roll := NewUnit("a.service", "[X-Fleet]\nHealthyAfter=infinity\nHealthyTimeout=infinity\n", Launched, 1).Req.Roll
	if roll.HealthyAfter+roll.HealthyTimeout < 0 || 2*roll.HealthyTimeout+time.Hour < 0 {
		t.Errorf("%+v cannot be added up", roll)
	}
}
