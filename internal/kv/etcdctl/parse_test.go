package etcdctl

import (
	"errors"
	"flag"
	"io"
	"slices"
	"strings"
	"testing"
)

func testFlags() (fs *flag.FlagSet, ttl *int, recursive *bool) {
	fs = flag.NewFlagSet("test", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs, fs.Int("ttl", 0, ""), fs.Bool("recursive", false, "")
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		args      string
		operands  string
		ttl       int
		recursive bool
		err       string
	}{
		{args: "/k v", operands: "/k v"},
		{args: "--ttl 5 /k v", operands: "/k v", ttl: 5},
		{args: "/k v --ttl 5", operands: "/k v", ttl: 5},
		{args: "/k -ttl=5 v -recursive", operands: "/k v", ttl: 5, recursive: true},
		{args: "/k --recursive v", operands: "/k v", recursive: true},
		{args: "/k --recursive=false v", operands: "/k v"},
		{args: "/k -5", operands: "/k -5"},
		{args: "/k -", operands: "/k -"},
		{args: "/k -- --ttl 5", operands: "/k --ttl 5"},
		{args: "-- /k -v", operands: "/k -v"},
		{args: "-x /k", err: "not defined: -x"},
		{args: "/k v --tll 5", err: "not defined: -tll"},
		{args: "/k v w", operands: "/k v w"},
		{args: "/k --ttl", err: "needs an argument"},
		{args: "/k --ttl abc", err: `invalid value "abc" for flag -ttl`},
		{args: "/k v -h", err: flag.ErrHelp.Error()},
	} {
		t.Run(test.args, func(t *testing.T) {
			fs, ttl, recursive := testFlags()
			operands, err := parse(fs, strings.Fields(test.args), 2, 0)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(operands, " "); got != test.operands || *ttl != test.ttl || *recursive != test.recursive {
				t.Errorf("%q, ttl %d, recursive %t", got, *ttl, *recursive)
			}
		})
	}
}

// The flags of a command that is to be run are its own.
func TestParseForeign(t *testing.T) {
	for args, want := range map[string]string{
		"/k -- ls -recursive":  "/k ls -recursive",
		"/k ls -recursive --x": "/k ls -recursive --x",
		"-recursive /k sh -c":  "/k sh -c",
		"/k -recursive -- sh":  "/k sh",
		"/k sh -- -c":          "/k sh -- -c",
	} {
		fs, _, _ := testFlags()
		operands, err := parse(fs, strings.Fields(args), 0, 2)
		if got := strings.Join(operands, " "); err != nil || got != want {
			t.Errorf("%s: %q, %v", args, got, err)
		}
	}
}

// Whatever the arguments are, nothing behind "--" is a flag and nothing is lost.
func FuzzParse(f *testing.F) {
	f.Add("/k v --ttl 5", "--ttl 6")
	f.Add("-recursive", "")
	f.Fuzz(func(t *testing.T, before, after string) {
		head, tail := strings.Fields(before), strings.Fields(after)
		fs, _, _ := testFlags()
		operands, err := parse(fs, slices.Concat(head, []string{"--"}, tail), 0, 0)
		if err != nil || slices.Contains(head, "--") || lastTakesValue(head) {
			return
		}
		if !slices.Equal(operands[len(operands)-len(tail):], tail) {
			t.Errorf("%q behind -- became %q", tail, operands)
		}
	})
}

// lastTakesValue tells whether "--" itself would be a flag's value.
func lastTakesValue(args []string) bool {
	return len(args) > 0 && strings.HasSuffix(args[len(args)-1], "ttl")
}

func TestNearestFlag(t *testing.T) {
	fs, _, _ := testFlags()
	if err := nearestFlag(errors.New("flag provided but not defined: -recursve"), fs); err == nil {
		t.Error("no error")
	}
}
