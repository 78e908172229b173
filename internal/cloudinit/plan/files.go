package plan

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"flotilla/internal/cloudinit/config"
)

// Files that options of a document are written to.
const (
	oemFile           = "/etc/oem-release"
	updateConf        = "/etc/coreos/update.conf"
	updateConfDefault = "/usr/share/coreos/update.conf"
	hostsFile         = "/etc/hosts"
	flannelFile       = "/run/flannel/options.env"
	environmentFile   = "/etc/environment"
)

// plainMode is what files have that options are written to.
const plainMode = 0o644

// A file that is wanted.
type file struct {
	config.File
	Why    string
	Shared bool   // lines among those of others
	Unit   string // whose unit file or drop-in it is
	Early  bool   // it is in write_files, which come before units
}

// want adds a file. Of two with the same path the later one counts.
func (m *maker) wantFile(f file) {
	if why := badPath(f.Path); why != "" {
		m.problem(f.Path, "%s: not written", why)
		return
	}
	if i, ok := m.at[f.Path]; ok {
		m.files[i] = f
		return
	}
	m.at[f.Path] = len(m.files)
	m.files = append(m.files, f)
}

// badPath says what is wrong with the path of a file; "" if nothing is.
func badPath(p string) string {
	switch {
	case !strings.HasPrefix(p, "/"):
		return "the path is not absolute"
	case strings.ContainsRune(p, 0):
		return "the path holds a zero byte"
	case slices.Contains(strings.Split(p, "/"), ".."):
		return fmt.Sprintf("the path leads through .. (to %s)", path.Clean(p))
	case p == "/" || strings.HasSuffix(p, "/"):
		return "the path is that of a directory"
	}
	return ""
}

// contents wants all files that are no unit's.
func (m *maker) contents() {
	d := m.want.Document
	for _, f := range d.WriteFiles {
		if badPath(f.Path) == "" {
			f.Path = path.Clean(f.Path)
		}
		if _, again := m.at[f.Path]; again {
			m.note(f.Path, "is in write_files twice: the last one counts")
		}
		m.wantFile(file{File: f, Why: "write_files", Unit: unitOf(f.Path), Early: true})
	}
	if d.CoreOS.OEM.ID != "" {
		m.wantText(oemFile, oemRelease(d.CoreOS.OEM), "coreos.oem", false)
	}
	if u := d.CoreOS.Update; u != (config.Update{}) {
		m.wantText(updateConf, updateConfig(m.base(updateConf, updateConfDefault), u), "coreos.update", true)
	}
	if d.ManageEtcHosts == "localhost" {
		name := m.currentName()
		m.names = []string{name}
		m.wantText(hostsFile, hosts(m.base(hostsFile), name, m.have.Record.Names), "manage_etc_hosts", true)
	}
	if len(d.CoreOS.Flannel) > 0 {
		m.wantText(flannelFile, flannelOptions(d.CoreOS.Flannel), "coreos.flannel", false)
	}
	if _, own := m.at[environmentFile]; !own && len(m.want.Addrs) > 0 {
		m.wantText(environmentFile, environment(m.base(environmentFile), m.want.Addrs), "addresses of this machine", true)
	}
}

// wantText wants a file of ours; one that is shared keeps the mode it has.
func (m *maker) wantText(p, content, why string, shared bool) {
	f := file{File: config.File{Path: p, Content: []byte(content), Mode: plainMode}, Why: why, Shared: shared}
	if now, ok := m.have.Files[p]; ok && shared && now.Link == "" {
		f.Mode, f.Owner = now.Mode, now.Owner
	}
	m.wantFile(f)
}

// base is the text that lines are merged into: what the document writes to the first
// of the paths, else the first that exists.
func (m *maker) base(paths ...string) string {
	if i, ok := m.at[paths[0]]; ok {
		return string(m.files[i].Content)
	}
	for _, p := range paths {
		if now, ok := m.have.Files[p]; ok && !now.Dir {
			return string(now.Content)
		}
	}
	return ""
}

// writeFiles plans the files of a unit, or with "" those that come before units.
func (m *maker) writeFiles(unit string) {
	for _, f := range m.files {
		if early := f.Early || f.Unit == ""; early == (unit == "") && (early || f.Unit == unit) {
			m.writeFile(f)
		}
	}
}

