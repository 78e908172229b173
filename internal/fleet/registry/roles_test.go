package registry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
)

func TestCommands(t *testing.T) {
	r := &Registry{prefix: "/f/"}
	got := r.Commands(StoreUser{Name: "m1", Machine: "0a"})
	want := []string{
		"etcdctl role add m1",
		"etcdctl role grant-permission --prefix=true m1 read /f/",
		"etcdctl role grant-permission m1 readwrite /f/machines/0a/object",
		"etcdctl role grant-permission --prefix=true m1 readwrite /f/states/0a/",
		"etcdctl user add m1 --no-password",
		"etcdctl user grant-role m1 m1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if got := r.Commands(StoreUser{Name: "fleet", Password: "x"}); !slices.Contains(got, "etcdctl role grant-permission --prefix=true fleet readwrite /f/") || strings.Contains(strings.Join(got, "\n"), "x ") {
		t.Errorf("got %q", got)
	}
}

// A machine's user writes what its machine says of itself and of its units, and
// nothing else: the store itself sees to that.
func TestStoreUsers(t *testing.T) {
	root, ctx := open(t), t.Context()
	url := root.client.Endpoints()[0]
	if err := root.Create(ctx, "a.service", aText, model.Launched, "", ""); err != nil {
		t.Fatal(err)
	}
	// Rights from before are taken away.
	if _, err := root.client.RoleAdd(ctx, "fleet-m1"); err != nil {
		t.Fatal(err)
	}
	if _, err := root.client.RoleGrantPermission(ctx, "fleet-m1", "/", "0", clientv3.PermissionType(clientv3.PermReadWrite)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time finds all as it is to be
		for _, u := range []StoreUser{{Name: "fleet", Password: "all"}, {Name: "fleet-m1", Machine: "m1", Password: "one"}, {Name: "by-certificate", Machine: "m2"}} {
			if err := root.SetStoreUser(ctx, u); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, err := range []error{
		second(root.client.UserAdd(ctx, "root", "secret")), second(root.client.UserGrantRole(ctx, "root", "root")), second(root.client.AuthEnable(ctx)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	as := func(user, password string) *Registry {
		t.Helper()
		r, err := Open(Config{Endpoints: []string{url}, Username: user, Password: password, Timeout: 3 * time.Second}, root.log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}
	m1, engine := as("fleet-m1", "one"), as("fleet", "all")
	if v, err := m1.Read(ctx, Everything); err != nil || len(v.Units()) != 1 {
		t.Errorf("the machine reads: %v", err)
	}
	if err := engine.SetDesired(ctx, "a.service", model.Loaded); err != nil {
		t.Errorf("an engine writes: %v", err)
	}
	held, done := context.WithCancel(ctx)
	m1.Hold(held, 5*time.Second, true, func(ctx context.Context, lease Lease) {
		defer done()
		p := Presence{Machine: model.Machine{ID: "m1"}}
		if err := m1.Join(ctx, lease, p, ""); err != nil {
			t.Errorf("the machine joins: %v", err)
		}
		if err := m1.Publish(ctx, lease, "m1", []model.UnitState{{Unit: "a.service", Machine: "m1", Active: "active"}}, nil); err != nil {
			t.Errorf("the machine says how its units are: %v", err)
		}
		p.ID = "m2"
		if err := m1.Join(ctx, lease, p, ""); !errors.Is(err, ErrDenied) {
			t.Errorf("it joins as another: %v", err)
		}
	})
	put := func(r *Registry, k Key) error {
		_, err := r.txn(ctx, "write "+k.Path(), nil, []clientv3.Op{clientv3.OpPut(r.key(k), "x")}, nil)
		return err
	}
	for _, k := range []Key{
		{Kind: KindState, Unit: "a.service", Machine: "m2"},
		{Kind: KindState, Unit: "a.service", Machine: "m10"},
		{Kind: KindMachine, Machine: "m2"},
		{Kind: KindCordon, Machine: "m1"},
		{Kind: KindMetadata, Machine: "m1", Meta: "disk"},
		{Kind: KindPlacement, Unit: "a.service", Machine: "m1"},
		{Kind: KindPlacement, Unit: "a.service", Machine: "m2"},
		{Kind: KindObject, Unit: "a.service"}, {Kind: KindDesired, Unit: "a.service"},
		{Kind: KindUnplaced, Unit: "a.service"}, {Kind: KindLeader}, {Kind: KindHold}, {Kind: KindMark},
		{Kind: KindRoll, Group: "a.service"}, {Kind: KindAsk, ID: "x"}, {Kind: KindEvent, ID: "x"},
		{Kind: KindHistory, Unit: "a.service", ID: "1"},
	} {
		if err := put(m1, k); !errors.Is(err, ErrDenied) || errors.Is(err, ErrAway) || len(fault.Hints(err)) == 0 {
			t.Errorf("the machine writes %s: %v", k.Path(), err)
		}
		if k.Kind != KindMark && k.Kind != KindLeader {
			if err := put(engine, k); err != nil {
				t.Errorf("an engine writes %s: %v", k.Path(), err)
			}
		}
	}
	for _, r := range []*Registry{as("", ""), as("fleet-m1", "wrong"), as("by-certificate", "none")} {
		if _, err := r.Read(ctx, Everything); !errors.Is(err, ErrDenied) {
			t.Errorf("who is not known reads: %v", err)
		}
	}
	if on, err := m1.AuthEnabled(ctx); err != nil || !on {
		t.Errorf("%v, %v", on, err)
	}
}

func second[T any](_ T, err error) error { return err }

// A registry with a name and password is made also while the store is away.
func TestCredentialsWithoutTheStore(t *testing.T) {
	start := time.Now()
	r, err := Open(Config{Endpoints: []string{"http://127.0.0.1:1"}, Username: "fleet", Password: "all", Timeout: 200 * time.Millisecond}, open(t).log)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.ReadMachines(t.Context()); !errors.Is(err, ErrAway) {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
}
