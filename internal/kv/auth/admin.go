package auth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"
)

// Kind is what a path below /v2/auth names.
type Kind int

// The kinds. Deeper is a path with too many components.
const (
	Switch Kind = iota
	Users
	User
	Roles
	RoleKind
	Deeper
)

// Target is a path below /v2/auth.
type Target struct {
	Kind Kind
	Name string // of the user or role
}

// ParseTarget reads what follows /v2/auth in a clean, percent-decoded URL path.
// It is not ok for what there is not.
func ParseTarget(rest string) (Target, bool) {
	if rest == "/enable" {
		return Target{Kind: Switch}, true
	}
	pieces := strings.Split(path.Clean(rest), "/")
	if len(pieces) < 2 || pieces[0] != "" || pieces[1] != "users" && pieces[1] != "roles" {
		return Target{}, false
	}
	all, one := Users, User
	if pieces[1] == "roles" {
		all, one = Roles, RoleKind
	}
	switch len(pieces) {
	case 2:
		return Target{Kind: all}, true
	case 3:
		return Target{Kind: one, Name: pieces[2]}, true
	}
	return Target{Kind: Deeper}, true
}

// Methods is the methods that the target has, in the order of the Allow header;
// nil: any is answered.
func (t Target) Methods() []string {
	switch t.Kind {
	case Users, Roles:
		return []string{"GET"}
	case Deeper:
		return nil
	}
	return []string{"GET", "PUT", "DELETE"}
}

// Permissions is the keys that a role gives, as on the wire and in the store.
type Permissions struct {
	KV struct {
		Read  []string `json:"read"`
		Write []string `json:"write"`
	} `json:"kv"`
}

func (p *Permissions) empty() bool {
	return p == nil || len(p.KV.Read) == 0 && len(p.KV.Write) == 0
}

// everything is what the role root has, and guests have at the beginning.
func everything() Permissions {
	var p Permissions
	p.KV.Read, p.KV.Write = []string{"/*"}, []string{"/*"}
	return p
}

// Role is a role on the wire.
type Role struct {
	Role        string       `json:"role"`
	Permissions Permissions  `json:"permissions"`
	Grant       *Permissions `json:"grant,omitempty"`
	Revoke      *Permissions `json:"revoke,omitempty"`
}

// UserChange is what the body of a PUT says about a user, and without the password
// the answer to it.
type UserChange struct {
	User     string   `json:"user"`
	Password string   `json:"password,omitempty"`
	Roles    []string `json:"roles"`
	Grant    []string `json:"grant,omitempty"`
	Revoke   []string `json:"revoke,omitempty"`
}

// UserView is a user as a GET shows it.
type UserView struct {
	User  string `json:"user"`
	Roles []Role `json:"roles,omitempty"`
}

// Request is a request of the auth API. Method is one of the target's.
type Request struct {
	Method string
	Target Target
	Body   []byte
	// Hash is the bcrypt hash of the password in the body; see [Request.Password].
	Hash string
	// Secret is SecretSize random bytes; what the switch is turned on with.
	Secret []byte
}

// Password is the new password in the body of a request; "" if it sets none. Its
// hash has to be in the request for [State.Administer].
func (r Request) Password() string {
	if r.Target.Kind != User || r.Method != "PUT" {
		return ""
	}
	in, _ := decodeBody[UserChange](r.Body)
	return in.Password
}

// Free reports whether the request is answered to anybody.
func (r Request) Free() bool {
	return r.Target.Kind == Deeper || r.Target.Kind == Switch && r.Method == "GET"
}

// decodeBody reads the first JSON value of a body; what follows it does not count.
func decodeBody[T any](body []byte) (T, bool) {
	var out T
	err := json.NewDecoder(bytes.NewReader(body)).Decode(&out)
	return out, err == nil
}

// Answer is the answer to a request of the auth API. Body is JSON, or empty.
type Answer struct {
	Status int
	Body   string
}

// Message is an answer in words.
func Message(status int, format string, args ...any) Answer {
	b, err := json.Marshal(map[string]string{"message": fmt.Sprintf(format, args...)})
	if err != nil {
		panic("auth: encode message: " + err.Error()) // a string
	}
	return Answer{status, string(b)}
}

// refusal is a message of the auth API itself.
func refusal(status int, format string, args ...any) Answer {
	return Message(status, "auth: "+format, args...)
}

// shown is an answer with a value, in a line of its own.
func shown(status int, v any) Answer {
	b, err := json.Marshal(v)
	if err != nil {
		panic("auth: encode answer: " + err.Error()) // strings and lists of them
	}
	return Answer{status, string(b) + "\n"}
}

