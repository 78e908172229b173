package source

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"flotilla/internal/fault"
)

// Flags is which sources a command was given; the zero value is none. A field is the
// value of the flag of its name: File that of -from-file.
type Flags struct {
	File        string
	URL         string
	ConfigDrive string // directory
	ProcCmdline bool

	EC2          string // base URLs of metadata services
	GCE          string
	DigitalOcean string
	Packet       string

	CloudSigma      bool
	VMwareGuestinfo bool
	VMwareOVFEnv    string // file
	WAAgent         string // directory

	// ConvertNetconf is the format of the source's network description, if it is to
	// be converted: one of netconf.Formats.
	ConvertNetconf string
}

// Where the sources are by default.
const (
	EC2Base          = "http://169.254.169.254/"
	GCEBase          = "http://metadata.google.internal/"
	DigitalOceanBase = "http://169.254.169.254/"
	PacketBase       = "https://metadata.packet.net/"

	procCmdline  = "/proc/cmdline"
	configDrive  = "/media/configdrive"
	waagentState = "/var/lib/waagent"
)

// presets are the sources of platforms, as -oem names them.
var presets = map[string]Flags{
	"azure":             {WAAgent: waagentState},
	"cloudsigma":        {CloudSigma: true},
	"digitalocean":      {DigitalOcean: DigitalOceanBase, ConvertNetconf: "digitalocean"},
	"ec2-compat":        {EC2: EC2Base, ConfigDrive: configDrive},
	"gce":               {GCE: GCEBase},
	"packet":            {Packet: PacketBase, ConvertNetconf: "packet"},
	"rackspace-onmetal": {ConfigDrive: configDrive, ConvertNetconf: "debian"},
	"vmware":            {VMwareGuestinfo: true, ConvertNetconf: "vmware"},
}

// OEMs are the names that OEM knows, sorted.
func OEMs() []string { return slices.Sorted(maps.Keys(presets)) }

// OEM is what -oem=NAME stands for.
func OEM(name string) (Flags, error) {
	f, ok := presets[name]
	if ok {
		return f, nil
	}
	err := fmt.Errorf("-oem=%s: no such platform", name)
	if near := fault.Nearest(name, OEMs()); near != "" {
		err = fault.Hint(err, "did you mean %s?", near)
	}
	return Flags{}, fault.Code(fault.ExitUsage, fault.Hint(err, "known are %s", strings.Join(OEMs(), ", ")))
}

// Or fills what f leaves open from g: flags win over a preset.
func (f Flags) Or(g Flags) Flags {
	for _, s := range []struct {
		to   *string
		from string
	}{
		{&f.File, g.File}, {&f.URL, g.URL}, {&f.ConfigDrive, g.ConfigDrive},
		{&f.EC2, g.EC2}, {&f.GCE, g.GCE}, {&f.DigitalOcean, g.DigitalOcean}, {&f.Packet, g.Packet},
		{&f.VMwareOVFEnv, g.VMwareOVFEnv}, {&f.WAAgent, g.WAAgent}, {&f.ConvertNetconf, g.ConvertNetconf},
	} {
		if *s.to == "" {
			*s.to = s.from
		}
	}
	f.ProcCmdline = f.ProcCmdline || g.ProcCmdline
	f.CloudSigma = f.CloudSigma || g.CloudSigma
	f.VMwareGuestinfo = f.VMwareGuestinfo || g.VMwareGuestinfo
	return f
}

// Sources makes the sources that the flags name. It touches none of them.
func (f Flags) Sources(fetch Fetcher) []Source {
	var out []Source
	with := func(value string, make func(string, Fetcher) Source) {
		if value != "" {
			out = append(out, make(value, fetch))
		}
	}
	local := func(make func(string) Source) func(string, Fetcher) Source {
		return func(path string, _ Fetcher) Source { return make(path) }
	}
	with(f.File, local(File))
	with(f.URL, URL)
	with(f.ConfigDrive, local(ConfigDrive))
	if f.ProcCmdline {
		out = append(out, ProcCmdline(procCmdline, fetch))
	}
	with(f.EC2, EC2)
	with(f.GCE, GCE)
	with(f.DigitalOcean, DigitalOcean)
	with(f.Packet, Packet)
	if f.CloudSigma {
		out = append(out, CloudSigma())
	}
	if f.VMwareGuestinfo {
		out = append(out, Guestinfo(fetch))
	}
	with(f.VMwareOVFEnv, OVFEnv)
	with(f.WAAgent, local(WAAgent))
	return out
}
