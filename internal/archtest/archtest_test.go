package archtest

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/linked.txt anew")

type listed struct {
	ImportPath string
	Dir        string
	Standard   bool
	GoFiles    []string
	Imports    []string
	Doc        string
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Standard,GoFiles,Imports,Doc"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, errs.String())
	}
	var pkgs []listed
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestWalls(t *testing.T) {
	for _, p := range goList(t, "./...") {
		importer := strings.TrimPrefix(p.ImportPath, Module)
		if len(p.GoFiles) == 0 {
			continue // tests only: they may look at everything
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", importer)
		}
		for _, imp := range p.Imports {
			own, ours := strings.CutPrefix(imp, Module)
			if why := Check(importer, own, ours); why != "" {
				t.Error(why)
			}
		}
		if at, _ := placeOf(importer); at.rank == Pure {
			checkPure(t, p)
		}
		checkLengths(t, p)
	}
}

// A pure package asks no clock and starts no goroutine.
func checkPure(t *testing.T, p listed) {
	clock := []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}
	eachFile(t, p, func(fset *token.FileSet, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a pure package starts a goroutine", fset.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, n.Sel.Name) {
					t.Errorf("%s: a pure package asks the clock (time.%s): hand the time in", fset.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	})
}

// maxLines is how long a function may be; the median is near 10.
const maxLines = 100

func checkLengths(t *testing.T, p listed) {
	eachFile(t, p, func(fset *token.FileSet, f *ast.File) {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line; n > maxLines {
				t.Errorf("%s: %s has %d lines, more than %d", fset.Position(fn.Pos()), fn.Name.Name, n, maxLines)
			}
		}
	})
}

func eachFile(t *testing.T, p listed, visit func(*token.FileSet, *ast.File)) {
	for _, name := range p.GoFiles {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		visit(fset, f)
	}
}

// What is linked into the binary is a list that people review: a new line in it is
// a decision. "go test ./internal/archtest -update" writes it.
func TestLinkedPackages(t *testing.T) {
	const golden = "testdata/linked.txt"
	var got []string
	for _, p := range goList(t, "-deps", "./cmd/flotilla") {
		if !p.Standard && !strings.HasPrefix(p.ImportPath, Module) {
			got = append(got, p.ImportPath)
		}
	}
	slices.Sort(got)
	text := strings.Join(got, "\n") + "\n"
	if *update {
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range got {
		if !strings.Contains("\n"+string(want), "\n"+line+"\n") {
			t.Errorf("newly linked: %s (if wanted, run this test with -update)", line)
		}
	}
	for _, line := range strings.Fields(string(want)) {
		if !slices.Contains(got, line) {
			t.Errorf("no longer linked: %s (run this test with -update)", line)
		}
	}
}

// The walls themselves: each row would be a mistake, or is allowed.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ours, ok bool
	}{
		{"internal/fleet/sched", "internal/fleet/model", true, true},
		{"internal/fleet/sched", "os", false, false},
		{"internal/fleet/sched", "strings", false, true},
		{"internal/fleet/engine", "internal/fleet/sched", true, true},
		{"internal/fleet/sched", "internal/fleet/engine", true, false},
		{"internal/fleet/engine", "internal/kv/mvcc", true, false},
		{"internal/fleet/agent", "internal/systemd", true, true},
		{"internal/supervisor", "internal/systemd", true, false},
		{"internal/supervisor", "internal/atomicfile", true, true},
		{"internal/kv/v2", "internal/logx", true, false},
		{"internal/fleet/agent", "go.etcd.io/etcd/server/v3/embed", false, false},
		{"internal/kv/member", "go.etcd.io/etcd/server/v3/embed", false, true},
		{"internal/fleet/fleetctl", "client/fleet", true, true},
		{"internal/unitfile", "github.com/spf13/cobra", false, false},
		{"internal/newthing", "os", false, false},
		{"internal/up", "internal/kv/member", true, true},
		{"internal/kv/member", "internal/up", true, false},
	} {
		if why := Check(c.from, c.to, c.ours); (why == "") != c.ok {
			t.Errorf("%s imports %s: got %q", c.from, c.to, why)
		}
	}
}
