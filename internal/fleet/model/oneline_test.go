package model

import "testing"

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a", "a\n": "a", "a:\nb\nc": "a: b; c", "a\n\n  b\n": "a; b",
	} {
		if got := OneLine(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
