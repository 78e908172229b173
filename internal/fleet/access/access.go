// Package access decides who may do what through the fleet API.
//
// There are three roles. A viewer sees everything. A deployer sees everything and
// changes the units whose names begin with one of its prefixes. An admin does
// everything. Who somebody is follows from the connection alone: the owner of the
// process at the other end of a unix socket, or the subject of a certificate.
package access

import (
	"fmt"
	"slices"
	"strings"

	"flotilla/internal/fault"
)

// Role is what somebody may do.
type Role string

// The roles.
const (
	Admin    Role = "admin"
	Deployer Role = "deployer"
	Viewer   Role = "viewer"
)

// ParseRole reads the name of a role.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case Admin, Deployer, Viewer:
		return r, nil
	}
	return "", fmt.Errorf("role %q is none of admin, deployer, viewer", s)
}

// Who is somebody who sends requests.
type Who struct {
	Name     string   // of a user, or the common name of a certificate
	Role     Role     // "" may do nothing
	Prefixes []string // of a deployer: what unit names begin with, any of them
	From     string   // where the request came from, for the audit log
}

// String is the name with where it is.
func (w Who) String() string {
	if w.From == "" {
		return w.Name
	}
	return w.Name + " from " + w.From
}

// Kind says what a request touches.
type Kind int

// The kinds of request.
const (
	Read    Kind = iota // changes nothing
	Units               // changes the units that are named
	Cluster             // changes machines, or what is everybody's
)

// Request is what somebody wants.
type Request struct {
	Kind Kind
	// Doing is what is asked for, in words that follow "may not": "cordon machines".
	Doing string
	// Units are the units that Kind Units is about. None: whoever may change any
	// unit at all may do it.
	Units []string
	// Evicts are the globs of units that those are to push off their machines
	// (Replaces=): they are changed, too.
	Evicts []string
	// Conflicts are the globs of units that those bear no longer beside them
	// (Conflicts=): where theirs is the older request, the others have to move.
	Conflicts []string
}

// Denied is the error of a request that is not allowed.
type Denied struct {
	Who  Who
	Need Role   // the role that would do
	Msg  string // the whole sentence
}

// Error says who may not do what, and what is needed.
func (d *Denied) Error() string { return d.Msg }

// Decide returns nil if who may do what r says, else a *Denied.
func Decide(who Who, r Request) error {
	switch {
	case who.Role == Admin, r.Kind == Read && (who.Role == Viewer || who.Role == Deployer):
		return nil
	case r.Kind == Read:
		return deny(who, r, Viewer)
	case r.Kind == Cluster:
		return deny(who, r, Admin)
	case who.Role != Deployer:
		return deny(who, r, Deployer)
	}
	if i := slices.IndexFunc(r.Units, func(u string) bool { return !who.owns(u) }); i >= 0 {
		return fault.Hint(&Denied{Who: who, Need: Admin, Msg: fmt.Sprintf("%s may not %s: %s is outside the names that begin with %s",
			who.title(), r.Doing, r.Units[i], who.prefixes())},
			"that takes the role admin, or a deployer's certificate with a prefix of the name as OU")
	}
	if err := keepsOff(who, r, "Replaces", r.Evicts); err != nil {
		return err
	}
	return keepsOff(who, r, "Conflicts", r.Conflicts)
}

// keepsOff returns a *Denied if an option with these globs reaches units that are not
// who's.
func keepsOff(who Who, r Request, option string, globs []string) error {
	i := slices.IndexFunc(globs, func(glob string) bool { return !who.owns(literal(glob)) })
	if i < 0 {
		return nil
	}
	return &Denied{Who: who, Need: Admin, Msg: fmt.Sprintf("%s may not %s: %s=%s would push away units outside the names that begin with %s",
		who.title(), r.Doing, option, globs[i], who.prefixes())}
}

// owns reports whether a deployer may change the unit of that name.
func (w Who) owns(unit string) bool {
	return slices.ContainsFunc(w.Prefixes, func(p string) bool { return p != "" && strings.HasPrefix(unit, p) })
}

// literal is what every name begins with that a glob matches.
func literal(glob string) string {
	if i := strings.IndexAny(glob, `*?[\`); i >= 0 {
		return glob[:i]
	}
	return glob
}

func (w Who) title() string {
	if w.Role == "" {
		return w.Name + ", who has no role,"
	}
	return string(w.Role) + " " + w.Name
}

func (w Who) prefixes() string {
	if len(w.Prefixes) == 0 {
		return "(no prefix: the certificate has no OU)"
	}
	return strings.Join(w.Prefixes, " or ")
}

func deny(who Who, r Request, need Role) error {
	return &Denied{Who: who, Need: need, Msg: fmt.Sprintf("%s may not %s: that takes the role %s", who.title(), r.Doing, need)}
}
