package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The help of a program that is not made of cobra's commands becomes a manual that
// man(1) shows with the same words.
func TestRoff(t *testing.T) {
	for _, c := range []struct{ help, want string }{
		{"Runs a member.\nMore.\n", ".PP\nRuns a member.\n.br\nMore.\n"},
		{"The cluster:\n  --peer-hints\n        List of URLs.\n", ".SH THE CLUSTER\n.TP\n\\fB\\-\\-peer\\-hints\\fP\nList of URLs.\n"},
		{"COMMANDS:\n   set   write a key\n", ".SH COMMANDS\n.TP\n\\fBset\\fP\nwrite a key\n"},
		{"two\n\nparagraphs\n", ".PP\ntwo\n.PP\nparagraphs\n"},
		{".so /etc/passwd\n'x\nC:\\dir\n", ".PP\n\\&.so /etc/passwd\n.br\n\\&'x\n.br\nC:\\edir\n"},
	} {
		if diff := cmp.Diff(c.want, roff(".SH", c.help)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.help, diff)
		}
	}
}

// Whatever a help text says, no line of it is taken for a request to roff, which can
// read files.
func FuzzRoff(f *testing.F) {
	f.Add("usage:\n  --x string\n        .so y\n")
	f.Add("'\\\"\n\n.\n   .")
	f.Fuzz(func(t *testing.T, help string) {
		for line := range strings.Lines(roff(".SH", help)) {
			line = strings.TrimRight(line, "\n")
			word, _, _ := strings.Cut(line, " ")
			switch word {
			case ".SH", ".TP", ".PP", ".br":
			default:
				if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
					t.Errorf("%q gives the request %q", help, line)
				}
			}
		}
	})
}

func TestDebianChangelog(t *testing.T) {
	changes := "# Changes\n\n## Unreleased\n\n### New\n- One thing\n  that goes on.\n- Another thing, with as many words as it takes to have it broken into two lines.\n\n## 1.0\n- Old.\n"
	want := `flotilla (1.1.0) unstable; urgency=medium

  * One thing that goes on.
  * Another thing, with as many words as it takes to have it broken into two
    lines.

 -- ` + maintainer + `  Mon, 21 Sep 2026 14:13:20 +0000
`
	if diff := cmp.Diff(want, debianChangelog(changes, "1.1.0", time.Unix(1790000000, 0).UTC())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Files that another package may have under the classic name are linked, the others
// have it themselves.
func TestLinks(t *testing.T) {
	got := links([]string{
		"usr/share/man/man1/flotilla-etcdctl.1.gz", "usr/share/man/man1/fleetctl.1.gz", "usr/share/man/man1/flotilla-up.1.gz",
		"usr/share/zsh/site-functions/_flotilla-etcdctl",
	})
	for _, line := range []string{
		"etcd usr/bin/etcd flotilla",
		"etcdctl usr/bin/etcdctl flotilla",
		"etcdctl usr/share/man/man1/etcdctl.1.gz flotilla-etcdctl.1.gz",
		"etcdctl usr/share/zsh/site-functions/_etcdctl _flotilla-etcdctl",
		"fleetctl usr/bin/fleetctl flotilla",
	} {
		if !strings.Contains("\n"+got, "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	if strings.Contains(got, "up") || strings.Contains(got, "man1/fleetctl") {
		t.Errorf("links for what needs none:\n%s", got)
	}
}

// Every program that people and machines call has a manual, and none of them is empty.
func TestManuals(t *testing.T) {
	files := tree{}
	if err := (book{version: "1.0", date: time.Unix(0, 0).UTC()}).manuals(files); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{"usr/share/man/man1/flotilla.1", "usage: flotilla COMMAND"},
		{"usr/share/man/man8/fleetd.8", "etcd_servers"},
		{"usr/share/man/man1/fleetctl-start.1", "SYNOPSIS"},
		{"usr/share/man/man8/flotilla-etcd.8", `\-\-initial\-cluster`},
		{"usr/share/man/man8/flotilla-etcd.8", ".SH RECOVER"},
		{"usr/share/man/man8/flotilla-etcd.8", `\-\-dry\-run`},
		{"usr/share/man/man1/flotilla-discovery-new.1", `\fB--size\fP`},
		{"usr/share/man/man1/flotilla-etcdctl.1", ".SH MEMBER ADD"},
		{"usr/share/man/man1/flotilla-etcdctl.1", `\-\-backup\-dir`},
	} {
		if text := string(files[c.path]); !strings.HasPrefix(text, ".") && !strings.Contains(text, ".TH") || !strings.Contains(text, c.want) {
			t.Errorf("%s does not have %q:\n%.300s", c.path, c.want, text)
		}
	}
}
