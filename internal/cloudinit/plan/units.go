package plan

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"flotilla/internal/cloudinit/config"
	"flotilla/internal/unitfile"
)

const (
	networkd      = "systemd-networkd.service"
	locksmithd    = "locksmithd.service"
	updateEngine  = "update-engine.service"
	flanneld      = "flanneld.service"
	optionsDropIn = "20-cloudinit.conf"
	optionsFile   = "20-cloudinit.env" // beside it: systemd reads what ends in .conf alone
)

// networkTypes are files of systemd-networkd and udev: no units, but written as such.
var networkTypes = []string{".link", ".netdev", ".network"}

// verbs are the commands that a document may give.
var verbs = []string{"start", "stop", "restart", "reload", "try-restart", "reload-or-restart", "reload-or-try-restart"}

// A unit that the plan deals with.
type unit struct {
	config.Unit
	generated bool // made of options: what is not installed is no mistake of the document
	options   config.Options
	why       string
}

// A text is all that is said about one unit, as it goes into its hash.
type text []string

func (m *maker) addText(unit string, parts ...string) {
	t, ok := m.texts[unit]
	if !ok {
		t = new(text)
		m.texts[unit] = t
	}
	*t = append(*t, parts...)
}

func (m *maker) textHash(unit string) string {
	if t := m.texts[unit]; t != nil {
		return hash(*t...)
	}
	return ""
}

func isNetwork(name string) bool { return slices.Contains(networkTypes, path.Ext(name)) }

// unitDirs are where systemd reads units that a document can write.
var unitDirs = []string{"/etc/systemd/system/", "/run/systemd/system/"}

// inUnitDir reports whether systemd has to read its units anew when a file changes.
func inUnitDir(p string) bool {
	return slices.ContainsFunc(unitDirs, func(dir string) bool { return strings.HasPrefix(p, dir) })
}

// unitOf is the unit whose file or drop-in is at a path; "" if it is none's.
func unitOf(p string) string {
	dir, name := path.Split(p)
	if (dir == "/etc/systemd/network/" || dir == "/run/systemd/network/") && isNetwork(name) {
		return name
	}
	if unit, ok := strings.CutSuffix(path.Base(dir), ".d"); ok && path.Ext(name) == ".conf" {
		dir, name = path.Dir(path.Clean(dir))+"/", unit
	}
	if slices.Contains(unitDirs, dir) && !isNetwork(name) && badUnit(name) == "" {
		return name
	}
	return ""
}

// badUnit says what is wrong with the name of a unit; "" if nothing is.
func badUnit(name string) string {
	if strings.ContainsAny(name, "/\x00") {
		return "a unit's name holds no slash"
	}
	if isNetwork(name) {
		if strings.ContainsAny(name, " \t\n") || strings.HasPrefix(name, ".") {
			return "no name of a network file"
		}
		return ""
	}
	if err := unitfile.CheckName(name); err != nil {
		return err.Error()
	}
	return ""
}

// unitDir is where files of a unit are written to.
func unitDir(u config.Unit) string {
	return dirOf(u.Name, u.Runtime)
}

func dirOf(name string, runtime bool) string {
	dir := "/etc/systemd"
	if runtime {
		dir = "/run/systemd"
	}
	if isNetwork(name) {
		return dir + "/network"
	}
	return dir + "/system"
}

func unitPath(u config.Unit) string { return path.Join(unitDir(u), u.Name) }

func maskPath(u config.Unit, runtime bool) string { return path.Join(dirOf(u.Name, runtime), u.Name) }

// units lists those of the document, then the generated ones, and wants their files.
func (m *maker) units() []unit {
	var units []unit
	for _, u := range slices.Concat(m.want.Network, m.want.Document.CoreOS.Units) {
		if why := badUnit(u.Name); why != "" {
			m.problem(u.Name, "unit: %s: left out", why)
			continue
		}
		units = append(units, unit{Unit: u, why: "coreos.units"})
	}
	units = append(units, generated(m.want.Document.CoreOS)...)
	for _, f := range m.files {
		if f.Unit != "" {
			m.addText(f.Unit, "file", f.Path, string(f.Content))
		}
	}
	for _, u := range units {
		m.wantUnit(u)
	}
	if f := m.want.Document.CoreOS.Flannel; len(f) > 0 {
		m.addText(flanneld, flannelOptions(f))
	}
	return units
}

