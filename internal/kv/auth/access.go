package auth

import "slices"

// The names that mean something.
const (
	RootUser  = "root"
	RootRole  = "root"
	GuestRole = "guest"
)

// Credentials is what a request says about who makes it.
type Credentials struct {
	// Sent: User and Password were given, or a token that stands for them, and
	// nothing else counts.
	Sent           bool
	User, Password string
	// Certificate is the common name in a verified client certificate, or "".
	Certificate string
}

// Who is somebody who makes requests. The zero value is a guest. It is valid for
// as long as [State.Knows] says so.
type Who struct {
	user     string
	password string // the hash that was right; "" for a certificate's owner
}

// User is the user's name, "" for a guest.
func (w Who) User() string { return w.user }

// Guest is who has sent nothing.
func Guest() Who { return Who{} }

// PasswordHash returns the hash that the user's password has to fit, and who then
// is identified; ok is false if there is no such user, or none with a password.
func (s *State) PasswordHash(user string) (hash string, who Who, ok bool) {
	u, ok := s.users[user]
	if !ok || user == "" || u.Password == "" {
		return "", Who{}, false
	}
	return u.Password, Who{user, u.Password}, true
}

// ByCertificate is the user whose name a certificate bears: a guest if there is no
// such user.
func (s *State) ByCertificate(name string) Who {
	if _, ok := s.users[name]; !ok {
		return Guest()
	}
	return Who{user: name}
}

// Knows reports whether who was identified once still is that: the user exists and
// has the same password.
func (s *State) Knows(w Who) bool {
	if w.user == "" {
		return true
	}
	u, ok := s.users[w.user]
	return ok && (w.password == "" || w.password == u.Password)
}

// IsRoot reports whether everything is allowed: by the role root, or because the
// switch is off.
func (s *State) IsRoot(w Who) bool {
	return !s.enabled || w.user != "" && s.Knows(w) && slices.Contains(s.rolesOf(w.user), RootRole)
}

// rolesOf is the names of a user's roles. The user root always has the role root.
func (s *State) rolesOf(user string) []string {
	roles := s.users[user].Roles
	if user == RootUser && !slices.Contains(roles, RootRole) {
		roles = append(slices.Clip(roles), RootRole)
	}
	return roles
}

// patterns is all that w may read or write, apart from what root may.
func (s *State) patterns(w Who, write bool) []pattern {
	if !s.Knows(w) {
		return nil
	}
	roles := []string{GuestRole}
	if w.user != "" {
		roles = s.rolesOf(w.user)
	}
	var out []pattern
	for _, name := range roles {
		list := s.roles[name].KV.Read
		if write {
			list = s.roles[name].KV.Write
		}
		for _, text := range list {
			out = append(out, parsePattern(text))
		}
	}
	return out
}

// Need is what a request of the v2 API does to the key space.
type Need struct {
	Path      string // clean: "/" or without a slash at the end
	Write     bool
	Recursive bool
	// Inside: what is written is not the path but a new child of it (POST).
	Inside bool
}

// Verdict is what comes of a need.
type Verdict int

// The verdicts.
const (
	Refused Verdict = iota
	// AsDirectory is granted if the path is a directory: all in it is allowed, a
	// file's value at the path itself is not.
	AsDirectory
	Granted
)

// Decide says whether w may do what the request needs. The package comment has
// the rules.
func (s *State) Decide(w Who, n Need) Verdict {
	if s.IsRoot(w) {
		return Granted
	}
	inside := n.Path + "/"
	if n.Path == "/" {
		inside = "/"
	}
	best := Refused
	for _, p := range s.patterns(w, n.Write) {
		switch {
		case n.Recursive && !p.prefix:
		case p.covers(n.Path):
			return Granted
		case p.prefix && p.covers(inside) && n.Inside:
			return Granted
		case p.prefix && p.covers(inside) && !n.Write:
			best = AsDirectory
		}
	}
	return best
}

// MayRange reports whether w may read, or write, every key of the range through
// the v3 API.
func (s *State) MayRange(w Who, r Range, write bool) bool {
	return s.IsRoot(w) || covered(r, s.patterns(w, write))
}

// MayLease reports whether w may ask for leases: users may, and guests who may
// write anything at all.
func (s *State) MayLease(w Who) bool {
	if s.IsRoot(w) {
		return true
	}
	return s.Knows(w) && (w.user != "" || len(s.patterns(w, true)) > 0)
}
