package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// User is a user of the store and the names of the roles that it has.
type User struct {
	Name  string
	Roles []string
}

// Permissions is patterns of keys: a key, or with a star at its end all keys that
// begin so.
type Permissions struct {
	Read, Write []string
}

// SetAuth switches authentication on or off. Switching on takes a user root.
func (c *Client) SetAuth(ctx context.Context, on bool) error {
	r := request{method: http.MethodPut, path: "/v2/auth/enable"}
	if !on {
		r.method = http.MethodDelete
	}
	return c.auth(ctx, r, nil)
}

// Users lists the names of all users.
func (c *Client) Users(ctx context.Context) ([]string, error) {
	var list struct{ Users []struct{ User string } }
	err := c.auth(ctx, request{method: http.MethodGet, path: "/v2/auth/users", again: true}, &list)
	var names []string
	for _, u := range list.Users {
		names = append(names, u.User)
	}
	return names, err
}

// User reads a user. It fails if one of the user's roles does not exist.
func (c *Client) User(ctx context.Context, name string) (User, error) {
	var in struct{ Roles []struct{ Role string } }
	err := c.auth(ctx, request{method: http.MethodGet, path: userPath(name), again: true}, &in)
	u := User{Name: name}
	for _, r := range in.Roles {
		u.Roles = append(u.Roles, r.Role)
	}
	return u, err
}

// SetPassword makes a user, or changes the password of the one there is.
func (c *Client) SetPassword(ctx context.Context, name, password string) error {
	return c.changeUser(ctx, name, "password", password, true)
}

// GrantRoles gives roles to a user, who must not have any of them yet. The roles
// need not exist.
func (c *Client) GrantRoles(ctx context.Context, name string, roles []string) error {
	return c.changeUser(ctx, name, "grant", roles, false)
}

// RevokeRoles takes roles from a user, who must have them all.
func (c *Client) RevokeRoles(ctx context.Context, name string, roles []string) error {
	return c.changeUser(ctx, name, "revoke", roles, false)
}

func (c *Client) changeUser(ctx context.Context, name, what string, value any, again bool) error {
	body := toJSON(map[string]any{"user": name, what: value})
	return c.auth(ctx, request{method: http.MethodPut, path: userPath(name), json: body, again: again}, nil)
}

// RemoveUser removes a user. It is not asked twice: after an *UnreachableError look
// whether the user is in the list.
func (c *Client) RemoveUser(ctx context.Context, name string) error {
	return c.auth(ctx, request{method: http.MethodDelete, path: userPath(name)}, nil)
}

// wireRole is a role as it is sent.
type wireRole struct {
	Role        string    `json:"role"`
	Permissions *wireKeys `json:"permissions,omitempty"`
	Grant       *wireKeys `json:"grant,omitempty"`
	Revoke      *wireKeys `json:"revoke,omitempty"`
}

type wireKeys struct {
	KV struct {
		Read  []string `json:"read"`
		Write []string `json:"write"`
	} `json:"kv"`
}

func toWire(p Permissions) *wireKeys {
	var w wireKeys
	w.KV.Read, w.KV.Write = p.Read, p.Write
	return &w
}

// Roles lists the names of all roles.
func (c *Client) Roles(ctx context.Context) ([]string, error) {
	var list struct{ Roles []wireRole }
	err := c.auth(ctx, request{method: http.MethodGet, path: "/v2/auth/roles", again: true}, &list)
	var names []string
	for _, r := range list.Roles {
		names = append(names, r.Role)
	}
	return names, err
}

// Role reads what a role may do.
func (c *Client) Role(ctx context.Context, name string) (Permissions, error) {
	in := wireRole{Permissions: &wireKeys{}}
	err := c.auth(ctx, request{method: http.MethodGet, path: rolePath(name), again: true}, &in)
	if err != nil || in.Permissions == nil {
		return Permissions{}, err
	}
	return Permissions{in.Permissions.KV.Read, in.Permissions.KV.Write}, nil
}

// AddRole makes a role.
func (c *Client) AddRole(ctx context.Context, name string, p Permissions) error {
	return c.putRole(ctx, wireRole{Role: name, Permissions: toWire(p)})
}

// GrantKeys adds patterns to a role, which must not have any of them yet.
func (c *Client) GrantKeys(ctx context.Context, name string, p Permissions) error {
	return c.putRole(ctx, wireRole{Role: name, Grant: toWire(p)})
}

// RevokeKeys takes patterns from a role, which must have one of them at least.
func (c *Client) RevokeKeys(ctx context.Context, name string, p Permissions) error {
	return c.putRole(ctx, wireRole{Role: name, Revoke: toWire(p)})
}

func (c *Client) putRole(ctx context.Context, r wireRole) error {
	return c.auth(ctx, request{method: http.MethodPut, path: rolePath(r.Role), json: toJSON(r)}, nil)
}

// RemoveRole removes a role, as RemoveUser does a user.
func (c *Client) RemoveRole(ctx context.Context, name string) error {
	return c.auth(ctx, request{method: http.MethodDelete, path: rolePath(name)}, nil)
}

func userPath(name string) string { return "/v2/auth/users/" + name }
func rolePath(name string) string { return "/v2/auth/roles/" + name }

func toJSON(v any) []byte {
	b, _ := json.Marshal(v) // strings and lists of them always marshal
	return b
}

// auth makes a request of the auth API; into is nil where the answer does not count.
// What the store refuses is a *StatusError.
func (c *Client) auth(ctx context.Context, r request, into any) error {
	a, err := c.do(ctx, r)
	switch {
	case err != nil:
		return err
	case a.status >= 300:
		return failure(a)
	case into == nil:
		return nil
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return fmt.Errorf("answer of the store: %w", err)
	}
	return nil
}