// generated are the units that options of daemons and of updates stand for.
func generated(c config.CoreOS) []unit {
	units := slices.Concat(store(c), daemon("fleet.service", "coreos.fleet", c.Fleet),
		daemon(locksmithd, "coreos.locksmith", c.Locksmith))
	if s := c.Update.RebootStrategy; s == "off" {
		units = append(units, unit{generated: true, why: "reboot-strategy off",
			Unit: config.Unit{Name: locksmithd, Runtime: true, Mask: true, Command: "stop"}})
	} else if s != "" {
		units = append(units, unit{generated: true, why: "reboot-strategy " + s,
			Unit: config.Unit{Name: locksmithd, Runtime: true, Command: "restart"}})
	}
	if c.Update.Group != "" || c.Update.Server != "" {
		units = append(units, unit{generated: true, why: "coreos.update",
			Unit: config.Unit{Name: updateEngine, Runtime: true, Command: "restart"}})
	}
	return units
}

// storeUnits are two names of one unit.
var storeUnits = []string{"etcd.service", "etcd2.service"}

// sameUnit reports whether two names are, or may be, those of one unit.
func sameUnit(a, b string) bool {
	return a == b || slices.Contains(storeUnits, a) && slices.Contains(storeUnits, b)
}

// store gives both units of the store the options of both sections: etcd2.service is
// another name of etcd.service, and of drop-ins of one name systemd reads but one.
// Where the sections differ etcd2 counts.
func store(c config.CoreOS) []unit {
	both := mergeOptions(c.Etcd, c.Etcd2)
	var why []string
	if len(c.Etcd) > 0 {
		why = append(why, "coreos.etcd")
	}
	if len(c.Etcd2) > 0 {
		why = append(why, "coreos.etcd2")
	}
	var units []unit
	for _, name := range storeUnits {
		units = append(units, daemon(name, strings.Join(why, ", "), both)...)
	}
	return units
}

// daemon is the unit of a daemon with options; none without options.
func daemon(name, why string, options config.Options) []unit {
	if len(options) == 0 {
		return nil
	}
	return []unit{{generated: true, why: why, options: options, Unit: config.Unit{Name: name, Runtime: true}}}
}

// optionsText is the drop-in of a daemon's options: one Environment= line each, as
// coreos-cloudinit wrote them, and the file that has them again. For what an
// EnvironmentFile= of the unit itself says (/etc/default/etcd) counts before every
// Environment= line (systemd.exec(5)); of several files the last one counts. Values are
// quoted as systemd reads them: a backslash, a quote and a per cent sign are its own.
func optionsText(options config.Options, file string) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "\n", `\n`)
	var b strings.Builder
	b.WriteString("[Service]\n")
	for _, o := range options {
		fmt.Fprintf(&b, "Environment=\"%s=%s\"\n", o.Variable, quote.Replace(o.Value))
	}
	fmt.Fprintf(&b, "EnvironmentFile=-%s\n", file)
	return b.String()
}

