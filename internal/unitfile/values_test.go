package unitfile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestWords(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string // nil: refused
	}{
		{``, []string{}},
		{`  /bin/echo   hello	world `, []string{"/bin/echo", "hello", "world"}},
		{`sh -c 'echo "a b"'`, []string{"sh", "-c", `echo "a b"`}},
		{`a "b 'c' d" e`, []string{"a", "b 'c' d", "e"}},
		{`"" ''`, []string{"", ""}},
		{`pre"mid dle"post`, []string{"premid dlepost"}},
		{`tab\there \x41\101\u00e9\U0001F600`, []string{"tab\there", "AAé😀"}},
		{`'\x41\'' \"q\"`, []string{"A'", `"q"`}},
		{`two\swords`, []string{"two words"}},
		{`"open`, nil},
		{`bad\q`, nil},
		{`zero\x00`, nil},
		{`cut\x4`, nil},
		{`end\`, nil},
		{`\u12`, nil},
		{`\ud800`, nil},
		{`\777`, nil},
	} {
		got, err := Words(c.in, Strict)
		if (err != nil) != (c.want == nil) || c.want != nil && !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, %v, want %q", c.in, got, err, c.want)
		}
	}
}

// Checked against systemd-analyze verify and what systemd 252 runs.
func TestWordsByEscapes(t *testing.T) {
	for _, c := range []struct {
		in                string
		lenient, verbatim []string // nil: refused
	}{
		{`grep 'a\.b' x\ty`, []string{"grep", `a\.b`, "x\ty"}, []string{"grep", `a\.b`, `x\ty`}},
		{`cut\x4 zero\x00 \777 end\`, []string{`cut\x4`, `zero\x00`, `\777`, `end\`}, []string{`cut\x4`, `zero\x00`, `\777`, `end\`}},
		{`dev-disk-by\x2did.device`, []string{"dev-disk-by-id.device"}, []string{`dev-disk-by\x2did.device`}},
		{`"a \" b"`, []string{`a " b`}, nil},
		{`\é`, []string{`\é`}, []string{`\é`}},
		{`"open`, nil, nil},
	} {
		for e, want := range map[Escapes][]string{Lenient: c.lenient, Verbatim: c.verbatim} {
			got, err := Words(c.in, e)
			if (err != nil) != (want == nil) || want != nil && !slices.Equal(got, want) {
				t.Errorf("%s (%d): got %q, %v, want %q", c.in, e, got, err, want)
			}
		}
	}
}

