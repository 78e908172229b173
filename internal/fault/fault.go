// Package fault says errors for people beside errors for programs.
//
// An error's text says what was being done, to what, and why it failed. What to
// try next is for a person alone, so it travels beside the error as a hint and is
// printed on a line of its own. An exit code travels the same way: the layer that
// knows the classic tool's code attaches it, main reads it.
package fault

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Exit codes of a command that has no classic codes of its own.
const (
	ExitOK     = 0
	ExitFailed = 1 // the command was understood and did not succeed
	ExitUsage  = 2 // the command was not understood: nothing was done
)

type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// Hint attaches what to try next to err. The text of err does not change; nil
// stays nil.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err: err, hint: fmt.Sprintf(format, args...)}
}

// Hints returns the hints attached to err and to all errors that it is made of, each
// once: outermost first, and those of joined errors in their order.
func Hints(err error) []string {
	var out []string
	collect(err, &out)
	return out
}

func collect(err error, out *[]string) {
	if h, ok := err.(*hinted); ok && !slices.Contains(*out, h.hint) {
		*out = append(*out, h.hint)
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		collect(e.Unwrap(), out)
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			collect(one, out)
		}
	}
}

type coded struct {
	err  error
	code int
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

// Code attaches the exit code that the process ends with. nil stays nil.
func Code(code int, err error) error {
	if err == nil {
		return nil
	}
	return &coded{err: err, code: code}
}

// Usage makes an error that ends the process with ExitUsage.
func Usage(format string, args ...any) error {
	return Code(ExitUsage, fmt.Errorf(format, args...))
}

// ErrSilent ends a command unsuccessfully without a further message: what there
// was to say has been said. Attach the code with Code.
var ErrSilent = errors.New("already reported")

// ExitCode returns the code attached to err: the outermost wins, ExitFailed
// without one, ExitOK for nil.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	var c *coded
	if errors.As(err, &c) {
		return c.code
	}
	return ExitFailed
}

// Print writes err as "NAME: text" and a line "hint: ..." for each hint.
// ErrSilent and nil print nothing.
func Print(w io.Writer, name string, err error) {
	if err == nil || errors.Is(err, ErrSilent) {
		return
	}
	fmt.Fprintf(w, "%s: %v\n", name, err)
	for _, h := range Hints(err) {
		fmt.Fprintf(w, "hint: %s\n", h)
	}
}
