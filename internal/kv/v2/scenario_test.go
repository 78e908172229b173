package v2_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"flotilla/api/keys"
	"flotilla/internal/kv/v2"
)

var record = flag.Bool("record", false, "write what happens into testdata")

// TestScenarios plays testdata/*.txtar. A file of an archive is a story that
// begins with an empty store. Lines of a story:
//
//	> METHOD PATH [PARAMETERS]      a v2 request, percent-encoded
//	> v3 put KEY VALUE              a v3 client's put
//	> v3 del KEY                    a v3 client's delete; a KEY that ends in * is a prefix
//	> later DURATION                time passes, and what is due expires
//	> store                         shows all that the v3 store holds
//
// The lines below a request show the answer, or the event without one, and,
// indented, what was written to the v3 store.
func TestScenarios(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txtar")
	if len(files) == 0 {
		t.Fatal("no scenarios")
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := txtar.Format(archive)
		for i := range archive.Files {
			archive.Files[i].Data = []byte(play(t, string(archive.Files[i].Data)))
		}
		got := txtar.Format(archive)
		if *record {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		} else if !bytes.Equal(want, got) {
			t.Errorf("%s (-want +got):\n%s", file, cmp.Diff(string(want), string(got)))
		}
	}
}

type story struct {
	t   *testing.T
	g   *gateway
	now time.Time
	out strings.Builder
}

func play(t *testing.T, text string) string {
	s := &story{t: t, g: newGateway(), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "> "):
			s.out.WriteString(line)
			s.do(strings.Fields(line[2:]))
		case strings.HasPrefix(line, "#") || line == "\n":
			s.out.WriteString(line)
		}
	}
	return s.out.String()
}

func (s *story) do(words []string) {
	switch words[0] {
	case "v3":
		s.foreign(words[1], words[2:])
	case "later":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
		for _, c := range s.g.expire(s.t, s.now) {
			s.show(c.Event, c.Refresh)
		}
	case "store":
		for _, key := range slices.Sorted(maps.Keys(s.g.kvs)) {
			kv := s.g.kvs[key]
			fmt.Fprintf(&s.out, "  %s = %s @%d\n", key, kv.Value, kv.Modified)
		}
	default:
		s.request(words)
	}
}

func (s *story) foreign(verb string, args []string) {
	w := v2.Write{Kind: v2.DeleteKey, Key: args[0]}
	if prefix, ok := strings.CutSuffix(args[0], "*"); ok {
		w.Key, w.End = prefix, prefix+"\xff"
	}
	if verb == "put" {
		w.Kind, w.Value = v2.Put, args[1]
	}
	for _, c := range s.g.tree.Apply(s.g.commit(w), s.now) {
		s.show(c.Event, c.Refresh)
	}
}

func (s *story) request(words []string) {
	query := strings.Join(words[2:], "&")
	path, err := url.PathUnescape(words[1])
	if err != nil {
		s.t.Fatal(err)
	}
	r, kerr := v2.Parse(words[0], path, form(s.t, query))
	if kerr != nil {
		s.t.Fatal(kerr)
	}
	if r.Op == v2.Get {
		e, kerr := s.g.tree.Get(r.Path, r.Recursive, s.now)
		s.answer(e, kerr, false)
		return
	}
	plan, kerr := s.g.tree.Evaluate(r, s.now)
	if kerr != nil {
		s.answer(nil, kerr, false)
		return
	}
	e, _, changes := s.g.carryOut(s.t, plan, s.now)
	s.answer(e, nil, len(changes) == 1 && changes[0].Refresh)
	for _, w := range plan.Writes {
		s.write(w)
	}
}

func (s *story) answer(e *keys.Event, kerr *keys.Error, refresh bool) {
	if kerr != nil {
		fmt.Fprintln(&s.out, kerr)
		return
	}
	s.show(e, refresh)
}

func (s *story) show(e *keys.Event, refresh bool) {
	b, err := json.Marshal(e)
	if err != nil {
		s.t.Fatal(err)
	}
	s.out.Write(b)
	if refresh {
		s.out.WriteString(" (no watcher is told)")
	}
	s.out.WriteString("\n")
}

func (s *story) write(w v2.Write) {
	switch {
	case w.Kind == v2.Put:
		fmt.Fprintf(&s.out, "  put %s = %s\n", w.Key, w.Value)
	case w.Kind == v2.PutKeep:
		fmt.Fprintf(&s.out, "  put %s, value kept\n", w.Key)
	case w.End != "":
		fmt.Fprintf(&s.out, "  delete %s to %s\n", w.Key, w.End)
	default:
		fmt.Fprintf(&s.out, "  delete %s\n", w.Key)
	}
}
