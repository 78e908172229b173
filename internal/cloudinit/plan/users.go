package plan

import (
	"fmt"
	"slices"
	"strings"

	"flotilla/internal/cloudinit/config"
)

// coreGroups are the groups that Core becomes a member of where they exist: what the
// user of that name could do on CoreOS.
var coreGroups = []string{"docker", "fleet", "sudo", "systemd-journal", "wheel"}

// users plans accounts, passwords and keys: Core first, so that a machine can be
// reached whatever else goes wrong, then the others in the order of the document.
func (m *maker) users() {
	for _, u := range m.allUsers() {
		if why := badUser(u); why != "" {
			m.problem(u.Name, "user: %s: not made", why)
			continue
		}
		m.user(u)
		m.userKeys(u)
	}
}

// allUsers has each name once: the first entry says what the user is, later ones add
// keys and may change the password.
func (m *maker) allUsers() []config.User {
	var users []config.User
	if keys := append(slices.Clone(m.want.Document.SSHAuthorizedKeys), m.want.SSHKeys...); len(keys) > 0 {
		core := config.User{Name: Core, Gecos: "CoreOS Admin", Shell: "/bin/bash"}
		for _, g := range coreGroups {
			if has(m.have.Groups, g) {
				core.Groups = append(core.Groups, g)
			}
		}
		for _, u := range m.want.Document.Users {
			if u.Name == Core {
				core = u
				break
			}
		}
		core.SSHAuthorizedKeys = keys
		users = append(users, core)
	}
	for _, u := range m.want.Document.Users {
		i := slices.IndexFunc(users, func(x config.User) bool { return x.Name == u.Name })
		if i < 0 {
			users = append(users, u)
			continue
		}
		users[i].SSHAuthorizedKeys = slices.Concat(users[i].SSHAuthorizedKeys, u.SSHAuthorizedKeys)
		last(&users[i].PasswordHash, u.PasswordHash)
	}
	return users
}

// badUser says why a user cannot be handed to useradd and chpasswd.
func badUser(u config.User) string {
	switch {
	case u.Name == "":
		return "an entry has no name"
	case strings.HasPrefix(u.Name, "-") || strings.ContainsAny(u.Name, ":/ \t\n\x00"):
		return fmt.Sprintf("%q is no name of a user", u.Name)
	case strings.ContainsAny(u.PasswordHash, ":\n\x00"):
		return "the password hash holds a colon or a line break"
	case strings.ContainsAny(u.Gecos+u.Homedir+u.Shell+u.PrimaryGroup, ":\n\x00"):
		return "a value holds a colon or a line break"
	}
	return ""
}

func (m *maker) user(u config.User) {
	account, exists := m.have.Users[u.Name]
	listed := slices.ContainsFunc(m.want.Document.Users, func(x config.User) bool { return x.Name == u.Name })
	if !exists {
		why := "users"
		if !listed {
			why = "the keys at the top of the document are for this user"
		}
		if u.PrimaryGroup == "" && !u.NoUserGroup && has(m.have.Groups, u.Name) {
			u.PrimaryGroup = u.Name // useradd would refuse to make a group that exists
		}
		u.Groups = m.knownGroups(u)
		m.step(Step{Kind: AddUser, Target: u.Name, Why: why, User: u})
	} else if left := differs(u, account); listed && len(left) > 0 {
		m.note(u.Name, "the user exists: password and keys are applied, not %s", strings.Join(left, ", "))
	}
	if u.PasswordHash != "" && u.PasswordHash != account.PasswordHash {
		m.step(Step{Kind: Password, Target: u.Name, Why: "passwd of the user", User: u})
	}
}

// knownGroups leaves out groups that useradd would refuse to make the user for.
func (m *maker) knownGroups(u config.User) []string {
	var known []string
	for _, g := range u.Groups {
		if !m.groupExists(g) {
			m.problem(u.Name, "there is no group %s: the user is made without it", g)
			continue
		}
		known = append(known, g)
	}
	return known
}

