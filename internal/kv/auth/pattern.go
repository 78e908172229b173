package auth

import (
	"slices"
	"strings"
)

// pattern is a key, or the beginning of keys.
type pattern struct {
	text   string
	prefix bool
}

// parsePattern reads a pattern as people write it. A slash at the end of an exact
// one counts for nothing, as in a URL.
func parsePattern(s string) pattern {
	if text, ok := strings.CutSuffix(s, "*"); ok {
		return pattern{text, true}
	}
	if len(s) > 1 {
		s = strings.TrimSuffix(s, "/")
	}
	return pattern{s, false}
}

// covers reports whether the pattern is the key, or the beginning of it and of all
// that is below it.
func (p pattern) covers(key string) bool {
	if p.prefix {
		return strings.HasPrefix(key, p.text)
	}
	return key == p.text
}

// Range is v3 keys from Start on, before End. An End of "" is all after Start.
type Range struct{ Start, End string }

// Keys is the range that a v3 request names by its key and range_end: no range_end
// is the key alone, a zero byte is everything from the key on. A range_end that is
// not after the key, which has nothing in it, stands for the key.
func Keys(key, end string) Range {
	switch {
	case end == "\x00":
		return Range{key, ""}
	case end <= key:
		return Range{key, key + "\x00"}
	}
	return Range{key, end}
}

// Meets reports whether a key can be in both ranges.
func (r Range) Meets(o Range) bool {
	return (o.End == "" || r.Start < o.End) && (r.End == "" || o.Start < r.End)
}

// Below is all keys that begin with the prefix.
func Below(prefix string) Range { return Range{prefix, after(prefix)} }

// after is the first key behind all that begin with the prefix; "" if there is none.
func after(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if c := prefix[i]; c < 0xff {
			return prefix[:i] + string([]byte{c + 1})
		}
	}
	return ""
}

// paths is the v3 keys that v2 paths can be.
var paths = Range{"/", "0"}

// keys is what of v2's keys the pattern covers, as a range; not ok if that is none.
func (p pattern) keys() (r Range, ok bool) {
	r = Range{p.text, p.text + "\x00"}
	if p.prefix {
		r = Below(p.text)
	}
	r.Start = max(r.Start, paths.Start)
	if r.End == "" || r.End > paths.End {
		r.End = paths.End
	}
	return r, r.Start < r.End
}

// covered reports whether every key of r is covered by one of the patterns.
func covered(r Range, patterns []pattern) bool {
	if r.End == "" {
		return false // it goes on behind the v2 keys
	}
	var have []Range
	for _, p := range patterns {
		if k, ok := p.keys(); ok {
			have = append(have, k)
		}
	}
	slices.SortFunc(have, func(a, b Range) int { return strings.Compare(a.Start, b.Start) })
	from := r.Start // all before it is covered
	for _, h := range have {
		if h.Start > from {
			return false
		}
		if from = max(from, h.End); from >= r.End {
			return true
		}
	}
	return false
}
