package up

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/endpoint"
	"flotilla/internal/fault"
	"flotilla/internal/logx"
)

// Applet is the program "up".
func Applet() applet.Applet {
	return applet.Applet{
		Name:      "up",
		Group:     "First try",
		Summary:   "every daemon of a machine in one process",
		Completes: true,
		Run:       func(ctx context.Context, env applet.Env) int { return cli.Run(ctx, env, command(env)) },
	}
}

const long = `Runs the store and fleetd in one process until Ctrl-C: a first try, a laptop, a tiny
machine. It needs no root. Everything is kept below --dir and found again by the
next "up"; the command lines find a running one by themselves. Once the store asks
who its clients are, FLEET_ETCD_USERNAME and FLEET_ETCD_PASSWORD are what the machines
show it.`

func command(env applet.Env) *cobra.Command {
	var cfg Config
	var metadata, level string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run every daemon of a machine in one process",
		Long:  long,
		Args:  cobra.NoArgs,
		Example: `  flotilla up
  flotilla up --machines 3
  flotilla up status
  flotilla up kill m2
  flotilla up boot m2`,
		// There is no link of this name: help says what to type.
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "flotilla up"},
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := logx.Level(level)
			if err != nil {
				return fault.Usage("--log-level %q: must be debug, info, warn or error", level)
			}
			if cfg.Metadata, err = parseMetadata(metadata); err != nil {
				return err
			}
			if err := cfg.complete(env); err != nil {
				return err
			}
			return New(cfg, env, logx.New(env.Stderr, slog.Level(l))).Run(c.Context())
		},
	}
	cmd.PersistentFlags().StringVar(&cfg.Dir, "dir", "", "directory that holds everything (default $XDG_STATE_HOME/flotilla/up)")
	f := cmd.Flags()
	f.IntVar(&cfg.Machines, "machines", 1, "how many machines to run in this process")
	f.StringSliceVar(&cfg.ClientURLs, "listen-client-urls", endpoint.ClassicStore, "where the store listens; port 0 takes a free one")
	f.BoolVar(&cfg.AllowPlainHTTP, "allow-plain-http", false, "let --listen-client-urls serve plain http beyond loopback: whoever reaches the port may do everything")
	f.StringVar(&cfg.Units, "units", UnitsAuto, "who runs the units: systemd, supervisor or auto")
	f.BoolVar(&cfg.KeepUnits, "keep-units", false, "leave the units running at the end; the next up adopts them")
	f.StringVar(&cfg.ReadyFile, "ready-file", "", "write this file when everything is ready, with the variables that the command lines take")
	f.StringVar(&metadata, "metadata", "", "metadata of the machines, as key=value,key=value")
	f.StringVar(&level, "log-level", "warn", "debug, info, warn or error")
	cmd.AddCommand(statusCommand(env, &cfg), powerCommand(env, &cfg, "kill", "Cut the power of a machine: everything on it is gone at once"),
		powerCommand(env, &cfg, "boot", "Switch a machine on again"))
	return cmd
}

// complete fills in what was not given and makes paths absolute.
func (c *Config) complete(env applet.Env) (err error) {
	if c.Dir == "" {
		if c.Dir, err = endpoint.DefaultDir(env); err != nil {
			return fault.Hint(err, "name a directory with --dir DIR")
		}
	}
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return err
	}
	c.StoreUser, c.StorePassword = env.Getenv("FLEET_ETCD_USERNAME"), env.Getenv("FLEET_ETCD_PASSWORD")
	if c.ReadyFile != "" {
		if c.ReadyFile, err = filepath.Abs(c.ReadyFile); err != nil {
			return err
		}
	}
	if c.Exe == "" {
		c.Exe, err = os.Executable()
	}
	return err
}

func parseMetadata(s string) (map[string]string, error) {
	out := map[string]string{}
	for pair := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		if k = strings.TrimSpace(k); !ok || k == "" {
			return nil, fault.Usage("--metadata: %q is not key=value", pair)
		}
		out[k] = strings.TrimSpace(v)
	}
	return out, nil
}

func statusCommand(env applet.Env, cfg *Config) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the machines of a running up",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return fault.Usage("--output %q: must be table or json", format)
			}
			if err := cfg.complete(env); err != nil {
				return err
			}
			body, err := ask(c.Context(), *cfg, "GET", "/machines")
			if err != nil {
				return err
			}
			var machines []MachineStatus
			if err := json.Unmarshal(body, &machines); err != nil {
				return fmt.Errorf("read the answer of up: %w", err)
			}
			if format == "json" {
				return cli.JSON(env.Stdout, machines)
			}
			var rows [][]string
			for _, m := range machines {
				rows = append(rows, []string{m.Name, m.ID, m.Power, m.Dir, orDash(m.Error)})
			}
			return cli.WriteTable(env.Stdout, []string{"NAME", "MACHINE", "POWER", "DIR", "ERROR"}, rows)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	return cmd
}

// orDash is a cell that may be empty, in one line.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return strings.ReplaceAll(s, "\n", "; ")
}

func powerCommand(env applet.Env, cfg *Config, verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " MACHINE...",
		Short: short,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := cfg.complete(env); err != nil {
				return err
			}
			for _, name := range args {
				if _, err := ask(c.Context(), *cfg, "POST", "/machines/"+name+"/"+verb); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
