package etcdctl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"path"
	"strings"

	"flotilla/client/keys"
	"flotilla/internal/fault"
)

func authCommand() command {
	return command{
		name: "auth", summary: "whether the store asks who comes",
		sub: []command{
			{name: "enable", summary: "let in only users, and guests to what the role guest may do", run: setAuth(true, "Enabled")},
			{name: "disable", summary: "let in everybody to everything", run: setAuth(false, "Disabled")},
		},
	}
}

func setAuth(on bool, done string) func(context.Context, *session, []string) error {
	return func(ctx context.Context, s *session, args []string) error {
		if len(args) > 0 {
			return failed(classic("No arguments accepted"))
		}
		if err := s.client.SetAuth(ctx, on); err != nil {
			return failed(err)
		}
		fmt.Fprintln(s.env.Stdout, "Authentication "+done)
		return nil
	}
}

// listFlag collects the values of a flag that may be repeated, and may have several
// with commas in between.
type listFlag []string

func (l *listFlag) String() string { return strings.Join(*l, ",") }

func (l *listFlag) Set(v string) error {
	*l = append(*l, strings.Split(v, ",")...)
	return nil
}

func userCommand() command {
	return command{
		name: "user", summary: "the users of the store",
		sub: []command{
			{name: "add", args: "NAME[:PASSWORD]", summary: "make a user, or change its password; asks for a missing one", run: named("username", userAdd)},
			{name: "get", args: "NAME", summary: "print a user's roles", run: named("username", userGet)},
			{name: "list", summary: "print the names of all users", run: listNames((*keys.Client).Users)},
			{name: "remove", args: "NAME", summary: "remove a user", run: named("username", userRemove)},
			userRoles("grant", "give roles to a user", (*keys.Client).GrantRoles),
			userRoles("revoke", "take roles from a user", (*keys.Client).RevokeRoles),
			{name: "passwd", args: "NAME", summary: "ask for a user's new password", run: named("username", userPasswd)},
		},
	}
}

// named is a command that wants one name, of what it says.
func named(what string, run func(context.Context, *session, string) error) func(context.Context, *session, []string) error {
	return func(ctx context.Context, s *session, args []string) error {
		if len(args) != 1 || args[0] == "" || strings.HasPrefix(args[0], ":") {
			return failed(classic("Please provide a " + what))
		}
		return run(ctx, s, args[0])
	}
}

// did prints what was done, if it was.
func (s *session) did(err error, format string, args ...any) error {
	if err != nil {
		return failed(err)
	}
	fmt.Fprintf(s.env.Stdout, format+"\n", args...)
	return nil
}

func listNames(list func(*keys.Client, context.Context) ([]string, error)) func(context.Context, *session, []string) error {
	return func(ctx context.Context, s *session, args []string) error {
		if len(args) > 0 {
			return failed(classic("No arguments accepted"))
		}
		names, err := list(s.client, ctx)
		if err != nil {
			return failed(err)
		}
		for _, n := range names {
			fmt.Fprintln(s.env.Stdout, n)
		}
		return nil
	}
}

// newPassword asks for one.
func (s *session) newPassword() (string, error) {
	fmt.Fprint(s.env.Stderr, "New password: ")
	defer fmt.Fprintln(s.env.Stderr)
	return readHidden(s.env.Stdin)
}

func userAdd(ctx context.Context, s *session, arg string) error {
	name, password, given := strings.Cut(arg, ":")
	if !given {
		var err error
		if password, err = s.newPassword(); err != nil {
			return failed(err)
		}
	}
	return s.did(s.client.SetPassword(ctx, name, password), "User %s created", name)
}

func userPasswd(ctx context.Context, s *session, name string) error {
	password, err := s.newPassword()
	if err != nil {
		return failed(err)
	}
	return s.did(s.client.SetPassword(ctx, name, password), "Password updated")
}

func userGet(ctx context.Context, s *session, name string) error {
	u, err := s.client.User(ctx, name)
	return s.did(err, "User: %s\nRoles: %s", name, strings.Join(u.Roles, " "))
}

func userRemove(ctx context.Context, s *session, name string) error {
	return s.did(s.client.RemoveUser(ctx, name), "User %s removed", name)
}