// inShell escapes what means something between double quotes in a shell, and in files
// that are written like its assignments: EnvironmentFile=, os-release(5).
var inShell = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`")

// environmentFileText is what an EnvironmentFile= reads. It knows no specifiers, and
// other escapes than a drop-in.
func environmentFileText(options config.Options) string {
	var b strings.Builder
	for _, o := range options {
		fmt.Fprintf(&b, "%s=\"%s\"\n", o.Variable, inShell.Replace(o.Value))
	}
	return b.String()
}

// wantUnit wants the files of a unit and collects the text that is said about it.
func (m *maker) wantUnit(u unit) {
	m.unitNames = append(m.unitNames, u.Name)
	if u.Content != "" {
		if u.Mask {
			m.note(u.Name, "is masked: its content is not written")
		} else {
			m.wantFile(file{Why: u.why, Unit: u.Name,
				File: config.File{Path: unitPath(u.Unit), Content: []byte(u.Content), Mode: plainMode}})
			m.addText(u.Name, "content", u.Content)
		}
	}
	if len(u.options) > 0 {
		u = m.wantOptions(u)
	}
	for _, d := range u.DropIns {
		m.wantDropIn(u, d)
	}
	if u.why == "coreos.update" || strings.HasPrefix(u.why, "reboot-strategy") {
		m.addText(u.Name, fmt.Sprint(m.want.Document.CoreOS.Update))
	}
}

// wantOptions wants the file of a daemon's options, and adds the drop-in that names it.
func (m *maker) wantOptions(u unit) unit {
	p := path.Join(unitDir(u.Unit), u.Name+".d", optionsFile)
	m.wantFile(file{Why: u.why, Unit: u.Name,
		File: config.File{Path: p, Content: []byte(environmentFileText(m.firm(u))), Mode: plainMode}})
	u.DropIns = append(u.DropIns, config.DropIn{Name: optionsDropIn, Content: optionsText(u.options, p)})
	return u
}

// firm are the options of a unit that no later drop-in of the document sets anew. Those
// that one does are left to systemd's order of drop-ins.
func (m *maker) firm(u unit) config.Options {
	var later strings.Builder
	for _, other := range m.want.Document.CoreOS.Units {
		for _, d := range other.DropIns {
			if sameUnit(other.Name, u.Name) && d.Name > optionsDropIn {
				later.WriteString(d.Content + "\n")
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(u.options), func(o config.Option) bool {
		for line := range strings.Lines(later.String()) {
			if strings.HasPrefix(line, "Environment=") && strings.Contains(line, o.Variable+"=") {
				return true
			}
		}
		return false
	})
}

func (m *maker) wantDropIn(u unit, d config.DropIn) {
	switch {
	case d.Name == "" || strings.ContainsAny(d.Name, "/\x00") || d.Name == ".." || d.Name == ".":
		m.problem(u.Name, "%q is no name of a drop-in: left out", d.Name)
		return
	case d.Content == "":
		return
	case path.Ext(d.Name) != ".conf":
		m.note(u.Name, "systemd does not read the drop-in %s: its name does not end in .conf", d.Name)
	}
	m.wantFile(file{Why: u.why, Unit: u.Name, File: config.File{
		Path: path.Join(unitDir(u.Unit), u.Name+".d", d.Name), Content: []byte(d.Content), Mode: plainMode,
	}})
	m.addText(u.Name, "drop-in", d.Name, d.Content)
}

// unitFiles plans, unit by unit, the files, the mask and the enabling, then one reload.
func (m *maker) unitFiles(units []unit) {
	done := map[string]bool{}
	for _, u := range units {
		if !done[u.Name] {
			m.writeFiles(u.Name)
			done[u.Name] = true
		}
		m.mask(u)
		if u.Enable {
			m.enable(u)
		}
	}
}

// mask makes or removes the link to /dev/null. A unit that is runtime, or that an
// earlier run masked, is unmasked; a real unit file is left alone.
func (m *maker) mask(u unit) {
	p := unitPath(u.Unit)
	now, exists := m.have.Files[p]
	if u.Mask {
		m.masks[u.Name] = p
		if over, ok := m.have.Files[maskPath(u.Unit, false)]; ok && u.Runtime && over.Link == "" {
			m.note(u.Name, "the unit file in /etc/systemd/system counts before a mask in /run")
		}
		if exists && now.Link == "/dev/null" {
			return
		}
		m.step(Step{Kind: Mask, Target: p, Why: u.why, Unit: u.Name,
			File: File{Existed: exists, Old: now.Content, OldLink: now.Link}})
		return
	}
	if was := m.have.Record.Units[u.Name].Mask; was != "" && m.masks[u.Name] == "" && was != p {
		m.unmask(u, was, "the document does not mask it any more")
	}
	if _, written := m.at[p]; !written && (u.Runtime || m.have.Record.Units[u.Name].Mask == p) {
		m.unmask(u, p, u.why)
	}
}

func (m *maker) unmask(u unit, p, why string) {
	now, exists := m.have.Files[p]
	if !exists || now.Dir || now.Link != "/dev/null" && (now.Link != "" || len(now.Content) > 0) {
		return
	}
	m.step(Step{Kind: Unmask, Target: p, Why: why, Unit: u.Name, File: File{Existed: true, OldLink: now.Link}})
}

// enable plans the links of the unit's [Install] section.
func (m *maker) enable(u unit) {
	switch {
	case isNetwork(u.Name):
		m.note(u.Name, "is no unit: not enabled")
		return
	case u.Mask:
		m.problem(u.Name, "is masked: cannot be enabled")
		return
	}
	m.enabled[u.Name] = u.Runtime
	changes := m.changed(u.Name)
	switch state := m.have.Units[u.Name].Enabled; {
	case state == "enabled" || state == "enabled-runtime" && u.Runtime || state == "alias":
		return
	case state == "indirect" && m.have.Record.Units[u.Name].Enabled && !changes:
		return // it looks the same before and after
	case (state == "static" || state == "generated" || state == "transient") && !changes:
		m.note(u.Name, "has no [Install] section (it is %s): enabling it does nothing", state)
		return
	}
	m.step(Step{Kind: Enable, Target: u.Name, Why: u.why, Runtime: u.Runtime, Unit: u.Name})
}

// changed reports whether the plan writes a file of the unit.
func (m *maker) changed(name string) bool {
	return slices.ContainsFunc(m.steps, func(s Step) bool {
		return s.Unit == name && (s.Kind == WriteTo || s.Kind == Mask || s.Kind == Unmask || s.Kind == Remove)
	})
}

// written reports whether the plan writes the unit itself, not only drop-ins of it.
func (m *maker) written(name string) bool {
	return slices.ContainsFunc(m.steps, func(s Step) bool { return s.Kind == WriteTo && s.Unit == name && path.Base(s.Target) == name })
}

// reload plans one daemon reload for all changes, also for those of a run that was cut
// before its own.
func (m *maker) reload() {
	why := ""
	for _, s := range m.steps {
		if s.Unit != "" && !isNetwork(s.Unit) || inUnitDir(s.Target) {
			why = "unit files change"
		}
	}
	if why == "" && m.have.Record.ReloadDue {
		why = "an earlier run was cut before it"
	}
	for _, name := range slices.Sorted(maps.Keys(m.texts)) {
		if why == "" && m.have.Units[name].NeedReload {
			why = name + " has changed since systemd has read it"
		}
	}
	if why != "" {
		m.step(Step{Kind: Reload, Target: "systemd", Why: why})
	}
}

// commands plans the reload, the restart of networkd and the commands, in the order of
// the document. Each counts for one boot and one text: what was told a unit in this
// boot is told again only if the text has changed.
func (m *maker) commands(units []unit) {
	m.reload()
	m.network()
	for _, u := range units {
		if u.Command == "" {
			m.untold(u, units)
			continue
		}
		m.command(u)
	}
	for _, f := range m.files {
		if f.Early && !slices.Contains(m.unitNames, f.Unit) {
			m.untold(unit{Unit: config.Unit{Name: f.Unit}}, nil)
		}
	}
}

// untold says that a unit goes on with its old text.
func (m *maker) untold(u unit, units []unit) {
	told := slices.ContainsFunc(units, func(x unit) bool { return sameUnit(x.Name, u.Name) && x.Command != "" })
	if m.have.Units[u.Name].Active && m.changed(u.Name) && !told && !isNetwork(u.Name) {
		m.note(u.Name, "its text changes, but the document gives it no command: what runs now keeps the old one until it is restarted")
	}
}

// networkHash is that of all network files.
func (m *maker) networkHash() string {
	var parts []string
	for _, f := range m.files {
		if isNetwork(f.Unit) {
			parts = append(parts, f.Path, string(f.Content))
		}
	}
	if parts == nil {
		return ""
	}
	return hash(parts...)
}

func (m *maker) network() {
	sum := m.networkHash()
	changes := slices.ContainsFunc(m.steps, func(s Step) bool { return isNetwork(s.Unit) })
	if sum == "" || sum == m.have.Record.Network && !changes {
		return
	}
	if m.have.Units[networkd].Missing {
		m.note(networkd, "is not installed: nobody reads the network files")
		return
	}
	m.step(Step{Kind: Command, Target: networkd, Verb: "restart", Why: "network files change", Text: sum})
}

func (m *maker) command(u unit) {
	now, mark, sum := m.have.Units[u.Name], m.have.Record.Units[u.Name], m.textHash(u.Name)
	changes := m.changed(u.Name)
	switch {
	case isNetwork(u.Name):
		m.note(u.Name, "is no unit: %q is not carried out", u.Command)
		return
	case !slices.Contains(verbs, u.Command):
		m.problem(u.Name, "command %q is none of %s", u.Command, strings.Join(verbs, ", "))
		return
	case u.generated && now.Missing && !m.written(u.Name):
		m.note(u.Name, "is not installed: %s is not carried out", u.Command)
		return
	}
	s := Step{Kind: Command, Target: u.Name, Verb: u.Command, Why: u.why, Text: sum, Unit: u.Name, Asked: u.Command}
	newText := changes || mark.Due || mark.Boot != "" && mark.Text != sum
	told := !newText && mark.Boot == m.have.Boot && slices.Contains(mark.Told, u.Command)
	switch {
	case u.Command == "start" && now.Active && newText:
		s.Verb, s.Why = "restart", "its text has changed"
	case u.Command == "start" && now.Active, u.Command == "stop" && !now.Active:
		m.settled = append(m.settled, s)
		return
	case told:
		return
	}
	m.step(s)
}
