package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrDenied means that the store does not let this user do it.
var ErrDenied = errors.New("the store does not allow it")

// StoreUser is a user of the store with the role that a fleetd needs.
type StoreUser struct {
	Name string // of the user and of its role
	// Machine is the machine whose own keys the user may write; it reads everything.
	// "" may write everything, which engines and the HTTP API need.
	Machine string
	// Password is what the user proves itself with; "" is for a user who does it with
	// a certificate of that common name.
	Password string
}

// Grant is a range of keys, or one key, that a role may use.
type Grant struct {
	Key    string
	Prefix bool // all keys that begin with Key
	Write  bool // besides reading
}

// Grants is what the user's role may do.
func (r *Registry) Grants(u StoreUser) []Grant {
	if u.Machine == "" {
		return []Grant{{Key: r.prefix, Prefix: true, Write: true}}
	}
	return []Grant{
		{Key: r.prefix, Prefix: true},
		{Key: r.key(Key{Kind: KindMachine, Machine: u.Machine}), Write: true},
		{Key: r.prefix + states + u.Machine + "/", Prefix: true, Write: true},
	}
}

// end is where the range of keys ends; "" for one key.
func (g Grant) end() string {
	if !g.Prefix {
		return ""
	}
	return clientv3.GetPrefixRangeEnd(g.Key)
}

func (g Grant) kind() clientv3.PermissionType {
	if g.Write {
		return clientv3.PermissionType(authpb.Permission_READWRITE)
	}
	return clientv3.PermissionType(authpb.Permission_READ)
}

// SetStoreUser makes the user and its role in the store, or makes them what they are
// to be. It takes the rights of the store's root, where authentication is on; it does
// not turn it on.
func (r *Registry) SetStoreUser(ctx context.Context, u StoreUser) error {
	limited, cancel := context.WithTimeout(ctx, 5*r.timeout)
	defer cancel()
	if err := r.setRole(limited, u); err != nil {
		return fmt.Errorf("role %s of the store: %w", u.Name, err)
	}
	if err := r.setUser(limited, u); err != nil {
		return fmt.Errorf("user %s of the store: %w", u.Name, err)
	}
	return nil
}

// setRole gives a role what it is to have before it takes away what it is not to
// have: whoever uses it does not notice.
func (r *Registry) setRole(ctx context.Context, u StoreUser) error {
	if _, err := r.client.RoleAdd(ctx, u.Name); err != nil && !errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
		return err
	}
	want := map[[2]string]bool{}
	for _, g := range r.Grants(u) {
		want[[2]string{g.Key, g.end()}] = true
		if _, err := r.client.RoleGrantPermission(ctx, u.Name, g.Key, g.end(), g.kind()); err != nil {
			return err
		}
	}
	role, err := r.client.RoleGet(ctx, u.Name)
	if err != nil {
		return err
	}
	for _, p := range role.Perm {
		key, end := string(p.Key), string(p.RangeEnd)
		if want[[2]string{key, end}] {
			continue
		}
		if _, err := r.client.RoleRevokePermission(ctx, u.Name, key, end); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) setUser(ctx context.Context, u StoreUser) error {
	_, err := r.client.UserAddWithOptions(ctx, u.Name, u.Password, &clientv3.UserAddOptions{NoPassword: u.Password == ""})
	if errors.Is(err, rpctypes.ErrUserAlreadyExist) && u.Password != "" {
		_, err = r.client.UserChangePassword(ctx, u.Name, u.Password)
	}
	if err != nil && !errors.Is(err, rpctypes.ErrUserAlreadyExist) {
		return err
	}
	_, err = r.client.UserGrantRole(ctx, u.Name, u.Name)
	return err
}

// Commands is what SetStoreUser does, as commands of etcdctl (ETCDCTL_API=3). A
// password is asked for by them.
func (r *Registry) Commands(u StoreUser) []string {
	out := []string{"etcdctl role add " + u.Name}
	for _, g := range r.Grants(u) {
		kind, prefix := "read", ""
		if g.Write {
			kind = "readwrite"
		}
		if g.Prefix {
			prefix = "--prefix=true "
		}
		out = append(out, fmt.Sprintf("etcdctl role grant-permission %s%s %s %s", prefix, u.Name, kind, g.Key))
	}
	add := "etcdctl user add " + u.Name
	if u.Password == "" {
		add += " --no-password"
	}
	return append(out, add, fmt.Sprintf("etcdctl user grant-role %s %s", u.Name, u.Name))
}

// AuthEnabled reports whether the store asks who its clients are.
func (r *Registry) AuthEnabled(ctx context.Context) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	resp, err := r.client.AuthStatus(limited)
	if err != nil {
		return false, fmt.Errorf("ask the store whether authentication is on: %w", err)
	}
	return resp.Enabled, nil
}

// denied reports whether an error says that the store does not know the user, or does
// not let it do that.
func denied(err error) bool {
	for _, d := range []error{rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrInvalidAuthToken} {
		if errors.Is(err, d) || strings.Contains(err.Error(), rpctypes.ErrorDesc(d)) {
			return true
		}
	}
	return strings.Contains(err.Error(), "authentication failed") // with several reasons, not all of which have a code
}
