package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A contest is one piece of work that several do in turn: one round after the other, so
// that whatever else the machine does meets all of them.
type contest struct {
	what    string
	rounds  int
	prepare string // shell, once
	ours    runner
	others  []runner
}

// A runner does the work. Its scripts find the number of the round in $i.
type runner struct {
	name  string
	start string // until it is done; this is measured
	clean string // until nothing of it is left
}

// A score is what a contest has shown: for each round the time of each runner, ours first.
type score struct {
	contest
	took [][]time.Duration // by runner, by round
}

// hold runs the contest in one shell on the first machine and prints its scores.
func (b *bench) hold(c contest) error {
	var s strings.Builder
	s.WriteString("set -e\ncd /tmp\n" + c.prepare + "\n")
	fmt.Fprintf(&s, "for i in $(seq %d); do\n", c.rounds)
	for _, r := range c.runners() {
		// $EPOCHREALTIME is the shell's own: to ask date(1) is a start of its own.
		fmt.Fprintf(&s, "t=${EPOCHREALTIME/./}\n%s\nt=$(( ${EPOCHREALTIME/./} - t )); echo took $t >&3\n%s\n", r.start, r.clean)
	}
	s.WriteString("done")
	out, err := b.sh("exec 3>&1 >/dev/null\n" + s.String())
	if err != nil {
		return fmt.Errorf("%s: %w", c.what, err)
	}
	sc := score{contest: c}
	if sc.took, err = sortOut(out, len(c.runners()), c.rounds); err != nil {
		return fmt.Errorf("%s: %w", c.what, err)
	}
	fmt.Print(sc)
	return nil
}

func (c contest) runners() []runner { return append([]runner{c.ours}, c.others...) }

// sortOut reads lines of "took MICROSECONDS", those of one round after those of the one
// before.
func sortOut(text string, runners, rounds int) ([][]time.Duration, error) {
	took := make([][]time.Duration, runners)
	n := 0
	for line := range strings.Lines(text) {
		us, ok := strings.CutPrefix(strings.TrimSpace(line), "took ")
		if !ok {
			continue
		}
		v, err := strconv.ParseInt(us, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read a time: %w", err)
		}
		took[n%runners] = append(took[n%runners], time.Duration(v)*time.Microsecond)
		n++
	}
	if n != runners*rounds {
		return nil, fmt.Errorf("%d of %d times came back:\n%s", n, runners*rounds, text)
	}
	return took, nil
}

// manyRounds are enough to say something of the slowest.
const manyRounds = 50

// String is a line for each of the others: medians, the median of the rounds' ratios,
// and the lowest and the highest of them; and one more for the slowest of many.
func (s score) String() string {
	var b strings.Builder
	ours := s.took[0]
	for i, r := range s.others {
		theirs := s.took[i+1]
		var ratios []float64
		for k := range ours {
			ratios = append(ratios, float64(ours[k])/float64(theirs[k]))
		}
		slices.Sort(ratios)
		fmt.Fprintf(&b, "%-44s %10s   %-10s %10s   %5.2f (%.2f to %.2f of %d rounds)\n", s.what, rounded(quantile(ours, 0.5)),
			r.name, rounded(quantile(theirs, 0.5)), quantile(ratios, 0.5), ratios[0], ratios[len(ratios)-1], s.rounds)
		if s.rounds >= manyRounds {
			a, z := quantile(ours, 0.99), quantile(theirs, 0.99)
			fmt.Fprintf(&b, "%-44s %10s   %-10s %10s   %5.2f\n", "  p99", rounded(a), r.name, rounded(z), float64(a)/float64(z))
		}
	}
	return b.String()
}

func rounded(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
