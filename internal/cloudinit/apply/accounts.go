package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"flotilla/internal/cloudinit/plan"
)

// Accounts are the users and groups of a tree, from /etc/passwd, /etc/group and
// /etc/shadow. Users of a directory service are not among them: useradd refuses those.
type Accounts struct {
	users  map[string]plan.Account
	groups map[string]uint32
}

// ReadAccounts reads those of a tree. Files that are missing have nobody in them.
func ReadAccounts(t *Tree) (Accounts, error) {
	a := Accounts{map[string]plan.Account{}, map[string]uint32{}}
	err := eachRecord(t, "/etc/passwd", 7, func(f []string) {
		a.users[f[0]] = plan.Account{UID: number(f[2]), GID: number(f[3]), Gecos: f[4], Home: f[5], Shell: f[6]}
	})
	err = errors.Join(err, eachRecord(t, "/etc/group", 4, func(f []string) {
		a.groups[f[0]] = number(f[2])
		for _, name := range strings.Split(f[3], ",") {
			if u, ok := a.users[name]; ok {
				u.Groups = append(u.Groups, f[0])
				a.users[name] = u
			}
		}
	}))
	return a, errors.Join(err, eachRecord(t, "/etc/shadow", 2, func(f []string) {
		if u, ok := a.users[f[0]]; ok {
			u.PasswordHash = f[1]
			a.users[f[0]] = u
		}
	}))
}

// eachRecord hands out the lines of a file that have at least so many fields.
func eachRecord(t *Tree, p string, fields int, f func([]string)) error {
	text, err := t.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if parts := strings.Split(strings.TrimSuffix(line, "\n"), ":"); len(parts) >= fields {
			f(parts)
		}
	}
	return err
}

func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return ^uint32(0) // nobody's
	}
	return uint32(n)
}

// userName returns the name of a user, the first by alphabet if there are several, or
// the number.
func (a Accounts) userName(uid uint32) string {
	return firstName(a.users, uid, func(u plan.Account) uint32 { return u.UID })
}

// groupName is userName for groups.
func (a Accounts) groupName(gid uint32) string {
	return firstName(a.groups, gid, func(id uint32) uint32 { return id })
}

func firstName[V any](all map[string]V, id uint32, idOf func(V) uint32) string {
	best := ""
	for name, v := range all {
		if idOf(v) == id && (best == "" || name < best) {
			best = name
		}
	}
	if best == "" {
		return fmt.Sprint(id)
	}
	return best
}

// userIDs are the numbers of all users.
func (a Accounts) userIDs() map[string]uint32 {
	out := map[string]uint32{}
	for name, u := range a.users {
		out[name] = u.UID
	}
	return out
}

// Owner finds USER, USER:GROUP, USER: (the group being the user's own) or :GROUP;
// each a name or a number. What is not given is as in fallback.
func (a Accounts) Owner(text string, fallback Owner) (Owner, error) {
	if text == "" {
		return fallback, nil
	}
	out := fallback
	user, group, both := strings.Cut(text, ":")
	if user != "" {
		u, known := a.users[user]
		n, err := strconv.Atoi(user)
		switch {
		case known:
			out.UID = int(u.UID)
		case err == nil:
			out.UID = n
		default:
			return out, fmt.Errorf("owner %q: there is no user %q", text, user)
		}
		if both && group == "" && known {
			out.GID = int(u.GID)
		}
	}
	if group != "" {
		gid, known := a.groups[group]
		n, err := strconv.Atoi(group)
		switch {
		case known:
			out.GID = int(gid)
		case err == nil:
			out.GID = n
		default:
			return out, fmt.Errorf("owner %q: there is no group %q", text, group)
		}
	}
	return out, nil
}

const (
	sshDir   = ".ssh"
	authFile = "authorized_keys"
	setsDir  = "authorized_keys.d"
)

// withKeys adds to an account what its home directory says.
func withKeys(t *Tree, a plan.Account) (plan.Account, error) {
	if st, err := t.Lstat(a.Home); err == nil {
		a.HasHome = st.Mode&unix.S_IFMT != unix.S_IFREG
	}
	ssh := path.Join(a.Home, sshDir)
	text, err := t.readRegular(path.Join(ssh, authFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return a, fmt.Errorf("SSH keys: %w", err)
	}
	a.AuthorizedKeys = string(text)
	names, err := t.ReadDir(path.Join(ssh, setsDir))
	if err != nil {
		return a, fmt.Errorf("SSH keys: %w", err)
	}
	a.Sets = map[string]string{}
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			continue // a write that was cut
		}
		text, err := t.readRegular(path.Join(ssh, setsDir, name))
		if err != nil {
			return a, fmt.Errorf("SSH keys: %w", err)
		}
		a.Sets[name] = string(text)
	}
	return a, nil
}

// writeKeys replaces one set of keys. authorized_keys comes first: see plan.MergeKeys.
func writeKeys(t *Tree, s plan.Step) error {
	accounts, err := ReadAccounts(t)
	if err != nil {
		return err
	}
	a, ok := accounts.users[s.Target]
	if !ok {
		return fmt.Errorf("there is no user %s", s.Target)
	}
	owner := Owner{int(a.UID), int(a.GID)}
	if a, err = withKeys(t, a); err != nil {
		return err
	}
	if !a.HasHome && !s.MakeHome {
		return fmt.Errorf("user %s has no home directory (%s) to put keys into", s.Target, a.Home)
	}
	if !a.HasHome {
		if err := t.Mkdir(a.Home, 0o700, owner); err != nil {
			return err
		}
	}
	ssh := path.Join(a.Home, sshDir)
	sets := path.Join(ssh, setsDir)
	for _, dir := range []string{ssh, sets} {
		if err := t.Mkdir(dir, 0o700, owner); err != nil {
			return err
		}
	}
	text := plan.MergeKeys(a.AuthorizedKeys, a.Sets, s.Set, s.Keys)
	if text != a.AuthorizedKeys {
		if err := t.Write(path.Join(ssh, authFile), []byte(text), s.Mode, owner); err != nil {
			return err
		}
	}
	set := path.Join(sets, s.Set)
	if len(s.Keys) == 0 {
		return t.Remove(set)
	}
	return t.Write(set, []byte(strings.Join(s.Keys, "\n")+"\n"), s.Mode, owner)
}
