package fleetd

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/registry"
)

const storeRolesLong = `Make the users and roles in the store with which a fleetd can write no more than it
has to.

A machine that leads never (disable_engine) needs to write what it says of itself and
of its units, and nothing else: each MACHINE (its id) becomes a user of that kind, which
reads all of fleet's keys. Machines whose engine may lead, and those whose HTTP API is
used for changes, use the user of --engine, which writes all of fleet's keys.

Users prove themselves with a certificate whose common name is the user's name (set
etcd_certfile and etcd_keyfile), or with --passwords by one that is made and printed
here (set etcd_username and etcd_password). Giving a user anew makes it as it is to be.

Authentication is the store's own, that of the v3 API; it is turned on with
"ETCDCTL_API=3 etcdctl user add root", "... user grant-role root root" and
"... auth enable". The v2 API is closed while it is on.`

// storeRoles is the command that makes users in the store.
type storeRoles struct {
	*program
	engine    string
	passwords bool
	dryRun    bool
}

func storeRolesCommand(env applet.Env) *cobra.Command {
	s := &storeRoles{program: &program{env: env, cfg: Defaults()}}
	s.set = s.cfg.settings()
	cmd := &cobra.Command{
		Use:   "store-roles [MACHINE[=USER]...]",
		Short: "make users in the store that can write no more than they have to",
		Long:  storeRolesLong,
		RunE:  func(cmd *cobra.Command, args []string) error { return s.run(cmd.Context(), args) },
	}
	cmd.Flags().StringVar(&s.engine, "engine", "fleet", "user that may write all of fleet's keys; empty: none is made")
	cmd.Flags().BoolVar(&s.passwords, "passwords", false, "give each user a new password and print it")
	cmd.Flags().BoolVar(&s.dryRun, "dry_run", false, "print the commands of etcdctl that do the same, and do nothing")
	cmd.Flags().StringVar(&s.file, "config", "", "configuration file (default "+defaultConfigFile+", if it is there)")
	own := map[string]bool{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { own[f.Name] = true })
	s.set.Flags(cmd.Flags())
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		// The others are taken, as the configuration file has them, and say nothing here.
		f.Hidden = !own[f.Name] && !strings.HasPrefix(f.Name, "etcd_")
	})
	return cmd
}

// users reads the arguments.
func (s *storeRoles) users(args []string) ([]registry.StoreUser, error) {
	var out []registry.StoreUser
	if s.engine != "" {
		out = append(out, registry.StoreUser{Name: s.engine})
	}
	var bad []string
	for _, arg := range args {
		id, name, given := strings.Cut(arg, "=")
		if !given {
			name = "fleet-" + id
		}
		if !machineIDFormat.MatchString(id) || name == "" {
			bad = append(bad, arg)
		}
		out = append(out, registry.StoreUser{Name: name, Machine: id})
	}
	if len(bad) > 0 {
		return nil, fault.Usage("%s: not the id of a machine, 32 hexadecimal digits, with =USER or without", strings.Join(bad, ", "))
	}
	if s.passwords {
		for i := range out {
			out[i].Password = rand.Text()
		}
	}
	return out, nil
}

func (s *storeRoles) run(ctx context.Context, args []string) error {
	users, err := s.users(args)
	if err != nil {
		return err
	}
	if err := s.load(); err != nil {
		return err
	}
	reg, err := New(s.cfg, Deps{}).openRegistry(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer reg.Close()
	if s.dryRun {
		for _, u := range users {
			fmt.Fprintln(s.env.Stdout, strings.Join(reg.Commands(u), "\n"))
		}
		return nil
	}
	for _, u := range users {
		if err := reg.SetStoreUser(ctx, u); err != nil {
			return err
		}
		fmt.Fprintln(s.env.Stdout, strings.TrimSuffix(fmt.Sprintf("%s %s", u.Name, u.Password), " "))
	}
	if on, err := reg.AuthEnabled(ctx); err != nil || on {
		return err
	}
	fmt.Fprintln(s.env.Stderr, "The store does not ask who its clients are yet: see 'fleetd store-roles --help'.")
	return nil
}