func (m *maker) writeFile(f file) {
	now, exists := m.have.Files[f.Path]
	if exists && now.Dir {
		m.problem(f.Path, "is a directory: not written")
		return
	}
	if exists && now.Unreadable != "" {
		m.problem(f.Path, "not written over what cannot be read: %s", now.Unreadable)
		return
	}
	same := exists && now.Link == "" && bytes.Equal(now.Content, f.Content)
	if same && now.Mode == f.Mode && m.owned(now, f.Owner) {
		return
	}
	why := f.Why
	switch {
	case exists && now.Link != "":
		why += "; takes the place of a link to " + now.Link
	case same && now.Mode != f.Mode:
		why += fmt.Sprintf("; its mode is %04o", now.Mode)
	case same:
		why += "; it belongs to " + now.Owner
	}
	m.step(Step{Kind: WriteTo, Target: f.Path, Why: why, Unit: f.Unit, File: File{
		Existed: exists, Old: now.Content, OldLink: now.Link, New: f.Content,
		OldMode: now.Mode, Mode: f.Mode, OldOwner: now.Owner, Owner: f.Owner,
	}})
}

// owned reports whether a file belongs to whom it is to belong to: names or numbers,
// and the group does not matter if none is asked for.
func (m *maker) owned(now Entry, want string) bool {
	if want == "" {
		want = m.have.Runner
	}
	nowUser, nowGroup, _ := strings.Cut(now.Owner, ":")
	user, group, _ := strings.Cut(want, ":")
	is := func(want, name string, id uint32, ids map[string]uint32) bool {
		other, known := ids[want] // several names may have one number
		return want == "" || want == name || want == fmt.Sprint(id) || known && other == id
	}
	return is(user, nowUser, now.UID, m.have.UserIDs) && is(group, nowGroup, now.GID, m.have.Groups)
}

// oemRelease has the first two values bare, as its readers expect.
func oemRelease(o config.OEM) string {
	var b strings.Builder
	for _, v := range []struct{ name, value, quote string }{
		{"ID", o.ID, ""}, {"VERSION_ID", o.VersionID, ""}, {"NAME", o.Name, `"`},
		{"HOME_URL", o.HomeURL, `"`}, {"BUG_REPORT_URL", o.BugReportURL, `"`},
	} {
		if v.quote != "" {
			v.value = inShell.Replace(v.value)
		}
		fmt.Fprintf(&b, "%s=%s%s%s\n", v.name, v.quote, v.value, v.quote)
	}
	return b.String()
}

// updateConfig replaces the lines of the options that are given and keeps all others.
func updateConfig(base string, u config.Update) string {
	var vars []Variable
	for _, v := range []Variable{{"GROUP", u.Group}, {"REBOOT_STRATEGY", u.RebootStrategy}, {"SERVER", u.Server}} {
		if v.Value != "" {
			vars = append(vars, v)
		}
	}
	return environment(base, vars)
}

// environment sets variables in a text of NAME=VALUE lines: in place where they are,
// at the end by name where they are not. All other lines stay.
func environment(base string, vars []Variable) string {
	lines := splitLines(base)
	vars = slices.Clone(vars)
	slices.SortFunc(vars, func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
	for _, v := range vars {
		set := v.Name + "=" + v.Value
		found := false
		for i, l := range lines {
			if strings.HasPrefix(l, v.Name+"=") {
				lines[i], found = set, true
			}
		}
		if !found {
			lines = append(lines, set)
		}
	}
	return joinLines(lines)
}

// hosts makes 127.0.0.1 and ::1 answer to a name. Names that earlier runs put there
// go; all other names and lines stay.
func hosts(base, name string, earlier []string) string {
	lines := splitLines(base)
	for _, addr := range []string{"127.0.0.1", "::1"} {
		i := slices.IndexFunc(lines, func(l string) bool {
			f := strings.Fields(l)
			return len(f) > 0 && f[0] == addr
		})
		if i < 0 {
			lines = append(lines, addr+" localhost "+name)
			continue
		}
		lines[i] = hostsLine(lines[i], name, earlier)
	}
	return joinLines(lines)
}

// hostsLine leaves a line as it is that has the name and no earlier one.
func hostsLine(line, name string, earlier []string) string {
	text, comment, _ := strings.Cut(line, "#")
	fields := strings.Fields(text)
	gone := func(f string) bool { return f != name && f != "localhost" && slices.Contains(earlier, f) }
	if slices.Contains(fields[1:], name) && !slices.ContainsFunc(fields, gone) {
		return line
	}
	fields = slices.DeleteFunc(fields, gone)
	if !slices.Contains(fields[1:], name) {
		fields = append(fields, name)
	}
	if comment != "" {
		fields = append(fields, "#"+comment)
	}
	return strings.Join(fields, " ")
}

// flannelOptions is a file of environment variables.
func flannelOptions(options config.Options) string {
	var b strings.Builder
	for _, o := range options {
		fmt.Fprintf(&b, "%s=%s\n", o.Variable, o.Value)
	}
	return b.String()
}

func splitLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func joinLines(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}
