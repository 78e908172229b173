package config

import (
	"fmt"
	"strings"
	"testing"
)

// chunks are what may stand before a mistake and shift its place.
var chunks = []string{
	"K: text\n",
	"K:\n  - a\n  - b: c\n    d: e\n",
	"K: |\n  a\n\n  b\n",
	"K: |\n  a\n\n\n",
	"K: |+\n  a\n\n\n",
	"K: |-\n\n  a\n   b\n",
	"K: |2\n    a\n  b\n",
	"K: |\n",
	"K: |\n  a\n# comment\n",
	"K: |\n  a\n  # no comment\n\n# comment\n\n",
	"K: | # comment\n  a\n",
	"K: >\n  a\n  b\n\n  c\n",
	"K: >-\n  a\n\n\n  b\n\n",
	"K: a\n  b\n  c\n",
	"K: a\n\n  b\n\n",
	"K:\n  a\n  b\n",
	"K: \"a\n  b\n\n  c\"\n",
	"K: \"a\\\n  b\\n\"\n",
	"K: 'a\n  b''\n\n  c'\n",
	"K: [a,\n  b,\n\n  c\n  ]\n",
	"K: {a: b,\n  c: [d,\n   e], # comment\n  }\n",
	"K: &K [a]\nL: *K\n",
	"K: !!binary |\n  aGVs\n  bG8=\n",
	"K: é € 日本\n",
	"K: # comment\n  # another\n  a: b\n",
	"# comment\n\n\n",
	"K:\n- a\n-\n  b: c\n- - d\n",
	"\"K\": 'v'\n",
	"? K\n: v\n",
	"K:   \n",
	"K: ~\n\n",
	"K: a # comment\n  \n",
	"K: -1.5e3\n",
	"K: http://a:80/#b\n",
}

// After any two chunks, at both ends of lines, a mistake is told at its place.
func TestPositions(t *testing.T) {
	for i, a := range chunks {
		for j, b := range chunks {
			text := "#cloud-config\n" + named(a, i) + named(b, 100+j)
			line := strings.Count(text, "\n") + 1
			text += "coreos:\n  oem: {id: é, nonsense: 1}\n  update:\n    reboot-strategy:   never\n"
			want := fmt.Sprintf(`[{%d 16 "nonsense"} {%d 24 "never"}]`, line+1, line+3)
			for _, end := range []string{"\n", "\r\n"} {
				if got := places(strings.ReplaceAll(text, "\n", end)); got != want {
					t.Errorf("%q: %s, want %s", text, got, want)
				}
			}
		}
	}
}

// named gives a chunk keys of its own.
func named(chunk string, n int) string {
	return strings.NewReplacer("K", fmt.Sprintf("k%d", n), "L", fmt.Sprintf("l%d", n)).Replace(chunk)
}

// places are where the two mistakes of TestPositions are told to be.
func places(text string) string {
	var found []string
	_, findings := Parse(text)
	for _, f := range findings {
		for _, word := range []string{"nonsense", "never"} {
			if strings.Contains(f.Message, word) {
				found = append(found, fmt.Sprintf("{%d %d %q}", f.Line, f.Column, word))
			}
		}
	}
	if len(found) == 0 && len(findings) > 0 {
		return findings[0].String()
	}
	return "[" + strings.Join(found, " ") + "]"
}
