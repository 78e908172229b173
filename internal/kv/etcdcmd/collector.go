package etcdcmd

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// How much garbage may pile up before it is collected: as much as there is live
// data, which is Go's default; but some 96 MB of it while there is less data, and never
// more than twice the data. On a small store under load, collecting takes a sixth of the
// processor with the default; with four times the data, of which a member that serves a
// fleet has some 12 MB, it would be of more than 80 MB after a few hundred starts. An idle
// store collects every two minutes whatever the percentage.
const (
	room      = 96 << 20 // bytes
	leastRoom = 100      // percent of the live data
	mostRoom  = 200
)

// roomPercent is what GOGC should be for so many bytes of live data.
func roomPercent(live uint64) int {
	if live == 0 {
		return mostRoom
	}
	return int(min(max(room*100/live, leastRoom), mostRoom))
}

// giveRoom keeps GOGC at that until ctx ends. Who has set GOGC is left alone.
func giveRoom(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	now := mostRoom
	before := debug.SetGCPercent(now)
	defer debug.SetGCPercent(before)
	collected := make(chan struct{}, 1)
	afterCollection(ctx, collected)
	for {
		select {
		case <-collected:
		case <-ctx.Done():
			return
		}
		metrics.Read(live)
		// To set it stops the world for a moment: not for the sake of a little.
		if want := roomPercent(live[0].Value.Uint64()); want > now+now/8 || want < now-now/8 {
			debug.SetGCPercent(want)
			now = want
		}
	}
}

// afterCollection tells, until ctx ends, whenever the garbage has been collected: only
// then is it known anew how much live data there is.
func afterCollection(ctx context.Context, collected chan<- struct{}) {
	if ctx.Err() != nil {
		return
	}
	runtime.AddCleanup(new([16]byte), func(collected chan<- struct{}) {
		select {
		case collected <- struct{}{}:
		default:
		}
		afterCollection(ctx, collected)
	}, collected)
}
