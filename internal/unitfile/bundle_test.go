package unitfile

import (
	"strings"
	"testing"
)

const bundleText = `[Service]
ExecStart=/bin/true
#### 10-env.conf
[Service]
Environment=A=1
#### 20-more.conf
[X-Fleet]
Conflicts=hello@*
`

func TestBundle(t *testing.T) {
	b, err := ParseBundle(bundleText)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.DropIns) != 2 || b.DropIns[0].Name != "10-env.conf" || b.String() != bundleText {
		t.Fatalf("%+v\n%s", b, b)
	}
	f := b.Effective()
	if v, _ := f.Get("Service", "Environment"); v != "A=1" || len(f.Fleet(Conflicts)) != 1 {
		t.Errorf("effective: %s", f)
	}
}

// A unit without drop-ins keeps the text and the hash it always had.
func TestBundleOfOneFile(t *testing.T) {
	const text = "[Service]\nExecStart=/bin/true\n"
	b, err := ParseBundle("# comment\n" + text)
	if err != nil || b.String() != text || b.Hash() != HashText(text) {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestBadBundles(t *testing.T) {
	for text, want := range map[string]string{
		"[Service]\nA=b\n#### x\n[Service]\nB=c\n":                       `3:1: drop-in "x": its name must end in .conf`,
		"[Service]\nA=b\n#### ../x.conf\n":                               `hidden files`,
		"[Service]\nA=b\n#### a/b.conf\n":                                `invalid character '/'`,
		"[Service]\nA=b\n#### a.conf\n[Service\n":                        "4:1: unable to find end of section",
		"[Service]\nA=b\n#### a.conf\n[S]\nA=b\n#### a.conf\n[S]\nA=c\n": `two drop-ins called "a.conf"`,
	} {
		if _, err := ParseBundle(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// What can be parsed reads back as it is.
func FuzzBundle(f *testing.F) {
	f.Add(bundleText)
	f.Add("#### a.conf\n#### b.conf\n[S]\nA=b")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseBundle(text)
		if err != nil {
			return
		}
		again, err := ParseBundle(b.String())
		if err != nil || again.String() != b.String() {
			t.Fatalf("%q becomes %q, then %q (%v)", text, b.String(), again.String(), err)
		}
	})
}

func TestOwnValues(t *testing.T) {
	for _, c := range []struct{ option, value, bad string }{
		{Cores, "0.5", ""}, {Cores, "2", ""}, {Cores, "0", "no number of processors"}, {Cores, "NaN", "no number"}, {Cores, "-1", "no number"},
		{Memory, "512M", ""}, {Memory, "much", "much"},
		{Strategy, "pack", ""}, {Strategy, "tight", "neither spread nor pack"},
		{Spread, "rack", ""}, {Spread, "rack=a", "not the name of a metadata key"},
		{Prefers, "disk=ssd", ""}, {Prefers, "disk", "is not key=value"},
		{Singleton, "yes", ""}, {Singleton, "maybe", "not a boolean"},
		{MoveAfter, "never", ""}, {MoveAfter, "30s", ""}, {MoveAfter, "soon", "no time span"},
		{MaxUnavailable, "2", ""}, {MaxUnavailable, "0", "at least 1"}, {MaxRunning, "x", "at least 1"},
		{HealthyAfter, "5s", ""}, {HealthyTimeout, "1min", ""}, {HealthyTimeout, "5 apples", "no time span"},
		{HealthCheck, "/bin/true", ""}, {HealthCheck, "http://localhost:80/health", ""}, {HealthCheck, "tcp://:80", ""},
		{HealthCheck, "/bin/sh -c 'a b'", ""}, {HealthCheck, "/bin/sh -c 'a b", "quote ' is not closed"}, {HealthCheck, `/bin/grep \d /etc/x`, ""},
		{HealthCheck, "tcp://:0", "tcp://HOST:PORT"}, {HealthCheck, "ping", "absolute path"}, {HealthCheck, "http:///x", "URL with a host"},
	} {
		f, err := Parse("[X-Fleet]\n" + c.option + "=" + c.value + "\n")
		if err != nil {
			t.Fatal(err)
		}
		problems := CheckFleet("a.service", f)
		switch {
		case c.bad == "" && len(problems) > 0:
			t.Errorf("%s=%s: %v", c.option, c.value, problems)
		case c.bad != "" && (len(problems) != 1 || !strings.Contains(problems[0].Msg, c.bad)):
			t.Errorf("%s=%s: %v, want %s", c.option, c.value, problems, c.bad)
		}
	}
}

// A file whose last value goes on takes no drop-in with it.
func TestTextsThatGoOn(t *testing.T) {
	const conf = "[Service]\nUser=z\n"
	for main, kept := range map[string]string{
		"[Service]\nExecStart=/bin/a \\":               "\n\n",
		"[Service]\nExecStart=/bin/a \\\n":             "\n",
		"[Service]\r\nExecStart=/bin/a \\\r\n":         "\n",
		"[Service]\nExecStart=/bin/a \\\n# b":          "\n\n",
		"[Service]\nExecStart=/bin/a \\\n# b \\\n ;\n": "\n",
		"[Service]\nExecStart=/bin/a \\\\\n":           "",
		"[Service]\nExecStart=/bin/a\n# b \\":          "\n",
		"[Service]\nExecStart=/bin/a \\\n\n":           "",
		"not in a section \\\n":                        "\n",
	} {
		text := Texts{Main: main, DropIns: map[string]string{"a.conf": conf}}.String()
		if got := CutTexts(text); got.DropIns["a.conf"] != conf || got.Main != main+kept {
			t.Errorf("%q with a drop-in becomes %q", main, got)
		}
		if b, err := ParseBundle(text); err != nil || len(b.DropIns) != 1 {
			t.Errorf("%q with a drop-in reads as %+v (%v)", main, b, err)
		}
	}
}

// The files are taken apart and put together as they are, comments and all.
func TestTexts(t *testing.T) {
	const main, a, b = "# mine\n[Unit]\nDescription=x\n", "[Unit]\n# why\nAfter=y.service\n", "[Service]\nUser=z"
	text := main + "#### a.conf\n" + a + "#### b.conf\n" + b
	got := CutTexts(text)
	if got.Main != main || len(got.DropIns) != 2 || got.DropIns["a.conf"] != a || got.DropIns["b.conf"] != b {
		t.Errorf("%q", got)
	}
	if got.String() != text {
		t.Errorf("together %q", got.String())
	}
	if alone := CutTexts(main); alone.DropIns != nil || alone.String() != main {
		t.Errorf("without drop-ins %q", alone)
	}
	got.DropIns["c.conf"] = "[Unit]\n"
	if s := got.String(); !strings.HasSuffix(s, "User=z\n#### c.conf\n[Unit]\n") {
		t.Errorf("one more: %q", s)
	}
}