// Unauthorized is the answer to who may not administer.
func Unauthorized() Answer { return Message(401, "Insufficient credentials") }

// Administer answers a request that w makes. What is to be written for it holds
// while the store's RevisionKey is at the state's version. Nothing to write: the
// answer stands by itself.
func (s *State) Administer(w Who, r Request) (Answer, []Write) {
	var a Answer
	var writes []Write
	switch {
	case r.Target.Kind == Deeper:
		return Message(400, "Invalid path"), nil
	case !r.Free() && !s.IsRoot(w):
		return Unauthorized(), nil
	case r.Target.Kind == Switch:
		a, writes = s.turn(r)
	case r.Target.Kind == Users:
		a = s.listUsers()
	case r.Target.Kind == Roles:
		a = s.listRoles()
	case r.Target.Kind == User:
		a, writes = s.administerUser(r)
	default:
		a, writes = s.administerRole(r)
	}
	if len(writes) > 0 {
		writes = append(writes, Write{Key: RevisionKey})
	}
	return a, writes
}

func (s *State) turn(r Request) (Answer, []Write) {
	switch {
	case r.Method == "GET":
		return shown(200, map[string]bool{"enabled": s.enabled}), nil
	case r.Method == "DELETE" && !s.enabled:
		return refusal(409, "already disabled"), nil
	case r.Method == "DELETE":
		return Answer{Status: 200}, []Write{{Key: SwitchKey, Delete: true}}
	case s.enabled:
		return refusal(409, "already enabled"), nil
	}
	if _, ok := s.users[RootUser]; !ok {
		return refusal(409, "No root user available, please create one"), nil
	}
	writes := []Write{putSwitch(r.Secret)}
	if _, ok := s.roles[GuestRole]; !ok {
		writes = append(writes, put(rolePrefix+GuestRole, everything()))
	}
	return Answer{Status: 200}, writes
}

// role returns a role by its name; the role root is always there.
func (s *State) role(name string) (Role, bool) {
	if name == RootRole {
		return Role{Role: name, Permissions: everything()}, true
	}
	p, ok := s.roles[name]
	return Role{Role: name, Permissions: p}, ok
}

func (s *State) listRoles() Answer {
	names := slices.Collect(maps.Keys(s.roles))
	names = append(slices.DeleteFunc(names, func(n string) bool { return n == RootRole }), RootRole)
	slices.Sort(names)
	roles := make([]Role, len(names))
	for i, n := range names {
		roles[i], _ = s.role(n)
	}
	return shown(200, map[string][]Role{"roles": roles})
}

func (s *State) listUsers() Answer {
	var users []UserView
	for _, name := range slices.Sorted(maps.Keys(s.users)) {
		view, _ := s.view(name)
		users = append(users, view)
	}
	return shown(200, map[string][]UserView{"users": users})
}

// view is a user with the roles that exist, and the name of the first that does not.
func (s *State) view(name string) (v UserView, missing string) {
	v.User = name
	for _, r := range s.rolesOf(name) {
		role, ok := s.role(r)
		switch {
		case ok:
			v.Roles = append(v.Roles, role)
		case missing == "":
			missing = r
		}
	}
	return v, missing
}

func (s *State) administerUser(r Request) (Answer, []Write) {
	name := r.Target.Name
	_, known := s.users[name]
	switch {
	case r.Method == "GET" && !known:
		return refusal(404, "User %s does not exist.", name), nil
	case r.Method == "GET":
		v, missing := s.view(name)
		if missing != "" {
			return refusal(404, "Role %s does not exist.", missing), nil
		}
		return shown(200, v), nil
	case r.Method == "DELETE" && s.enabled && name == RootUser:
		return refusal(403, "Cannot delete root user while auth is enabled."), nil
	case r.Method == "DELETE" && !known:
		return refusal(404, "User %s does not exist", name), nil
	case r.Method == "DELETE":
		return Answer{Status: 200}, []Write{{Key: userPrefix + name, Delete: true}}
	}
	in, ok := decodeBody[UserChange](r.Body)
	change := len(in.Grant) > 0 || len(in.Revoke) > 0
	switch {
	case !ok:
		return Message(400, "Invalid JSON in request body."), nil
	case in.User != name:
		return Message(400, "User JSON name does not match the name in the URL"), nil
	case change && len(in.Roles) > 0:
		return Message(400, "User JSON contains both roles and grant/revoke"), nil
	case change || known && len(in.Roles) == 0:
		return s.changeUser(in, r.Hash)
	}
	return s.createUser(in, r.Hash)
}

