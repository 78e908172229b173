package netconf

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the files that testdata expects anew")

// Each file of testdata is one conversion: FORMAT-WHAT.txtar holds the description
// ("in"), and what must come of it: the files, "ignored", or "error".
func TestConvert(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil || len(a.Files) == 0 || a.Files[0].Name != "in" {
				t.Fatalf("want the file \"in\" first: %v", err)
			}
			format, _, _ := strings.Cut(name, "-")
			got := &txtar.Archive{Comment: a.Comment, Files: append(a.Files[:1:1], converted(format, a.Files[0].Data)...)}
			if *update {
				if err := os.WriteFile(path, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if g, w := string(txtar.Format(got)), string(txtar.Format(a)); g != w {
				t.Errorf("got:\n%s\nwant:\n%s", g, w)
			}
		})
	}
}

func converted(format string, data []byte) []txtar.File {
	files, ignored, err := Convert(format, data)
	if err != nil {
		return []txtar.File{{Name: "error", Data: []byte(err.Error() + "\n")}}
	}
	var out []txtar.File
	for _, f := range files {
		out = append(out, txtar.File{Name: f.Name, Data: []byte(f.Content)})
	}
	if len(ignored) > 0 {
		out = append(out, txtar.File{Name: "ignored", Data: []byte(strings.Join(ignored, "\n") + "\n")})
	}
	return out
}

func TestUnknownFormat(t *testing.T) {
	if _, _, err := Convert("suse", nil); err == nil || !strings.Contains(err.Error(), `"suse"`) {
		t.Errorf("got %v", err)
	}
}

// Whatever the input, the files have plain names and lines that systemd can read.
func FuzzConvert(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.txtar")
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		format, _, _ := strings.Cut(filepath.Base(path), "-")
		f.Add(uint8(slices.Index(Formats(), format)), a.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, format uint8, data []byte) {
		files, _, err := Convert(Formats()[int(format)%len(formats)], data)
		if err != nil && files != nil {
			t.Errorf("files with the error %v", err)
		}
		for _, file := range files {
			if strings.ContainsAny(file.Name, "/ \n") || strings.HasPrefix(file.Name, ".") {
				t.Errorf("file name %q", file.Name)
			}
			for line := range strings.Lines(file.Content) {
				line = strings.TrimSuffix(line, "\n")
				section := strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]")
				if line != "" && !section && !strings.Contains(line, "=") || strings.ContainsAny(line, "\r\x00") {
					t.Errorf("%s: line %q", file.Name, line)
				}
			}
		}
	})
}
