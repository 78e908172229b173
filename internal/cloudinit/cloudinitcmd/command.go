// Package cloudinitcmd is the program "cloudinit", also called coreos-cloudinit: it
// makes a machine what a cloud-config document asks for.
package cloudinitcmd

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/cloudinit/apply"
	"flotilla/internal/cloudinit/netconf"
	"flotilla/internal/cloudinit/plan"
	"flotilla/internal/cloudinit/source"
	"flotilla/internal/fault"
)

// classicName is what the program was called.
const classicName = "coreos-cloudinit"

// exitChanges is the exit code of -dry-run when there is something to do.
const exitChanges = 2

// workspace is where records, results and scripts are by default.
const workspace = "/var/lib/coreos-cloudinit"

// Applet is the program.
func Applet() applet.Applet {
	return applet.Applet{
		Name:      "cloudinit",
		Aliases:   []string{classicName},
		Group:     "Machines",
		Summary:   "apply a cloud-config document to this machine",
		Completes: true,
		Run: func(ctx context.Context, env applet.Env) int {
			env.Args = twoDashes(env.Args)
			return cli.Run(ctx, env, newCommand(env, apply.Programs{}))
		},
	}
}

// twoDashes makes a long flag that nobody knows look like one (-from-fil=x), so that
// the nearest right one is named. What begins with -o or -h may be a short one.
func twoDashes(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if a == "--" {
			break
		}
		if len(a) > 2 && a[0] == '-' && !strings.ContainsRune("-oh", rune(a[1])) {
			out[i] = "-" + a
		}
	}
	return out
}

// options are the flags.
type options struct {
	from      source.Flags
	oem       string
	metadata  bool
	keySet    string
	workspace string
	root      string
	record    string
	output    string
	timeout   time.Duration // 0: as long as is fit for what is asked for

	validate, dryRun, status, version, ignoreFailure, prune bool
}

// program is one call of the command.
type program struct {
	options
	env applet.Env
	cmd apply.Commander
	// githubKeys is where the keys of a user of GitHub are, %s being the user.
	githubKeys string
}

func newCommand(env applet.Env, programs apply.Commander) *cobra.Command {
	p := &program{env: env, cmd: programs, githubKeys: "https://api.github.com/users/%s/keys"}
	called := env.CalledOr(classicName)
	c := &cobra.Command{
		Use:   p.name() + " -from-SOURCE[=WHERE]... [flags]\n  " + called + " -validate [-from-SOURCE=WHERE] [FILE...]\n  " + called + " -status",
		Short: "apply a cloud-config document to this machine",
		Long: "Makes this machine what a cloud-config document asks for: host name, users, keys, files, units.\n" +
			"What is so already is left alone, so a second run changes nothing. Of several sources the first that\n" +
			"answers counts. Flags may have one dash or two.",
		Example: "  " + called + " -validate -from-file=cloud-config.yaml\n" +
			"  " + called + " -from-file=cloud-config.yaml -dry-run\n" +
			"  " + called + " -from-url=http://10.0.0.1/cloud-config.yaml",
		RunE: func(c *cobra.Command, args []string) error { return p.run(c.Context(), args) },
	}
	p.flags(c)
	return c
}

