package unitfile

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	long := strings.Repeat("x", 247) + ".service"
	for _, c := range []struct{ name, want string }{
		{"hello.service", ""},
		{"a:b-c_d.e\\f@g.service", ""},
		{".service", "unit name must have something before its type"},
		{"a@b@c.service", ""},
		{"web@.timer", ""},
		{"disk.mount", ""},
		{long, ""},
		{"", "unit name cannot be empty"},
		{"x" + long, "unit name exceeds maximum length (255)"},
		{"hello", `unit name must contain "."`},
		{"hello.", `unit name cannot end in "."`},
		{"hello.foo", `invalid unit type: "foo"`},
		{"hello.Service", `invalid unit type: "Service"`},
		{"a@b.mount", `invalid unit type for template: "mount"`},
		{"a b.service", `invalid character ' ' in unit name`},
		{"a/b.service", `invalid character '/' in unit name`},
		{"é.service", `invalid character 'é' in unit name`},
		{"@a.service", `unit name cannot start in "@"`},
		{"@ .service", `invalid character ' ' in unit name`},
	} {
		if got := errorText(CheckName(c.name)); got != c.want {
			t.Errorf("CheckName(%q) = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name, prefix, instance, typ string
		template                    string // that it is an instance of
		isTemplate                  bool
	}{
		{"foo.service", "foo", "", "service", "", false},
		{"foo@bar.service", "foo", "bar", "service", "foo@.service", false},
		{"foo@.service", "foo", "", "service", "", true},
		{"a@b@c.d.timer", "a", "b@c.d", "timer", "a@.timer", false},
		{"none", "none", "", "", "", false},
	} {
		prefix, instance, typ := Split(c.name)
		if prefix != c.prefix || instance != c.instance || typ != c.typ {
			t.Errorf("Split(%q) = %q, %q, %q", c.name, prefix, instance, typ)
		}
		template, ok := TemplateOf(c.name)
		if template != c.template || ok != (c.template != "") {
			t.Errorf("TemplateOf(%q) = %q, %v", c.name, template, ok)
		}
		if IsTemplate(c.name) != c.isTemplate {
			t.Errorf("IsTemplate(%q) = %v", c.name, !c.isTemplate)
		}
	}
}

func TestComplete(t *testing.T) {
	for arg, want := range map[string]string{
		"web":                  "web.service",
		"web@1":                "web@1.service",
		"./units/web.service":  "web.service",
		"dir.d/web":            "web.service",
		"backup.timer":         "backup.timer",
		"x.target":             "x.target.service",
		"srv-data.mount":       "srv-data.mount",
		"example.com":          "example.com.service",
		"/etc/units/a.socket/": "a.socket",
	} {
		if got := Complete(arg); got != want {
			t.Errorf("Complete(%q) = %q, want %q", arg, got, want)
		}
	}
}

func TestExpandFleet(t *testing.T) {
	const in = "%n %N %p %i %H %%"
	if got, want := ExpandFleet(in, "foo@bar.service"), "foo@bar.service foo@bar foo bar %H %%"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := ExpandFleet(in, "foo.service"), "foo.service foo foo  %H %%"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
