package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What is too much is refused by one complaint, and at once: the slowest takes the
// parser well under a second.
func TestTooMuch(t *testing.T) {
	unit := "&u {name: a.service, drop_ins: [&d {name: a.conf, content: \"[Service]\\nRestart=no\\n\"}" + strings.Repeat(", *d", 300) + "]}"
	for _, c := range []struct{ name, body, want string }{
		{"100 MB", "a: " + strings.Repeat("x", 100<<20), "line 1: error: a document of 104857617 bytes: more than 1048576 are not read"},
		{"brackets", strings.Repeat("[", 500_000), "line 2: error: lists and mappings are nested more than 40 deep"},
		{"braces", strings.Repeat("{a: ", 100_000), "line 2: error: lists and mappings are nested more than 40 deep"},
		{"dashes", strings.Repeat("- ", 100_000), "line 2: error: lists and mappings are nested more than 40 deep"},
		{"questions", strings.Repeat("? ", 100_000), "line 2: error: lists and mappings are nested more than 40 deep"},
		{"indentation", steps(100), "line 42: error: lists and mappings are nested more than 40 deep"},
		{"keys", strings.Repeat("a: b\n", 100_000), "line 16668: error: the document has more than 50000 keys, values and signs"},
		{"empty lines", "hostname: web\na: |\n  b" + strings.Repeat("\n", 500_000) + "c: d\n", "line 205: error: more than 200 empty lines in a row"},
		{"aliases", "coreos: {units: [" + unit + strings.Repeat(", *u", 300) + "]}", "line 2: error: aliases repeat too much: the document stands for more than 50000 values or 16777216 bytes"},
		{"texts", "write_files: [&f {path: /a, content: \"" + strings.Repeat("x", 100_000) + "\"}" + strings.Repeat(", *f", 1000) + "]", "line 2: error: aliases repeat too much: the document stands for more than 50000 values or 16777216 bytes"},
	} {
		start := time.Now()
		doc, findings := Parse("#cloud-config\n" + c.body)
		var errs []string
		for _, f := range findings {
			if f.Severity == Error {
				errs = append(errs, f.String())
			}
		}
		if got := strings.Join(errs, "\n"); got != c.want {
			t.Errorf("%s:\n got %.300s\nwant %s", c.name, got, c.want)
		}
		if len(doc.CoreOS.Units)+len(doc.WriteFiles) > 0 {
			t.Errorf("%s: it asks for something", c.name)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: took %v", c.name, took)
		} else {
			t.Logf("%s: %v", c.name, took)
		}
	}
}

// Very many mistakes take no longer than as many lines.
func TestManyMistakes(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       int // findings
	}{
		{"variables", "write_files:\n- path: /a\n  content: |\n" + strings.Repeat("    $private_ip4 $private_ip41\n", 30_000), 20},
		{"lines of a unit", "coreos:\n  units:\n  - name: a.service\n    content: |\n      [Service]\n" + strings.Repeat("      a\n", 100_000), 100_000},
		{"keys", strings.Repeat("- x\nwrite-file: a\n", 1) + strings.Repeat("a: 1\n", 10_000), 1},
		{"broken keys", strings.Repeat("a: [\n", 200_000), 1},
		{"options", "coreos:\n  etcd:\n" + strings.Repeat("    nam: 1\n", 15_000), 15_000},
	} {
		start := time.Now()
		_, findings := Parse("#cloud-config\n" + c.body)
		if len(findings) != c.want {
			t.Errorf("%s: %d findings, want %d; first %v", c.name, len(findings), c.want, findings[:min(3, len(findings))])
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: took %v", c.name, took)
		} else {
			t.Logf("%s: %v", c.name, took)
		}
	}
}

// steps is n mappings inside each other, one a line.
func steps(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
	}
	return b.String()
}
