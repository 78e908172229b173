package unitfile

import (
	"errors"
	"strings"
	"testing"
)

// Whatever the text, Parse does not panic; what it accepts has a canonical text
// that reads back as the same options and is written the same again; what it
// refuses, it refuses for problems that lie in the file.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "[Unit]\nDescription=x\n", "[A]\nx=1 \\\n  2\n\n[B]\ny=\\\n", "# c \\\n[A]\n;d\\\nx=1\n[A]\n",
		"[A]\nx=b \\ \n", "[A] junk\n[\nx\n=y\n", "\ufeff[A]\r\nx=1\\\r\n2\r\n", "a=b\n[]\n", "[A]\nx=1\\",
		"[A]\nx=1 \\\n# c\n ; d \\\n  2\ny=\\\n#\n", "[A]\nx=\\\n;\n\n[B]\n",
		"[X-Fleet]\nMachineMetadata=\"a=b\" \"c=d\"\nConflicts=[\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse(text)
		if err != nil {
			checkProblems(t, text, err)
			return
		}
		Check("fuzz@1.service", file)
		canonical := file.String()
		again, err := Parse(canonical)
		if err != nil {
			t.Fatalf("canonical text %q: %v", canonical, err)
		}
		if got := again.String(); got != canonical {
			t.Fatalf("canonical text %q becomes %q", canonical, got)
		}
		if len(again.Options) != len(file.Options) {
			t.Fatalf("%d options become %d", len(file.Options), len(again.Options))
		}
		if built, err := FromOptions(file.Options); err != nil || built.String() != canonical {
			t.Fatalf("from its options: %v, %q", err, built.String())
		}
	})
}

func checkProblems(t *testing.T, text string, err error) {
	t.Helper()
	var perr *ParseError
	if !errors.As(err, &perr) || len(perr.Problems) == 0 {
		t.Fatalf("error without problems: %v", err)
	}
	lines := strings.Count(text, "\n") + 1
	for _, p := range perr.Problems {
		if p.Line < 0 || p.Line > lines || p.Msg == "" {
			t.Fatalf("problem %+v of a text of %d lines", p, lines)
		}
	}
}

// A name that is accepted comes apart and goes together again, and is left alone by
// nothing that would change it.
func FuzzCheckName(f *testing.F) {
	for _, seed := range []string{"a.service", "a@b.service", "@.timer", "..", "a@.b.mount", "\\x2d.socket"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) != nil {
			return
		}
		prefix, instance, typ := Split(name)
		whole := prefix + "." + typ
		if strings.Contains(name, "@") {
			whole = prefix + "@" + instance + "." + typ
		}
		if whole != name {
			t.Fatalf("%q comes apart as %q, %q, %q", name, prefix, instance, typ)
		}
		if template, ok := TemplateOf(name); ok && (IsTemplate(name) || !IsTemplate(template) || CheckName(template) != nil) {
			t.Fatalf("%q is an instance of %q", name, template)
		}
	})
}
