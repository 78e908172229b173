package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var updateFlag = flag.Bool("update", false, "write what is expected anew instead of comparing it")

// A scenario of testdata is a document, the complaints about it (none if the file
// has no such section), and what it asks for as far as it is right.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) < 140 {
		t.Fatalf("%d scenarios: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := scenario(a)
			if *updateFlag {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(a)), string(got)); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

// scenario is the archive a as it has to be for its document.
func scenario(a *txtar.Archive) []byte {
	doc, findings := Parse(escapes.Replace(string(a.Files[0].Data)))
	out := &txtar.Archive{Comment: a.Comment, Files: a.Files[:1]}
	if said := complaints(findings); said != "" {
		out.Files = append(out.Files, txtar.File{Name: "complaints", Data: []byte(said)})
	}
	if means := describe(doc); means != "" {
		out.Files = append(out.Files, txtar.File{Name: "means", Data: []byte(means)})
	}
	return txtar.Format(out)
}

// complaints are findings in lines, with the column that String leaves out.
func complaints(findings []Finding) string {
	var b strings.Builder
	for _, f := range findings {
		line := fmt.Sprintf("line %d", f.Line)
		b.WriteString(strings.Replace(f.String(), line+":", fmt.Sprintf("%s:%d:", line, f.Column), 1) + "\n")
	}
	return b.String()
}

// escapes let a scenario hold what would not be seen in it, or is no text.
var escapes = strings.NewReplacer("<CR>", "\r", "<TAB>", "\t", "<NUL>", "\x00", "<LATIN-1>", "\xe9", "<BOM>", "\ufeff", "<BELL>", "\a",
	"<UTF-16>", "\xff\xfe#\x00c\x00")

// describe says in lines what a document asks for.
func describe(doc Document) string {
	var b strings.Builder
	say := func(format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !strings.HasSuffix(s, " ") {
			b.WriteString(s + "\n")
		}
	}
	say("hostname %s", doc.Hostname)
	say("hosts %s", doc.ManageEtcHosts)
	for _, k := range doc.SSHAuthorizedKeys {
		say("key %s", k)
	}
	for _, u := range doc.Users {
		say("user %s%s", u.Name, differences(u))
	}
	for _, f := range doc.WriteFiles {
		say("file %s %04o %s%q", f.Path, f.Mode, strings.TrimLeft(f.Owner+" ", " "), f.Content)
	}
	for _, o := range [][]Option{doc.CoreOS.Etcd, doc.CoreOS.Etcd2, doc.CoreOS.Fleet, doc.CoreOS.Flannel, doc.CoreOS.Locksmith} {
		for _, o := range o {
			say("%s=%s", o.Variable, o.Value)
		}
	}
	say("oem %s%s", doc.CoreOS.OEM.Name, differences(doc.CoreOS.OEM))
	say("update %s", strings.TrimSpace(differences(doc.CoreOS.Update)))
	for _, u := range doc.CoreOS.Units {
		dropIns := u.DropIns
		u.DropIns = nil
		say("unit %s%s", u.Name, differences(u))
		for _, d := range dropIns {
			say("drop-in %s of %s %q", d.Name, u.Name, d.Content)
		}
	}
	return strings.ReplaceAll(b.String(), " \n", "\n")
}

// differences are the fields of v that are not empty, but its name.
func differences(v any) string {
	var b strings.Builder
	for field, value := range reflect.ValueOf(v).Fields() {
		if field.Name == "Name" || value.IsZero() {
			continue
		}
		switch value.Kind() {
		case reflect.Bool:
			fmt.Fprintf(&b, " %s", field.Name)
		default:
			fmt.Fprintf(&b, " %s=%q", field.Name, value.Interface())
		}
	}
	return b.String()
}

// What is no document asks for nothing, and nothing is wrong with it.
func TestNoDocument(t *testing.T) {
	for _, text := range []string{"", "\n \n", "#!/bin/sh\nhostname: web\n", `{"ignition": {"version": "3.0.0"}}`} {
		doc, findings := Parse(text)
		if describe(doc) != "" || len(findings) > 0 {
			t.Errorf("Parse(%q) = %+v, %v", text, doc, findings)
		}
	}
}

// A finding names the option by its whole path, in the spelling with underscores.
func TestFindingKeys(t *testing.T) {
	_, findings := Parse("#cloud-config\nssh-authorized-keys: [x]\ncoreos:\n  units:\n  - name: a.service\n  - drop-ins:\n    - nam: x\n      content: 1\n")
	var keys []string
	for _, f := range findings {
		keys = append(keys, f.Key)
	}
	want := []string{"ssh_authorized_keys[0]", "coreos.units[1]", "coreos.units[1].drop_ins[0].nam", "coreos.units[1].drop_ins[0]", "coreos.units[1].drop_ins[0].content", "coreos.units[1].drop_ins[0].content"}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("want -, got +:\n%s\n%s", diff, complaints(findings))
	}
}

// What is printed is what old tools read, and a hint.
func TestFindingString(t *testing.T) {
	f := Finding{Line: 4, Column: 3, Severity: Error, Key: "a.b", Message: "invalid value always"}
	for hint, want := range map[string]string{
		"":             "line 4: error: invalid value always",
		"a: off":       "line 4: error: invalid value always; write: a: off",
		"a:\n  b: off": "line 4: error: invalid value always; write:\n    a:\n      b: off",
	} {
		if f.Hint = hint; f.String() != want {
			t.Errorf("%q, want %q", f.String(), want)
		}
	}
}

// Whatever the text: no panic, every finding lies within it, once, and a document that
// is right stays so when its line ends are those of Windows.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.txtar")
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(escapes.Replace(string(a.Files[0].Data)))
	}
	f.Fuzz(func(t *testing.T, text string) {
		doc, findings := Parse(text)
		lines := strings.Split(text, "\n")
		for i, f := range findings {
			if f.Line < 1 || f.Line > len(lines) || f.Column < 0 || f.Message == "" {
				t.Errorf("finding outside of the text: %+v", f)
			}
			if strings.Contains(f.Message, "gave up") {
				t.Errorf("the YAML parser panics: %v", f)
			}
			if i > 0 && f.Line < findings[i-1].Line {
				t.Errorf("findings out of order: %+v", findings)
			}
		}
		for _, file := range doc.WriteFiles {
			if !filepath.IsAbs(file.Path) || filepath.Clean(file.Path) != file.Path || strings.HasPrefix(file.Path+"/", "/usr/") {
				t.Errorf("file %q", file.Path)
			}
		}
		for _, u := range doc.CoreOS.Units {
			if u.Name == "" || strings.ContainsAny(u.Name, "/\x00\n") || u.Name[0] == '.' {
				t.Errorf("unit %q", u.Name)
			}
		}
		if len(findings) == 0 && !strings.Contains(text, "\r") {
			again, findings := Parse(strings.ReplaceAll(text, "\n", "\r\n"))
			if diff := cmp.Diff(doc, again); diff != "" || len(findings) > 0 {
				t.Errorf("with CR LF: %v\n%s", findings, diff)
			}
		}
	})
}
