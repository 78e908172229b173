package model

import (
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
		stop, kill time.Duration
		fenced     bool
	}{
		{Requirements{Singleton: true}, 15 * s, 18 * s, true},
		{Requirements{Singleton: true, MoveAfter: 1}, 10 * s, 13 * s, true}, // not before the lease is over
		{Requirements{Singleton: true, MoveAfter: -1}, 0, 0, false},
		{Requirements{}, 0, 0, false},
	} {
		stop, kill, fenced := c.req.Fence(10*s, 0)
		if stop != c.stop || kill != c.kill || fenced != c.fenced {
			t.Errorf("%+v: stop %v, kill %v, %v", c.req, stop, kill, fenced)
		}
	}
}
