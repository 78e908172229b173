package access

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/fault"
)

func TestDecide(t *testing.T) {
	admin := Who{Name: "root", Role: Admin}
	web := Who{Name: "ci", Role: Deployer, Prefixes: []string{"web-", "web@"}}
	bare := Who{Name: "ci", Role: Deployer}
	viewer := Who{Name: "grafana", Role: Viewer}
	nobody := Who{Name: "mallory"}

	read := Request{Kind: Read, Doing: "read"}
	units := func(names ...string) Request { return Request{Kind: Units, Doing: "change units", Units: names} }
	evicts := func(globs ...string) Request {
		return Request{Kind: Units, Doing: "change units", Units: []string{"web-1.service"}, Evicts: globs}
	}
	conflicts := func(globs ...string) Request {
		return Request{Kind: Units, Doing: "change units", Units: []string{"web-1.service"}, Conflicts: globs}
	}
	cordon := Request{Kind: Cluster, Doing: "cordon machines"}

	for _, c := range []struct {
		who  Who
		r    Request
		want string // "" allowed
	}{
		{admin, read, ""},
		{admin, units("db.service"), ""},
		{admin, cordon, ""},
		{admin, evicts("*"), ""},

		{web, read, ""},
		{web, units(), ""},
		{web, units("web-1.service", "web@2.service", "web@.service"), ""},
		{web, units("web-1.service", "db.service"), "deployer ci may not change units: db.service is outside the names that begin with web- or web@"},
		{web, units("web.service"), "deployer ci may not change units: web.service is outside the names that begin with web- or web@"},
		{web, evicts("web-old*"), ""},
		{web, evicts("web-old*", "*"), "deployer ci may not change units: Replaces=* would push away units outside the names that begin with web- or web@"},
		{web, evicts("we[b]-*"), "deployer ci may not change units: Replaces=we[b]-* would push away units outside the names that begin with web- or web@"},
		{web, conflicts("web@*.service"), ""},
		{web, conflicts("db*"), "deployer ci may not change units: Conflicts=db* would push away units outside the names that begin with web- or web@"},
		{web, cordon, "deployer ci may not cordon machines: that takes the role admin"},
		{bare, units("db.service"), "deployer ci may not change units: db.service is outside the names that begin with (no prefix: the certificate has no OU)"},
		{Who{Name: "ci", Role: Deployer, Prefixes: []string{""}}, units("db.service"), "deployer ci may not change units: db.service is outside the names that begin with "},

		{viewer, read, ""},
		{viewer, units(), "viewer grafana may not change units: that takes the role deployer"},
		{viewer, units("web-1.service"), "viewer grafana may not change units: that takes the role deployer"},
		{viewer, cordon, "viewer grafana may not cordon machines: that takes the role admin"},

		{nobody, read, "mallory, who has no role, may not read: that takes the role viewer"},
		{nobody, units("web-1.service"), "mallory, who has no role, may not change units: that takes the role deployer"},
	} {
		err := Decide(c.who, c.r)
		var d *Denied
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || err.Error() != c.want):
			t.Errorf("%s, %+v:\ngot  %v\nwant %s", c.who.Name, c.r, err, c.want)
		case err != nil && (!errors.As(err, &d) || d.Need == ""):
			t.Errorf("%s: %T", c.who.Name, err)
		}
	}
}

// Whoever may change a unit may change every other one that begins alike, and an
// admin may do whatever anybody may.
func FuzzPrefixes(f *testing.F) {
	f.Add("web-", "web-1.service")
	f.Add("", "a.service")
	f.Fuzz(func(t *testing.T, prefix, unit string) {
		who := Who{Name: "x", Role: Deployer, Prefixes: []string{prefix}}
		allowed := Decide(who, Request{Kind: Units, Units: []string{unit}}) == nil
		if allowed != (prefix != "" && strings.HasPrefix(unit, prefix)) {
			t.Errorf("prefix %q, unit %q: %v", prefix, unit, allowed)
		}
	})
}

