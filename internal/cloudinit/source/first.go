package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"flotilla/internal/fault"
)

// Polling is how First asks. The zero value asks as coreos-cloudinit did, and tells
// nobody.
type Polling struct {
	Pause   time.Duration // after the first question, then doubling; 0 is 100 ms
	Longest time.Duration // pause between two questions; 0 is 30 s
	Total   time.Duration // until First gives up; 0 is 5 min
	Once    bool          // a source that is not there is not asked again

	// Report is told about every question. It is not called concurrently, and not
	// after First has returned.
	Report func(Attempt)
}

// An Attempt is one question whether a source is available, and its answer.
type Attempt struct {
	Source Source
	Number int           // counts from 1
	Err    error         // nil if it is available
	Again  time.Duration // until the next question; 0 if there will be none
}

func (p Polling) withDefaults() Polling {
	if p.Pause <= 0 {
		p.Pause = 100 * time.Millisecond
	}
	if p.Longest <= 0 {
		p.Longest = 30 * time.Second
	}
	if p.Total <= 0 {
		p.Total = 5 * time.Minute
	}
	if p.Report == nil {
		p.Report = func(Attempt) {}
	}
	return p
}

// First asks all sources side by side whether they are available, again and again unless
// once is asked for, and returns the first that is. It fails when none is after p.Total, when none can become
// available (ErrNever), and when ctx is done; the error says for each source what kept
// it.
func First(ctx context.Context, sources []Source, p Polling) (Source, error) {
	if len(sources) == 0 {
		return nil, fault.Hint(errors.New("no source of a document is given"), "name one: a file, a URL, a drive or a metadata service")
	}
	p = p.withDefaults()
	polling, cancel := context.WithTimeout(ctx, p.Total)
	defer cancel()

	answers := make(chan answer)
	for i, s := range sources {
		go poll(polling, s, p, func(a Attempt) {
			select {
			case answers <- answer{i, a}:
			case <-polling.Done():
			}
		})
	}
	last := make([]error, len(sources))
	for open := len(sources); open > 0; {
		select {
		case a := <-answers:
			p.Report(a.Attempt)
			if a.Err == nil {
				return a.Source, nil
			}
			last[a.of] = a.Err
			if a.Again == 0 {
				open--
			}
		case <-polling.Done():
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("wait for a source: %w", context.Cause(ctx))
			}
			return nil, none(sources, last, fmt.Sprintf("within %v", p.Total))
		}
	}
	return nil, none(sources, last, "on this machine")
}

// answer is an attempt of the source at an index.
type answer struct {
	of int
	Attempt
}

// poll asks one source until it is available, never will be, or ctx is done.
func poll(ctx context.Context, s Source, p Polling, tell func(Attempt)) {
	pause := p.Pause
	for n := 1; ; n++ {
		a := Attempt{Source: s, Number: n, Err: s.Available(ctx)}
		if a.Err != nil && !p.Once && !errors.Is(a.Err, ErrNever) {
			a.Again = pause
		}
		tell(a)
		if a.Again == 0 {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, p.Longest)
	}
}

// none is the error that no source became available.
func none(sources []Source, last []error, when string) error {
	var why []string
	for i, s := range sources {
		err := last[i]
		if err == nil {
			err = errors.New("no answer")
		}
		why = append(why, fmt.Sprintf("%s: %v", s.Type(), err))
	}
	err := fmt.Errorf("no source became available %s: %s", when, strings.Join(why, "; "))
	for _, cause := range last {
		for _, h := range fault.Hints(cause) {
			err = fault.Hint(err, "%s", h)
		}
	}
	return err
}
