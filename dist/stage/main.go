// Command stage writes the files of a package that are made and not kept: manuals,
// shell completion, lists for the package's scripts, changelog. The same source tree
// makes the same bytes.
//
//	go run ./dist/stage -version 1.2.0 -date 1790000000 DIR
package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flotilla/cmd/flotilla/programs"
	"flotilla/dist"
	"flotilla/internal/fault"
)

func main() {
	var b book
	var date int64
	flag.StringVar(&b.version, "version", "dev", "the package's `version`")
	flag.Int64Var(&date, "date", 0, "when it was made, in `seconds` since 1970 (SOURCE_DATE_EPOCH)")
	flag.StringVar(&b.changes, "changes", "CHANGELOG.md", "`file` with what has changed")
	flag.Parse()
	b.date = time.Unix(date, 0).UTC()
	err := fault.Usage("usage: stage [FLAGS] DIR")
	if flag.NArg() == 1 {
		err = stage(flag.Arg(0), b)
	}
	fault.Print(os.Stderr, "stage", err)
	os.Exit(fault.ExitCode(err))
}

// book is what all files say of the package.
type book struct {
	version, changes string
	date             time.Time
}

// tree is files by their path below the root.
type tree map[string][]byte

func stage(dir string, b book) error {
	t := tree{}
	if err := b.manuals(t); err != nil {
		return fmt.Errorf("write manuals: %w", err)
	}
	if err := completions(t); err != nil {
		return fmt.Errorf("write completion: %w", err)
	}
	changes, err := os.ReadFile(b.changes)
	if err != nil {
		return err
	}
	t["usr/share/doc/flotilla/changelog"] = []byte(debianChangelog(string(changes), b.version, b.date))
	if err := t.compress(); err != nil {
		return err
	}
	t.units()
	t["usr/share/flotilla/links"] = []byte(links(slices.Collect(maps.Keys(t))))
	return t.write(dir, b.date)
}

// units adds the daemons' own files, and lists for the package's scripts: what to
// restart, and what to stop, in that order.
func (t tree) units() {
	var names []string
	for at, text := range dist.Units() {
		name := path.Base(at)
		names = append(names, name)
		if dist.Shared(name) {
			at = "/usr/lib/flotilla/systemd/" + name
		}
		t[at[1:]] = []byte(text)
	}
	for _, files := range []map[string]string{dist.Users(), dist.Directories()} {
		for at, text := range files {
			t[at[1:]] = []byte(text)
		}
	}
	t["usr/share/flotilla/daemons"] = []byte(strings.Join(dist.Daemons(), "\n") + "\n")
	// A service after what would start it again; the store last, to which the others
	// say that they go.
	rank := func(name string) int {
		if path.Ext(name) == ".service" {
			return 1
		}
		return 0
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(b, a))
	})
	t["usr/share/flotilla/units"] = []byte(strings.Join(names, "\n") + "\n")
}

// own begins the names of files that a distribution's package may have under the
// classic name.
const own = "flotilla-"

// contested reports whether distributions have a package with a program of this name.
func contested(name string) bool { return name == "etcd" || name == "etcdctl" }

// links returns the links that make classic names stand for the program, each with
// what belongs to it among the files.
func links(files []string) string {
	slices.Sort(files)
	var out strings.Builder
	for _, name := range programs.All.Links() {
		fmt.Fprintf(&out, "%s usr/bin/%s flotilla\n", name, name)
		for _, file := range files {
			base := path.Base(file)
			short := strings.Replace(base, own+name, name, 1)
			if before, _, _ := strings.Cut(strings.TrimPrefix(base, "_"), "."); contested(name) && before == own+name {
				fmt.Fprintf(&out, "%s %s %s\n", name, path.Join(path.Dir(file), short), base)
			}
		}
	}
	return out.String()
}

// compress packs what is read through a pager: manuals and changelog.
func (t tree) compress() error {
	for _, at := range slices.Collect(maps.Keys(t)) {
		if !strings.HasPrefix(at, "usr/share/man/") && path.Base(at) != "changelog" {
			continue
		}
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := w.Write(t[at]); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		delete(t, at)
		t[at+".gz"] = packed.Bytes()
	}
	return nil
}

// write writes the files below dir, dated. Of what was in the directory before nothing stays.
func (t tree) write(dir string, date time.Time) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for at, text := range t {
		file := filepath.Join(dir, at)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(file string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(file, date, date)
	})
}