func TestQuotedWordsTellABareSemicolon(t *testing.T) {
	got, err := QuotedWords(`a ; b ";" \;`, Lenient)
	want := []Word{{"a", false}, {";", false}, {"b", false}, {";", true}, {";", true}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestParseBool(t *testing.T) {
	for in, want := range map[string]bool{
		"1": true, "yes": true, "Y": true, "true": true, "T": true, "ON": true,
		"0": false, "no": false, "n": false, "False": false, "f": false, "off": false,
	} {
		if got, err := ParseBool(in); err != nil || got != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "2", "maybe", "yes "} {
		if _, err := ParseBool(in); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

func TestParseSpan(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"90": 90 * time.Second, "0": 0, "5min 20s": 320 * time.Second, "1h30min": 90 * time.Minute,
		"1.5h": 90 * time.Minute, "300ms": 300 * time.Millisecond, "2 w": 14 * 24 * time.Hour,
		"50us": 50 * time.Microsecond, "50µs": 50 * time.Microsecond, "infinity": Infinity,
		"99999999999999y": Infinity, "290y 290y": Infinity, ".5": 500 * time.Millisecond, "1M": 2629800 * time.Second,
	} {
		if got, err := ParseSpan(in); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "soon", "5 parsecs", "1.2.3s", "-1s", ".", "s"} {
		if got, err := ParseSpan(in); err == nil {
			t.Errorf("%q was taken for %v", in, got)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]int{
		"SIGTERM": 15, "TERM": 15, "sigkill": 9, "9": 9, "HUP": 1, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63,
	} {
		if got, err := ParseSignal(in); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", in, got, err, want)
		}
		if back, err := ParseSignal(SignalName(want)); err != nil || back != want {
			t.Errorf("%d is %s, which is %d, %v", want, SignalName(want), back, err)
		}
	}
	for _, in := range []string{"", "SIG", "0", "65", "TERMINATE", "RTMIN+99", "RTMIN3", "-1"} {
		if got, err := ParseSignal(in); err == nil {
			t.Errorf("%q was taken for %d", in, got)
		}
	}
}

func TestParseSizesAndModes(t *testing.T) {
	for in, want := range map[string]uint64{
		"0": 0, "4096": 4096, "4K": 4096, "2G": 2 << 30, "infinity": 1<<64 - 1,
		"1.5G": 3 << 29, "0.25K": 256, "512 M": 1 << 29, "1G512M": 3 << 29, "1G 512M": 3 << 29, "1K1": 1025, "3B": 3, "15E": 15 << 60, "15.99999999999999999999E": 1<<64 - 1, "1.9": 1,
	} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "K", "4k", "-1", "99E", "15E 1E", "1K.", ".5G", "1.G", "1.2.3G", "1e3", "512MB", "1K 1M", "1 1", "10%", "16E"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("%q was taken for %d", in, got)
		}
	}
	if m, err := ParseMode("0022"); err != nil || m != 0o022 {
		t.Errorf("0022: %o, %v", m, err)
	}
	for _, in := range []string{"", "8", "rwx", "77777"} {
		if _, err := ParseMode(in); err == nil {
			t.Errorf("%q was taken for a mode", in)
		}
	}
}

func TestExpand(t *testing.T) {
	lookup := func(c byte) (string, bool) { return "<" + string(c) + ">", c == 'i' || c == 'n' }
	for in, want := range map[string]string{
		"plain": "plain", "%i": "<i>", "a%n%i": "a<n><i>", "100%%": "100%", "%%i": "%i", "%z": "%z", "%": "%", "50%": "50%",
	} {
		if got := Expand(in, lookup); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestUnfold(t *testing.T) {
	if got := Unfold(" a \\\n  b\\\nc "); got != "a    b c" {
		t.Errorf("got %q", got)
	}
}

func TestParseEnvFile(t *testing.T) {
	text := strings.Join([]string{
		"# a comment \\", "that goes on = here", "; another", "", "PLAIN=value with blanks   ",
		"SPACED = padded", "SINGLE='it is \"literal\" \\n'", `DOUBLE="a \"b\" \$c \n"`, `ESCAPED=a\ b\\c`,
		"LONG=one \\", "two", `MIXED="a b" c'd`, "EMPTY=", "no assignment", "1BAD=x", `TRAIL="x"   `, "LINES=\"1", "2\"", "LAST=end",
	}, "\n")
	got, problems := ParseEnvFile(text)
	want := []string{
		"PLAIN=value with blanks", "SPACED=padded", `SINGLE=it is "literal" \n`, `DOUBLE=a "b" $c \n`, `ESCAPED=a b\c`,
		"LONG=one two", "MIXED=a bc'd", "EMPTY=", "TRAIL=x", "LINES=1\n2", "LAST=end",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	wantProblems := "[line 14: \"no assignment\" is no assignment NAME=VALUE line 15: \"1BAD\" is no name of a variable]"
	if fmt.Sprint(problems) != wantProblems {
		t.Errorf("problems: %v", problems)
	}
	list, _ := EnvFileVariables(text)
	if i := slices.IndexFunc(list, func(v EnvVariable) bool { return v.Name == "MIXED" }); i < 0 || list[i].Line != 12 {
		t.Errorf("MIXED is number %d in %v", i, list)
	}
}

// What systemd 252 makes of each line (its environment.d generator reads files of that
// syntax and prints what it has read).
func TestParseEnvFileAsSystemd(t *testing.T) {
	for in, want := range map[string]string{
		`A=a"b c"`:            `A=a"b c"`,
		`A=--name="x y" -v`:   `A=--name="x y" -v`,
		`A=it's`:              `A=it's`,
		`A='a' b`:             `A=ab`,
		`A='a' 'b'`:           `A=ab`,
		`A="a"b"c d"`:         `A=ab"c d"`,
		`A=  'x'y'z'  `:       `A=xy'z'`,
		`A="a" # c`:           `A=a# c`,
		`A=\"q\"`:             `A="q"`,
		"A=a \\\n  b":         `A=a   b`,
		"A=a \\\n":            `A=a `,
		"A=\"x\\\ny\"":        `A=xy`,
		"A='x\\\ny'":          "A=x\\\ny",
		"A=\"a\" \t \\ b":     `A=a b`,
		"A=a\\\t":             "A=a\t",
		"# c \\\nB=2\nA=it's": `A=it's`,
	} {
		if got, problems := ParseEnvFile(in + "\nLAST=end"); !slices.Equal(got, []string{want, "LAST=end"}) {
			t.Errorf("%q: got %q (%v), want %q", in, got, problems, want)
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add(`/bin/sh -c 'a "b" \x41' ; \u00e9`)
	f.Fuzz(func(t *testing.T, s string) {
		ws, err := QuotedWords(s, Lenient)
		if strict, bad := QuotedWords(s, Strict); bad == nil && (err != nil || !slices.Equal(ws, strict)) {
			t.Errorf("%q: leniently %v (%v), strictly %v", s, ws, err, strict)
		}
		if err != nil {
			return
		}
		for _, w := range ws {
			if strings.IndexByte(w.Text, 0) >= 0 && strings.IndexByte(s, 0) < 0 {
				t.Errorf("%q made a zero byte: %q", s, w.Text)
			}
			if w.Text == "" && !w.Quoted {
				t.Errorf("%q made an empty word", s)
			}
		}
	})
}

func FuzzParseSpan(f *testing.F) {
	f.Add("5min 20s")
	f.Add("1.5h infinity")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseSpan(s); err == nil && d < 0 {
			t.Errorf("%q is %v", s, d)
		}
	})
}

func FuzzParseBytes(f *testing.F) {
	f.Add("1.5G 12K")
	f.Add("15.9999E 1023P")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseBytes(s)
		if first, errFirst := strconv.ParseUint(strings.TrimRight(s, sizeUnits), 10, 64); err == nil && errFirst == nil && n < first {
			t.Errorf("%q is %d", s, n)
		}
	})
}

func FuzzParseEnvFile(f *testing.F) {
	f.Add("A=b\nC='d'\n# e\nF=\"g\\\nh\"")
	f.Fuzz(func(t *testing.T, s string) {
		list, _ := ParseEnvFile(s)
		for _, a := range list {
			if err := CheckAssignment(a); err != nil || !utf8.ValidString(a) || strings.IndexByte(a, 0) >= 0 {
				t.Errorf("%q gave %q: %v", s, a, err)
			}
		}
	})
}

func FuzzExpandAndSignals(f *testing.F) {
	f.Add("%i%%n")
	f.Add("RTMIN+3")
	f.Fuzz(func(t *testing.T, s string) {
		if got := Expand(s, func(byte) (string, bool) { return "", false }); len(got) > len(s) {
			t.Errorf("%q became %q", s, got)
		}
		if n, err := ParseSignal(s); err == nil && (n < 1 || n > 64) {
			t.Errorf("%q is signal %d", s, n)
		}
	})
}