// groupExists reports whether there is a group of that name or number by the time of
// the next step: useradd makes one for each user that has no other.
func (m *maker) groupExists(name string) bool {
	if has(m.have.Groups, name) {
		return true
	}
	for _, id := range m.have.Groups {
		if fmt.Sprint(id) == name {
			return true
		}
	}
	return slices.ContainsFunc(m.steps, func(s Step) bool {
		return s.Kind == AddUser && s.Target == name && !s.User.NoUserGroup && s.User.PrimaryGroup == ""
	})
}

// differs lists the options that an existing account does not have as asked for.
func differs(u config.User, a Account) []string {
	var out []string
	for _, o := range []struct{ name, want, have string }{
		{"gecos", u.Gecos, a.Gecos}, {"homedir", u.Homedir, a.Home}, {"shell", u.Shell, a.Shell},
	} {
		if o.want != "" && o.want != o.have {
			out = append(out, fmt.Sprintf("%s (stays %q)", o.name, o.have))
		}
	}
	for _, g := range u.Groups {
		if !slices.Contains(a.Groups, g) {
			out = append(out, "group "+g)
		}
	}
	return out
}

// userKeys plans the sets of a user: that of the document, then the imported ones.
func (m *maker) userKeys(u config.User) {
	account := m.have.Users[u.Name]
	auth, sets := account.AuthorizedKeys, account.Sets
	add := func(set string, keys []string, why string) {
		m.keySets[u.Name+"/"+set] = true
		next := MergeKeys(auth, sets, set, keys)
		if next == auth && sets[set] == setText(keys) {
			return
		}
		m.step(Step{Kind: Keys, Target: u.Name, Why: why, Set: set, Keys: keys, MakeHome: !u.NoCreateHome,
			File: File{Existed: account.AuthorizedKeys != "", Old: []byte(auth), New: []byte(next), OldMode: keysMode, Mode: keysMode}})
		auth, sets = next, withSet(sets, set, keys)
	}
	if len(u.SSHAuthorizedKeys) > 0 {
		set := m.want.KeySet
		if set == "" {
			set = DefaultKeySet
		}
		add(set, cleanKeys(u.SSHAuthorizedKeys), "ssh_authorized_keys")
	}
	for _, i := range m.want.Imported {
		if i.User == u.Name {
			add(i.Set, cleanKeys(i.Keys), "imported keys")
		}
	}
}

// keysMode is what authorized_keys and its sets have.
const keysMode = 0o600

// cleanKeys has each key once, on a line of its own.
func cleanKeys(keys []string) []string {
	var out []string
	for _, k := range keys {
		for l := range strings.Lines(k) {
			if l = strings.TrimSpace(l); l != "" && !slices.Contains(out, l) {
				out = append(out, l)
			}
		}
	}
	return out
}

func setText(keys []string) string { return joinLines(keys) }

func withSet(sets map[string]string, name string, keys []string) map[string]string {
	out := map[string]string{name: setText(keys)}
	for k, v := range sets {
		if k != name {
			out[k] = v
		}
	}
	return out
}

// MergeKeys returns the text of authorized_keys when one set is replaced: lines of the
// set's old text go unless another set has them, those of keys come, and all other
// lines stay where they are. The file has to be written before the set's own file, so
// that a run that is cut between the two forgets no old line.
func MergeKeys(auth string, sets map[string]string, name string, keys []string) string {
	elsewhere := map[string]bool{}
	for set, text := range sets {
		for _, l := range splitLines(text) {
			if set != name {
				elsewhere[l] = true
			}
		}
	}
	old := splitLines(sets[name])
	lines := slices.DeleteFunc(splitLines(auth), func(l string) bool {
		return slices.Contains(old, l) && !elsewhere[l] && !slices.Contains(keys, l)
	})
	for _, k := range keys {
		if !slices.Contains(lines, k) {
			lines = append(lines, k)
		}
	}
	return joinLines(lines)
}