func (s *State) createUser(in UserChange, hash string) (Answer, []Write) {
	status := 201
	if len(in.Roles) > 0 {
		status = 200
	}
	switch _, known := s.users[in.User]; {
	case in.Password == "":
		return refusal(400, "Cannot create user %s with an empty password", in.User), nil
	case known:
		return refusal(409, "User %s already exists.", in.User), nil
	}
	if in.User == RootUser && !slices.Contains(in.Roles, RootRole) {
		in.Roles = append(in.Roles, RootRole)
	}
	record := userRecord{hash, in.Roles}
	return shown(status, UserChange{User: in.User, Roles: in.Roles}), []Write{put(userPrefix+in.User, record)}
}

func (s *State) changeUser(in UserChange, hash string) (Answer, []Write) {
	old, known := s.users[in.User]
	if !known {
		return refusal(404, "User %s does not exist.", in.User), nil
	}
	old.Roles = s.rolesOf(in.User)
	record := userRecord{Password: old.Password}
	if in.Password != "" {
		record.Password = hash
	}
	roles := set(old.Roles)
	for _, g := range in.Grant {
		if roles[g] {
			return refusal(409, "Granting duplicate role %s for user %s", g, in.User), nil
		}
		roles[g] = true
	}
	for _, r := range in.Revoke {
		if !roles[r] {
			return refusal(409, "Revoking ungranted role %s for user %s", r, in.User), nil
		}
		delete(roles, r)
	}
	record.Roles = members(roles)
	if reflect.DeepEqual(old, record) {
		return refusal(400, "User not updated. Use grant/revoke/password to update the user."), nil
	}
	return shown(200, UserChange{User: in.User, Roles: record.Roles}), []Write{put(userPrefix+in.User, record)}
}

func (s *State) administerRole(r Request) (Answer, []Write) {
	name := r.Target.Name
	role, known := s.role(name)
	switch {
	case r.Method == "GET" && !known:
		return refusal(404, "Role %s does not exist.", name), nil
	case r.Method == "GET":
		return shown(200, role), nil
	case r.Method == "DELETE" && name == RootRole:
		return refusal(403, "Cannot modify role %s: is root role.", name), nil
	case r.Method == "DELETE" && !known:
		return refusal(404, "Role %s doesn't exist.", name), nil
	case r.Method == "DELETE":
		return Answer{Status: 200}, []Write{{Key: rolePrefix + name, Delete: true}}
	}
	in, ok := decodeBody[Role](r.Body)
	change := !in.Grant.empty() || !in.Revoke.empty()
	switch {
	case !ok:
		return Message(400, "Invalid JSON in request body."), nil
	case in.Role != name:
		return Message(400, "Role JSON name does not match the name in the URL"), nil
	case change && !in.Permissions.empty():
		return Message(400, "Role JSON contains both permissions and grant/revoke"), nil
	case name == RootRole:
		return refusal(403, "Cannot modify role %s: is root role.", name), nil
	case change && !known:
		return refusal(404, "Role %s does not exist.", name), nil
	case change:
		return changeRole(role, in)
	case known:
		return refusal(409, "Role %s already exists.", name), nil
	}
	return shown(201, in), []Write{put(rolePrefix+name, in.Permissions)}
}

// changeRole grants and revokes patterns. To revoke what is not there is no error
// as long as something changes.
func changeRole(old, in Role) (Answer, []Write) {
	out := Role{Role: old.Role}
	for _, list := range []struct {
		what string
		of   func(*Permissions) *[]string
	}{
		{"read", func(p *Permissions) *[]string { return &p.KV.Read }},
		{"write", func(p *Permissions) *[]string { return &p.KV.Write }},
	} {
		have := set(*list.of(&old.Permissions))
		if in.Grant != nil {
			for _, p := range *list.of(in.Grant) {
				if have[p] {
					return refusal(409, "Granting duplicate %s permission %s", list.what, p), nil
				}
				have[p] = true
			}
		}
		if in.Revoke != nil {
			for _, p := range *list.of(in.Revoke) {
				delete(have, p)
			}
		}
		*list.of(&out.Permissions) = members(have)
	}
	if reflect.DeepEqual(old, out) {
		return refusal(400, "Role not updated. Use grant/revoke to update the role."), nil
	}
	return shown(200, out), []Write{put(rolePrefix+old.Role, out.Permissions)}
}

func set(list []string) map[string]bool {
	out := map[string]bool{}
	for _, s := range list {
		out[s] = true
	}
	return out
}

// members is a set in order; never nil.
func members(set map[string]bool) []string {
	return append([]string{}, slices.Sorted(maps.Keys(set))...)
}