func (p *program) flags(c *cobra.Command) {
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&p.from.File, "from-file", "", "read the document from a `FILE`")
	f.StringVar(&p.from.URL, "from-url", "", "read it from a `URL` (http, https)")
	f.StringVar(&p.from.ConfigDrive, "from-configdrive", "", "read user data and metadata from a config drive mounted at `DIR`")
	f.BoolVar(&p.from.ProcCmdline, "from-proc-cmdline", false, "read it from the URL that cloud-config-url= on the kernel's command line names")
	f.StringVar(&p.from.EC2, "from-ec2-metadata", "", "ask a metadata service of Amazon's form at `URL`")
	f.BoolVar(&p.metadata, "from-metadata-service", false, "the same at "+source.EC2Base+" (old name)")
	f.StringVar(&p.from.GCE, "from-gce-metadata", "", "ask Google's metadata service at `URL`")
	f.StringVar(&p.from.DigitalOcean, "from-digitalocean-metadata", "", "ask DigitalOcean's metadata service at `URL`")
	f.StringVar(&p.from.Packet, "from-packet-metadata", "", "ask Packet's metadata service at `URL`")
	f.BoolVar(&p.from.CloudSigma, "from-cloudsigma-metadata", false, "ask CloudSigma's server context")
	f.BoolVar(&p.from.VMwareGuestinfo, "from-vmware-guestinfo", false, "ask VMware's hypervisor")
	f.StringVar(&p.from.VMwareOVFEnv, "from-vmware-ovf-env", "", "read an OVF environment from a `FILE`")
	f.StringVar(&p.from.WAAgent, "from-waagent", "", "read what Azure's agent left in `DIR`")
	f.StringVar(&p.oem, "oem", "", "the flags of a platform: "+strings.Join(source.OEMs(), ", "))
	f.StringVar(&p.from.ConvertNetconf, "convert-netconf", "", "convert the source's network configuration of this `FORMAT`: "+strings.Join(netconf.Formats(), ", "))
	f.DurationVar(&p.timeout, "source-timeout", 0, "how long to wait for a source (default 5m; with -validate and -dry-run each is asked once)")
	f.BoolVar(&p.validate, "validate", false, "only say what is wrong with the document; exit code 1 if anything is")
	f.BoolVar(&p.dryRun, "dry-run", false, "only say what would change, with a diff of each file; exit code 0: nothing, 2: something")
	f.BoolVar(&p.status, "status", false, "say how the last runs ended")
	f.StringVarP(&p.output, "output", "o", "text", "`text` or json")
	f.StringVar(&p.root, "root", "/", "change an image of a machine below `DIR`: everything but what needs a running systemd")
	f.BoolVar(&p.prune, "prune", false, "take back what earlier runs did and the document does not have any more")
	f.StringVar(&p.record, "record", "user", "`NAME` of the record of earlier runs: documents with names of their own do not know of each other")
	f.StringVar(&p.workspace, "workspace", workspace, "`DIR` for records, results and scripts")
	f.StringVar(&p.keySet, "ssh-key-name", plan.DefaultKeySet, "`NAME` of the set that SSH keys are put into")
	f.BoolVar(&p.ignoreFailure, "ignore-failure", false, "exit code 0 though the document is bad; not if a step fails")
	f.BoolVar(&p.version, "version", false, "print the version")
	for _, dir := range []string{"from-configdrive", "from-waagent", "root", "workspace"} {
		_ = c.MarkFlagDirname(dir) // the flag is there
	}
	_ = c.RegisterFlagCompletionFunc("oem", cobra.FixedCompletions(source.OEMs(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("convert-netconf", cobra.FixedCompletions(netconf.Formats(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// fileName is what may be the name of a file of ours: a record, a set of keys.
var fileName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// check fills in what flags stand for, and says what is wrong with them.
func (p *program) check(args []string) error {
	if p.metadata && p.from.EC2 == "" {
		p.from.EC2 = source.EC2Base
	}
	if p.oem != "" {
		preset, err := source.OEM(p.oem)
		if err != nil {
			return err
		}
		p.from = p.from.Or(preset)
	}
	if f := p.from.ConvertNetconf; f != "" && !slices.Contains(netconf.Formats(), f) {
		return fault.Usage("-convert-netconf=%s: want one of %s", f, strings.Join(netconf.Formats(), ", "))
	}
	for _, n := range []struct{ flag, value string }{{"record", p.record}, {"ssh-key-name", p.keySet}} {
		if !fileName.MatchString(n.value) {
			return fault.Usage("-%s=%q: want letters, digits, - and _", n.flag, n.value)
		}
	}
	if p.output != "text" && p.output != "json" {
		return fault.Usage("-o %s: want text or json", p.output)
	}
	if !filepath.IsAbs(p.workspace) {
		return fault.Usage("-workspace=%s: want an absolute path", p.workspace)
	}
	if len(args) > 0 && !p.validate {
		return fault.Hint(fault.Usage("unexpected argument %q", args[0]), "a document is named with -from-file=%s", args[0])
	}
	return nil
}

func (p *program) run(ctx context.Context, args []string) (err error) {
	if p.version {
		fmt.Fprintf(p.env.Stdout, "%s version %s\n", classicName, applet.Version)
		return nil
	}
	if err := p.check(args); err != nil {
		return err
	}
	if p.root, err = filepath.Abs(p.root); err != nil {
		return err
	}
	sources := p.from.Sources(source.Fetcher{Proxied: true})
	switch {
	case p.status:
		return p.showStatus()
	case len(sources) == 0 && !(p.validate && len(args) > 0):
		return fault.Hint(fault.Usage("no source: name at least one with a -from-... flag or -oem"),
			"try '%s -from-file=cloud-config.yaml', or --help", p.env.CalledOr(classicName))
	case p.validate:
		return p.runValidate(ctx, sources, args)
	case p.dryRun:
		return p.runDry(ctx, sources)
	}
	return p.runApply(ctx, sources)
}

// name is what messages begin with.
func (p *program) name() string { return p.env.NameOr(classicName) }

func (p *program) json() bool { return p.output == "json" }

// say writes to people, on stderr.
func (p *program) say(format string, args ...any) {
	fmt.Fprintf(p.env.Stderr, format+"\n", args...)
}

// first waits for the first source that can be read, and tells what it waits for.
func (p *program) first(ctx context.Context, sources []source.Source) (source.Source, error) {
	told := map[string]string{} // of each source, by what it is called: what was said last
	return source.First(ctx, sources, source.Polling{Total: p.timeout, Once: p.timeout == 0 && (p.validate || p.dryRun), Report: func(a source.Attempt) {
		name := a.Source.Type() + " " + a.Source.Name()
		if a.Again > 0 && told[name] != a.Err.Error() {
			told[name] = a.Err.Error()
			p.say("waiting for %s: %v", name, a.Err)
		}
	}})
}
