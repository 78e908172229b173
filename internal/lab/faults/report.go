package faults

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Report is what a run saw.
type Report struct {
	Seed uint64
	For  time.Duration // faults were injected
	Took time.Duration // with the wait for the last recovery

	OK, Failed, Unknown, Unsent int // requests: carried out, refused, without an answer, never sent
	PerVerb                     map[Verb]int
	Injected                    []Injected
	Verdict                     Verdict
	Watchers, Events, Resumed   int // events are those of all watchers together
	// Behind are the watchers that were still being told of changes one by one when the
	// run was over, and how far they were.
	Behind []string
	// Longest is the longest time without a write that succeeded, and LongestAt when
	// it began.
	Longest, LongestAt time.Duration
	// gaps are, for each step, the longest such time that began during it.
	gaps []time.Duration

	// Violations are what the store may not do; none is what is wanted.
	Violations []string
	// Files are where what led to a violation was written to.
	Files []string
}

// Sound reports whether the store did no wrong, everything could be judged, and every
// fault could be injected.
func (r *Report) Sound() bool {
	return len(r.Violations) == 0 && len(r.Verdict.Undecided) == 0 &&
		!slices.ContainsFunc(r.Injected, func(in Injected) bool { return in.Err != nil })
}

func (r *Report) count(calls []Call, unsent int) {
	r.Unsent, r.PerVerb = unsent, map[Verb]int{}
	var writes []time.Duration
	for _, c := range calls {
		r.PerVerb[c.Verb]++
		switch {
		case c.Answer.Unknown:
			r.Unknown++
		case c.Answer.Code != 0:
			r.Failed++
		default:
			r.OK++
		}
		if c.write() && c.acked() {
			writes = append(writes, c.End)
		}
	}
	slices.Sort(writes)
	r.outages(append(writes, r.For))
}

// outages finds the longest times between two writes that succeeded, given their
// times in order.
func (r *Report) outages(writes []time.Duration) {
	r.gaps = make([]time.Duration, len(r.Injected))
	before := time.Duration(0)
	for _, w := range writes {
		if gap := w - before; gap > r.Longest {
			r.Longest, r.LongestAt = gap, before
		}
		for i, in := range r.Injected {
			if before <= in.Ended && w >= in.Began {
				r.gaps[i] = max(r.gaps[i], w-before)
			}
		}
		before = w
	}
}

// Judge adds what the model and the watch checks say of a history. A picture of each
// wrong file's history goes to dir; the error says that it could not be written.
func (r *Report) Judge(calls []Call, watched []Watched, dir string) error {
	told := map[string]bool{}
	for _, w := range watched {
		for _, e := range w.Events {
			told[e.Value] = true
		}
		r.Events += len(w.Events)
		r.Violations = append(r.Violations, CheckWatch(w, calls)...)
	}
	r.Watchers = len(watched)
	r.Violations = append(r.Violations, CompareWatches(watched)...)
	var errs []error
	r.Verdict = Judge(calls, told, judgeLimit, func(key string, info porcupine.LinearizationInfo) {
		path := filepath.Join(dir, "history"+strings.ReplaceAll(key, "/", "-")+".html")
		errs = append(errs, porcupine.VisualizePath(model, info, path))
		r.Files = append(r.Files, path)
		r.Violations = append(r.Violations, "no order of the requests explains the answers: "+key)
	})
	return errors.Join(errs...)
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "seed %d: %s of faults, %s in all\n", r.Seed, seconds(r.For), seconds(r.Took))
	fmt.Fprintf(w, "requests         %d: %d carried out, %d refused, %d without an answer; %d more were never sent\n",
		r.OK+r.Failed+r.Unknown, r.OK, r.Failed, r.Unknown, r.Unsent)
	var verbs []string
	for _, v := range sortedKeysOf(r.PerVerb) {
		verbs = append(verbs, fmt.Sprintf("%s %d", v, r.PerVerb[v]))
	}
	fmt.Fprintf(w, "                 %s\n", strings.Join(verbs, ", "))
	r.printFaults(w)
	fmt.Fprintf(w, "linearizable     %s\n", r.Verdict)
	fmt.Fprintf(w, "watches          %d watchers, %d changes told, %d times resumed\n", r.Watchers, r.Events, r.Resumed)
	if len(r.Behind) > 0 {
		fmt.Fprintf(w, "                 still behind at the end: %s changes\n", strings.Join(r.Behind, ", "))
	}
	fmt.Fprintf(w, "without a write  %s at most, from %s on\n", seconds(r.Longest), seconds(r.LongestAt))
	fmt.Fprintf(w, "violations       %d\n", len(r.Violations))
	for _, v := range r.Violations {
		fmt.Fprintf(w, "  %s\n", v)
	}
	for _, f := range r.Files {
		fmt.Fprintf(w, "  see %s\n", f)
	}
}

func (v Verdict) String() string {
	s := fmt.Sprintf("%d files", v.Keys)
	if len(v.Wrong)+len(v.Undecided) == 0 {
		return s + ", all are"
	}
	return fmt.Sprintf("%s, %d ARE NOT, %d undecided: %s", s, len(v.Wrong), len(v.Undecided), strings.Join(append(slices.Clone(v.Wrong), v.Undecided...), " "))
}

// kindStats is what the steps with a kind of fault, alone or with another, came to.
type kindStats struct {
	times, machines, late int
	gap, recovered        time.Duration
}

func (r *Report) perKind() map[Kind]kindStats {
	out := map[Kind]kindStats{}
	for i, in := range r.Injected {
		kinds := map[Kind]int{} // and the machines of each
		for _, f := range in.Step.Faults {
			kinds[f.Kind] = 0
		}
		for _, what := range in.What {
			kind, _, _ := strings.Cut(what, " of ")
			kinds[Kind(kind)]++
		}
		for kind, machines := range kinds {
			k := out[kind]
			k.times++
			k.machines += machines
			if in.Recovered < 0 {
				k.late++
			}
			k.gap, k.recovered = max(k.gap, r.gaps[i]), max(k.recovered, in.Recovered)
			out[kind] = k
		}
	}
	return out
}

func (r *Report) printFaults(w io.Writer) {
	total, failed := 0, 0
	for _, in := range r.Injected {
		total += len(in.What)
		if in.Err != nil {
			failed++
			fmt.Fprintf(w, "could not be injected or ended: %v\n", in.Err)
		}
	}
	fmt.Fprintf(w, "faults           %d in %d steps, %d steps failed\n", total, len(r.Injected), failed)
	fmt.Fprintf(w, "  %-16s %5s %8s %22s %22s\n", "", "steps", "machines", "longest without write", "longest to recover")
	stats := r.perKind()
	for _, k := range sortedKeysOf(stats) {
		s := stats[k]
		recovered := seconds(s.recovered)
		if s.late > 0 {
			recovered = fmt.Sprintf("%s, %d not before next", recovered, s.late)
		}
		fmt.Fprintf(w, "  %-16s %5d %8d %22s %22s\n", k, s.times, s.machines, seconds(s.gap), recovered)
	}
}

func sortedKeysOf[K ~string, V any](m map[K]V) []K {
	var out []K
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
