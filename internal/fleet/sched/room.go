package sched

import (
	"fmt"
	"strconv"
	"strings"

	"flotilla/internal/fleet/model"
)

// amount is what units ask for: thousandths of a processor, and bytes.
type amount struct{ cores, memory int64 }

func (a amount) plus(b amount) amount  { return amount{a.cores + b.cores, a.memory + b.memory} }
func (a amount) minus(b amount) amount { return amount{a.cores - b.cores, a.memory - b.memory} }

// asks is what the unit asks for.
func (j *job) asks() amount { return amount{j.Req.Cores, j.Req.Memory} }

// usedBeside is what is asked for by all that is on m but j.
func (m *machine) usedBeside(j *job) amount {
	if e := j.on(m); e != nil && e.in != nil {
		return m.used.minus(j.asks())
	}
	return m.used
}

// hasRoom reports whether more fits on m beside used. Of what a unit does not ask
// for, or a machine does not tell its size, there is always enough.
func (m *machine) hasRoom(used, more amount) bool {
	return (more.cores == 0 || m.Cores == 0 || used.cores+more.cores <= m.Cores) &&
		(more.memory == 0 || m.Memory == 0 || used.memory+more.memory <= m.Memory)
}

// room says whether j fits on m beside what is there, or will when that which is
// about to leave has left.
func (m *machine) room(j *job) kind {
	asks := j.asks()
	if asks == (amount{}) {
		return fits
	}
	used := m.usedBeside(j)
	if m.hasRoom(used, asks) {
		return fits
	}
	for _, e := range m.leaving {
		if e.job != j && e.job.home() != nil {
			used = used.minus(e.job.asks())
		}
	}
	if m.hasRoom(used, asks) {
		return lacksRoomYet
	}
	return lacksRoom
}

// share is how full m would be with j, or is if j is nil: the larger of its shares of
// cores and memory that units ask for. A size that is not told counts as boundless.
func (m *machine) share(j *job) float64 {
	share, _ := m.fullest(j)
	return share
}

// shareText is share for people, with what it is a share of. What units ask for is meant: what they use nobody knows here.
func (m *machine) shareText(j *job) string {
	share, what := m.fullest(j)
	verb := "is"
	if what == "cores" {
		verb = "are"
	}
	text := fmt.Sprintf("%.0f%% of the %s %s asked for", 100*share, what, verb)
	if j.asks() == (amount{}) {
		return text
	}
	return "with it " + text
}

// fullest is share, and of what it is.
func (m *machine) fullest(j *job) (share float64, what string) {
	what = "cores"
	if m.Cores == 0 && m.Memory == 0 {
		return 0, what
	}
	used := m.used
	if j != nil {
		used = m.usedBeside(j).plus(j.asks())
	}
	if m.Cores > 0 {
		share = float64(used.cores) / float64(m.Cores)
	}
	if memory := float64(used.memory) / float64(max(1, m.Memory)); m.Memory > 0 && memory > share {
		share, what = memory, "memory"
	}
	return share, what
}

// shortage says in numbers what j needs, and what m has of it.
func (m *machine) shortage(j *job) (needs, has string) {
	used, asks := m.usedBeside(j), j.asks()
	var need, have []string
	tell := func(asked, used, size int64, what string, text func(int64) string) {
		if asked > 0 && size > 0 && used+asked > size {
			need = append(need, text(asked)+" "+what)
			have = append(have, fmt.Sprintf("%s of %s free", text(max(0, size-used)), text(size)))
		}
	}
	tell(asks.cores, used.cores, m.Cores, "cores", coresText)
	tell(asks.memory, used.memory, m.Memory, "memory", bytesText)
	return "needs " + strings.Join(need, " and "), strings.Join(have, " and ")
}

// coresText is thousandths of a processor for people: 0.5.
func coresText(n int64) string { return strconv.FormatFloat(float64(n)/1000, 'f', -1, 64) }

// bytesText is bytes for people: 1.2G.
func bytesText(n int64) string {
	size, unit := float64(n), ""
	for _, u := range []string{"K", "M", "G", "T"} {
		if size < 1024 {
			break
		}
		size, unit = size/1024, u
	}
	return strings.TrimSuffix(strconv.FormatFloat(size, 'f', 1, 64), ".0") + unit
}

// cordonText is why a machine takes nothing new.
func cordonText(c *model.Cordon) string {
	if c.Why == "" {
		return ""
	}
	return "(" + c.Why + ")"
}
