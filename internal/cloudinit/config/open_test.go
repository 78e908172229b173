package config

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

func zip(t testing.TB, data string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(data))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		data string
		want Kind
	}{
		{"", Empty},
		{" \r\n\t", Empty},
		{"#cloud-config", CloudConfig},
		{"#cloud-config\r\nhostname: a\r\n", CloudConfig},
		{"#cloud-config \t \n", CloudConfig},
		{"\ufeff#cloud-config\n", CloudConfig},
		{"#cloud-config # web", Unknown},
		{" #cloud-config", Unknown},
		{"\n#cloud-config", Unknown},
		{"#cloud-configure", Unknown},
		{"#!", Script},
		{"#!/usr/bin/python3\nprint()\n", Script},
		{`{"ignitionVersion": 1}`, Ignition},
		{` {"ignition": {"version": "3.3.0"}, "storage": {}}`, Ignition},
		{`{"ignition": {}}`, Unknown},
		{`{"hostname": "web"}`, Unknown},
		{`{"ignition": {"version": "3.3.0"}`, Unknown},
		{"Content-Type: multipart/mixed; boundary=x\n\n--x--\n", Multipart},
		{"MIME-Version: 1.0\r\nContent-Type: Multipart/Mixed;\r\n boundary=\"x\"\r\n\r\n", Multipart},
		{"From nobody Mon Jan  1 00:00:00 2024\nContent-Type: multipart/mixed; boundary=x\n\n", Multipart},
		{"Content-Type: text/plain\n\nmultipart/mixed", Unknown},
		{"hostname: web\n", Unknown},
		{"\x1f\x8b\x08\x00", Unknown},
		{"\x00\x01\x02", Unknown},
	} {
		if got := Classify([]byte(c.data)); got != c.want {
			t.Errorf("Classify(%q) = %s, want %s", c.data, got, c.want)
		}
	}
}

// A scenario of testdata/open is user data, the parts it has, and complaints.
func TestOpenScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/open/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scenarios: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts, findings := Open(a.Files[0].Data)
			out := &txtar.Archive{Comment: a.Comment, Files: a.Files[:1]}
			for _, p := range parts {
				out.Files = append(out.Files, txtar.File{Name: fmt.Sprintf("%s %q", p.Kind, p.Name), Data: []byte(p.Text)})
			}
			if said := complaints(findings); said != "" {
				out.Files = append(out.Files, txtar.File{Name: "complaints", Data: []byte(said)})
			}
			got := txtar.Format(out)
			if *updateFlag {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(txtar.Format(a)), string(got)); diff != "" && !*updateFlag {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

func TestOpenGzip(t *testing.T) {
	doc := "#cloud-config\nhostname: web\n"
	packed := zip(t, doc)
	mixed := "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: application/x-gzip\nContent-Transfer-Encoding: base64\n\n" +
		base64.StdEncoding.EncodeToString([]byte(packed)) + "\n--x--\n"
	bomb := zip(t, strings.Repeat("\x00", MaxUnpacked+1))
	for _, c := range []struct{ name, data, parts, want string }{
		{"nothing", "", "", ""},
		{"plain", doc, "cloud-config ", ""},
		{"packed", packed, "cloud-config ", ""},
		{"twice", zip(t, packed), "cloud-config ", ""},
		{"script", zip(t, "#!/bin/sh\n"), "script ", ""},
		{"empty", zip(t, ""), "", ""},
		{"in a part", mixed, "cloud-config part 1", ""},
		{"around parts", zip(t, mixed), "cloud-config part 1", ""},
		{"five times", zip(t, zip(t, zip(t, zip(t, packed)))), "", "line 1:0: error: user data is packed more than 4 deep\n"},
		{"cut off", packed[:len(packed)-9], "", "line 1:0: error: unpack gzip: it ends before its end: something was cut off\n"},
		{"without its sum", packed[:len(packed)-4], "", "line 1:0: error: unpack gzip: it ends before its end: something was cut off\n"},
		{"header alone", packed[:5], "", "line 1:0: error: unpack gzip: it ends before its end: something was cut off\n"},
		{"damaged", packed[:len(packed)-8] + "xxxx" + packed[len(packed)-4:], "", "line 1:0: error: unpack gzip: gzip: invalid checksum\n"},
		{"bomb", bomb, "", "line 1:0: error: unpack gzip: it holds more than 16777216 bytes in all\n"},
		{"bomb in a bomb", zip(t, bomb), "", "line 1:0: error: unpack gzip: it holds more than 16777216 bytes in all\n"},
		{"large", strings.Repeat("x", MaxUnpacked+1), "", "line 1:0: error: user data of 16777217 bytes: more than 16777216 are not read\n"},
	} {
		parts, findings := Open([]byte(c.data))
		var got []string
		for _, p := range parts {
			got = append(got, string(p.Kind)+" "+p.Name)
		}
		if said := complaints(findings); strings.Join(got, ", ") != c.parts || said != c.want {
			t.Errorf("%s: parts %q, want %q; complaints %q, want %q", c.name, got, c.parts, said, c.want)
		}
	}
}

func TestOpenManyParts(t *testing.T) {
	parts, findings := Open([]byte("Content-Type: multipart/mixed; boundary=x\n\n" + strings.Repeat("--x\n\n#!/bin/sh\n", MaxParts+5) + "--x--\n"))
	if want := "line 1:0: error: user data has more than 64 parts\n"; len(parts) != MaxParts || complaints(findings) != want {
		t.Errorf("%d parts, %q", len(parts), complaints(findings))
	}
}

// Whatever the data: no panic, parts in bounds, none of a kind that is unpacked.
func FuzzOpen(f *testing.F) {
	files, _ := filepath.Glob("testdata/open/*.txt")
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data)
	}
	f.Add([]byte(zip(f, "#cloud-config\n")))
	f.Fuzz(func(t *testing.T, data []byte) {
		parts, findings := Open(data)
		size := 0
		for _, p := range parts {
			size += len(p.Text)
			if p.Kind == Empty || p.Kind == Multipart || p.Kind == "" {
				t.Errorf("a part of kind %q", p.Kind)
			}
		}
		if len(parts) > MaxParts || size > 2*MaxUnpacked {
			t.Errorf("%d parts of %d bytes", len(parts), size)
		}
		for _, f := range findings {
			if f.Line != 1 || f.Message == "" || f.Severity != Error {
				t.Errorf("%+v", f)
			}
		}
	})
}