func userRoles(name, summary string, change func(*keys.Client, context.Context, string, []string) error) command {
	var roles listFlag
	return command{
		name: name, args: "--roles ROLE[,ROLE...] NAME", summary: summary,
		flags: func(fs *flag.FlagSet) {
			fs.Var(&roles, "roles", "names of roles, with commas in between; may be repeated")
		},
		run: func(ctx context.Context, s *session, args []string) error {
			return named("username", func(ctx context.Context, s *session, user string) error {
				if len(roles) == 0 {
					return failed(classic("No roles specified; please use `--roles`"))
				}
				return s.did(change(s.client, ctx, user, roles), "User %s updated", user)
			})(ctx, s, args)
		},
	}
}

func roleCommand() command {
	return command{
		name: "role", summary: "the roles that users may have",
		sub: []command{
			{name: "add", args: "ROLE", summary: "make a role that may do nothing yet", run: named("role name", roleAdd)},
			{name: "get", args: "ROLE", summary: "print the keys that a role may read and write", run: named("role name", roleGet)},
			{name: "list", summary: "print the names of all roles", run: roleList},
			{name: "remove", args: "ROLE", summary: "remove a role", run: named("role name", roleRemove)},
			roleKeys("grant", "let a role read or write keys", (*keys.Client).GrantKeys),
			roleKeys("revoke", "let a role no longer read or write keys", (*keys.Client).RevokeKeys),
		},
	}
}

func roleAdd(ctx context.Context, s *session, name string) error {
	if _, err := s.client.Role(ctx, name); err == nil {
		return failed(classic(fmt.Sprintf("Role %s already exists", name)))
	}
	return s.did(s.client.AddRole(ctx, name, keys.Permissions{}), "Role %s created", name)
}

func roleGet(ctx context.Context, s *session, name string) error {
	p, err := s.client.Role(ctx, name)
	if err != nil {
		return failed(err)
	}
	w := s.env.Stdout
	fmt.Fprintf(w, "Role: %s\nKV Read:\n", name)
	for _, k := range p.Read {
		fmt.Fprintf(w, "\t%s\n", k)
	}
	fmt.Fprintln(w, "KV Write:")
	for _, k := range p.Write {
		fmt.Fprintf(w, "\t%s\n", k)
	}
	return nil
}

// roleList tells of a refusal as the classic client did, in words of its own.
func roleList(ctx context.Context, s *session, args []string) error {
	err := listNames((*keys.Client).Roles)(ctx, s, args)
	if refused, ok := errors.AsType[*keys.StatusError](err); ok && refused.Status == http.StatusUnauthorized {
		return failed(fault.Hint(classic("unexpected status code 401"), "%s: say who you are with --username", refused.Message))
	}
	return err
}

func roleRemove(ctx context.Context, s *session, name string) error {
	return s.did(s.client.RemoveRole(ctx, name), "Role %s removed", name)
}

func roleKeys(name, summary string, change func(*keys.Client, context.Context, string, keys.Permissions) error) command {
	var pattern string
	var read, write, both bool
	return command{
		name: name, args: "--path PATTERN --read|--write|--readwrite ROLE", summary: summary,
		flags: func(fs *flag.FlagSet) {
			fs.StringVar(&pattern, "path", "", "a key, or with a star at its end all keys that begin so")
			fs.BoolVar(&read, "read", false, "for reading")
			fs.BoolVar(&write, "write", false, "for writing")
			fs.BoolVar(&both, "readwrite", false, "for both")
			fs.BoolVar(&both, "rw", false, "for both (short for --readwrite)")
		},
		run: func(ctx context.Context, s *session, args []string) error {
			p, err := permissions(pattern, read, write, both)
			if err != nil {
				return failed(err)
			}
			return named("role name", func(ctx context.Context, s *session, role string) error {
				return s.did(change(s.client, ctx, role, p), "Role %s updated", role)
			})(ctx, s, args)
		},
	}
}

// permissions is what the flags of a grant or a revocation say.
func permissions(pattern string, read, write, both bool) (p keys.Permissions, err error) {
	list := []string{pattern}
	switch {
	case pattern == "":
		return p, classic("No path specified; please use `--path`")
	case canonical(pattern) != pattern:
		return p, classic(fmt.Sprintf("Not canonical path; please use `--path=%s`", canonical(pattern)))
	case read && !write && !both:
		p.Read = list
	case write && !read && !both:
		p.Write = list
	case both && !read && !write:
		p.Read, p.Write = list, list
	default:
		return p, classic("Please specify exactly one of --read, --write or --readwrite")
	}
	return p, nil
}

// canonical is a clean path with its last slash, if it has one.
func canonical(pattern string) string {
	clean := path.Clean("/" + pattern)
	if strings.HasSuffix(pattern, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}
