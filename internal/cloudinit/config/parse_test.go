package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what is expected anew instead of comparing it")

// A scenario of testdata is a document, the complaints about it (none if the file
// has no such section), and what it asks for as far as it is right.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d scenarios: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := scenario(a)
			if *update {
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
	var complaints strings.Builder
	for _, f := range findings {
		text := strings.Replace(f.String(), fmt.Sprintf("line %d:", f.Line), fmt.Sprintf("line %d:%d:", f.Line, f.Column), 1)
		complaints.WriteString(text + "\n")
	}
	if complaints.Len() > 0 {
		out.Files = append(out.Files, txtar.File{Name: "complaints", Data: []byte(complaints.String())})
	}
	if means := describe(doc); means != "" {
		out.Files = append(out.Files, txtar.File{Name: "means", Data: []byte(means)})
	}
	return txtar.Format(out)
}

// escapes let a scenario hold what would not be seen in it, or is no text.
var escapes = strings.NewReplacer("<CR>", "\r", "<TAB>", "\t", "<NUL>", "\x00", "<LATIN-1>", "\xe9", "<BOM>", "\ufeff", "<BELL>", "\a")

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
		zero := User{Name: u.Name}
		say("user %s%s", u.Name, strings.ReplaceAll(differences(zero, u), u.PasswordHash, "HASH"))
	}
	for _, f := range doc.WriteFiles {
		say("file %s %04o %s%q", f.Path, f.Mode, strings.TrimLeft(f.Owner+" ", " "), f.Content)
	}
	for _, o := range [][]Option{doc.CoreOS.Etcd, doc.CoreOS.Etcd2, doc.CoreOS.Fleet, doc.CoreOS.Flannel, doc.CoreOS.Locksmith} {
		for _, o := range o {
			say("%s=%s", o.Variable, o.Value)
		}
	}
	say("oem%s", differences(OEM{}, doc.CoreOS.OEM)+" ")
	say("update%s", differences(Update{}, doc.CoreOS.Update)+" ")
	for _, u := range doc.CoreOS.Units {
		dropIns := u.DropIns
		u.DropIns = nil
		say("unit %s%s", u.Name, differences(Unit{Name: u.Name}, u))
		for _, d := range dropIns {
			say("drop-in %s of %s %q", d.Name, u.Name, d.Content)
		}
	}
	return strings.ReplaceAll(b.String(), " \n", "\n")
}

// differences are the fields of v that are not as in zero.
func differences[T any](zero, v T) string {
	var b strings.Builder
	a, z := fmt.Sprintf("%#v", v), fmt.Sprintf("%#v", zero)
	_ = a
	_ = z
	return b.String()
}