func TestCertified(t *testing.T) {
	for _, c := range []struct {
		subject  Subject
		fallback Role
		want     Who
		err      string
	}{
		{Subject{CommonName: "anna", Organization: []string{"Example Ltd", "flotilla:admin"}}, "", Who{Name: "anna", Role: Admin}, ""},
		{Subject{CommonName: "ci", Organization: []string{"flotilla:deployer"}, OrganizationalUnit: []string{"web-", "", "api@"}}, "",
			Who{Name: "ci", Role: Deployer, Prefixes: []string{"web-", "api@"}}, ""},
		{Subject{CommonName: "grafana", Organization: []string{"flotilla:viewer", "flotilla:viewer"}, OrganizationalUnit: []string{"web-"}}, "",
			Who{Name: "grafana", Role: Viewer}, ""},
		{Subject{CommonName: "m1", Organization: []string{"Example Ltd"}}, Viewer, Who{Name: "m1", Role: Viewer}, ""},
		{Subject{}, Viewer, Who{Name: "a certificate without a name", Role: Viewer}, ""},
		{Subject{CommonName: "m1"}, "", Who{}, `certificate "m1" names no role`},
		{Subject{CommonName: "m1", Organization: []string{"flotilla:root"}}, Admin, Who{}, `certificate "m1": role "root" is none of admin, deployer, viewer`},
		{Subject{CommonName: "m1", Organization: []string{"flotilla:"}}, Admin, Who{}, `certificate "m1": role "" is none of admin, deployer, viewer`},
		{Subject{CommonName: "m1", Organization: []string{"flotilla:viewer", "flotilla:admin"}}, "", Who{}, `certificate "m1" names more than one role: viewer, admin`},
	} {
		got, err := Certified(c.subject, c.fallback, "10.0.0.7")
		if c.err != "" {
			if err == nil || err.Error() != c.err || len(fault.Hints(err)) == 0 || got.Role != "" {
				t.Errorf("%+v: %+v, %v, want %s and a hint", c.subject, got, err, c.err)
			}
			continue
		}
		if err != nil || got.Name != c.want.Name || got.Role != c.want.Role || !slices.Equal(got.Prefixes, c.want.Prefixes) || got.From != "10.0.0.7" {
			t.Errorf("%+v: %+v, %v", c.subject, got, err)
		}
	}
}

func TestLocal(t *testing.T) {
	const daemon, fleet = 500, 980
	for _, c := range []struct {
		p     Process
		fleet int
		name  string
		err   string
	}{
		{Process{PID: 1, UID: 0, User: "root"}, -1, "root", ""},
		{Process{PID: 2, UID: daemon}, -1, "uid 500", ""},
		{Process{PID: 3, UID: 1000, User: "anna", Groups: []int{1000, fleet}}, fleet, "anna", ""},
		{Process{PID: 4, UID: 1001, User: "bert", Groups: []int{1001}}, fleet, "", "user bert is neither root nor in the group fleet"},
		{Process{PID: 5, UID: 1002, Groups: []int{-1}}, -1, "", "user uid 1002 is neither root nor in the group fleet"},
	} {
		got, err := Local(c.p, daemon, c.fleet)
		if c.err != "" {
			if err == nil || err.Error() != c.err || len(fault.Hints(err)) == 0 || got.Role != "" {
				t.Errorf("%+v: %+v, %v", c.p, got, err)
			}
			continue
		}
		if err != nil || got.Name != c.name || got.Role != Admin {
			t.Errorf("%+v: %+v, %v", c.p, got, err)
		}
	}
}

func TestParseRole(t *testing.T) {
	if r, err := ParseRole("viewer"); r != Viewer || err != nil {
		t.Errorf("%s, %v", r, err)
	}
	if _, err := ParseRole("Admin"); err == nil {
		t.Error("roles are written in lower case")
	}
}
