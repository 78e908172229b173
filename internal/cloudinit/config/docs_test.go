package config

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	docsFile  = "../../../docs/formats/cloud-config.md"
	docsStart = "<!-- made by go test ./internal/cloudinit/config -update -->\n"
	docsEnd   = "<!-- end -->\n"
)

// The tables of the documentation are the schema.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(data), docsStart)
	_, tail, ok2 := strings.Cut(rest, docsEnd)
	if !ok || !ok2 {
		t.Fatalf("%s: the marks are missing", docsFile)
	}
	want := head + docsStart + schemaTables() + docsEnd + tail
	if *updateFlag {
		if err := os.WriteFile(docsFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(data), want); diff != "" {
		t.Errorf("run with -update; want +:\n%s", diff)
	}
}

// schemaTables has a table for each section.
func schemaTables() string {
	var b strings.Builder
	var sections []string
	of := map[string][]Entry{}
	for _, e := range Schema() {
		if of[e.Section] == nil {
			sections = append(sections, e.Section)
		}
		of[e.Section] = append(of[e.Section], e)
	}
	for _, s := range sections {
		title := "`" + s + "`"
		if s == "" {
			title = "The top level"
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s", title, table(of[s]))
	}
	return b.String() + "\n"
}

func table(entries []Entry) string {
	var b strings.Builder
	b.WriteString("| option | value | since | meaning |\n| --- | --- | --- | --- |\n")
	for _, e := range entries {
		value := strings.TrimPrefix(strings.TrimPrefix(string(e.Type), "a "), "an ")
		if e.Allowed() != nil {
			value = "`" + strings.Join(e.Allowed(), "` `") + "`"
		}
		var meaning []string
		if e.About != "" {
			meaning = append(meaning, e.About)
		}
		if e.Variable != "" {
			meaning = append(meaning, "`"+e.Variable+"`")
		}
		if e.Deprecated != "" {
			meaning = append(meaning, "deprecated: "+e.Deprecated)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", e.Name, value, e.Since, strings.Join(meaning, "; "))
	}
	return b.String()
}

// What every row of the schema must have: a section that exists, a name in its
// spelling, no twin, and a meaning that a person can read.
func TestSchema(t *testing.T) {
	seen := map[string]bool{"": true}
	for _, e := range Schema() {
		switch {
		case seen[e.path()]:
			t.Errorf("%s is there twice", e.path())
		case !seen[e.Section]:
			t.Errorf("%s: there is no section %q before it", e.path(), e.Section)
		case e.Name != canonical(e.Name) || e.Name == "":
			t.Errorf("%q is no name", e.Name)
		case e.Variable == "" && e.About == "":
			t.Errorf("%s: what is it about?", e.path())
		}
		seen[e.path()] = true
	}
	if n := len(Schema()); n < 150 {
		t.Errorf("the schema has %d options", n)
	}
}
