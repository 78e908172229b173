package config

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// document makes a Document of what is right, and says where things that are right
// by themselves do not go together.
func (r *reader) document(f fields) Document {
	c := f.section("coreos")
	r.window(c.section("locksmith"))
	r.oneStore(c.section("etcd"), c.section("etcd2"))
	return Document{
		Hostname:          f.text("hostname"),
		ManageEtcHosts:    f.text("manage_etc_hosts"),
		SSHAuthorizedKeys: f.texts("ssh_authorized_keys"),
		Users:             r.users(f.items("users")),
		WriteFiles:        r.files(f.items("write_files")),
		CoreOS: CoreOS{
			Etcd:      options("coreos.etcd", c.section("etcd")),
			Etcd2:     options("coreos.etcd2", c.section("etcd2")),
			Fleet:     options("coreos.fleet", c.section("fleet")),
			Flannel:   options("coreos.flannel", c.section("flannel")),
			Locksmith: options("coreos.locksmith", c.section("locksmith")),
			OEM:       r.oem(c.section("oem")),
			Update:    update(c.section("update")),
			Units:     r.units(c.items("units")),
		},
	}
}

// options are those of a daemon that are to be set: the original could not tell an
// option that is false, zero or empty from one that is not there. It knew none of ours.
func options(section string, f fields) Options {
	var all Options
	for _, e := range schema {
		v := f.text(e.Name)
		if e.Section != section || v == "" || e.Type != Text && e.Since != ours && (v == "0" || v == "false") {
			continue
		}
		all = append(all, Option{Name: e.Name, Variable: e.Variable, Value: v})
	}
	slices.SortFunc(all, func(a, b Option) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// oneStore complains about what the two sections of the store say differently.
func (r *reader) oneStore(etcd, etcd2 fields) {
	for _, o := range options("coreos.etcd", etcd) {
		v, v2 := etcd.values[o.Name], etcd2.values[o.Name]
		if v2.text != "" && v2.text != v.text {
			r.add(v.key, Warning, v.path, "%q is not used: etcd and etcd2 are one daemon, and etcd2 says %s in line %d", v.key.text, show(v2.text), v2.key.line)
		}
	}
}

// window checks that the two options of a reboot window make one, and takes away what
// makes none.
func (r *reader) window(f fields) {
	start, length := f.text("window_start"), f.text("window_length")
	whole := false
	switch {
	case start == "" && length == "":
	case start != "" && length == "" && !f.wrong("window_length"):
		v := f.values["window_start"]
		r.add(v.key, Error, v.path, "%q without window_length: there is no window", v.key.text).Hint = v.key.like("window_length") + ": 1h"
	case length != "" && start == "" && !f.wrong("window_start"):
		v := f.values["window_length"]
		r.add(v.key, Error, v.path, "%q without window_start: there is no window", v.key.text).Hint = v.key.like("window_start") + ": 14:30"
	case start != "" && length != "":
		d, err := time.ParseDuration(length)
		if whole = err != nil || d <= 24*time.Hour || strings.Contains(start, " "); !whole {
			v := f.values["window_length"]
			r.add(v.node, Error, v.path, "invalid value %s for %q: a window of each day is no longer than 24h", length, v.key.text)
		}
	}
	if !whole {
		delete(f.values, "window_start")
		delete(f.values, "window_length")
	}
}

func (r *reader) oem(f fields) OEM {
	if f.node != nil && len(f.values) > 0 && f.text("id") == "" && !f.wrong("id") {
		r.add(f.node, Warning, f.path, "oem without id: nothing is written")
	}
	return OEM{ID: f.text("id"), Name: f.text("name"), VersionID: f.text("version_id"),
		HomeURL: f.text("home_url"), BugReportURL: f.text("bug_report_url")}
}

func update(f fields) Update {
	return Update{RebootStrategy: f.text("reboot_strategy"), Group: f.text("group"), Server: f.text("server")}
}

// named reports whether an entry of a list has the option that it cannot do without.
// One that is there and wrong has been complained about.
func (r *reader) named(f fields, what, name string) bool {
	if f.text(name) != "" {
		return true
	}
	if !f.wrong(name) {
		r.add(f.node, Error, f.path, "%s without %s: it is left out", what, name)
	}
	return false
}

// ofTwo is what becomes of two entries of one name.
var ofTwo = map[string]string{
	"file":    "the last one counts",
	"drop-in": "the last one counts",
	"unit":    "the last content counts, all else is done for both",
	"user":    "the first one says what the user is, the other adds keys and may change the password",
}

// once notes names of list entries and complains when one comes again.
func (r *reader) once(seen map[string]int, f fields, name, what string) {
	v := f.values[name]
	key := v.text
	if name == "path" {
		key = path.Clean(key)
	}
	if line, again := seen[key]; again {
		r.add(v.node, Warning, v.path, "%s %s is there twice: first in line %d; %s", what, v.text, line, ofTwo[what])
		return
	}
	seen[key] = v.node.line
}

func (r *reader) units(items []fields) []Unit {
	var all []Unit
	seen := map[string]int{}
	for _, f := range items {
		dropIns := r.dropIns(f.items("drop_ins"))
		r.unitText(f.values["content"])
		if !r.named(f, "a unit", "name") {
			continue
		}
		r.once(seen, f, "name", "unit")
		r.unitSense(f)
		// What was to be written and cannot be must not be started either.
		if f.wrong("content") || f.wrong("mask") || f.flag("mask") && f.text("content") != "" {
			continue
		}
		u := Unit{Name: f.text("name"), Content: f.text("content"), Runtime: f.flag("runtime"), Enable: f.flag("enable"),
			Mask: f.flag("mask"), Command: f.text("command"), DropIns: dropIns}
		if IsNetworkUnit(u.Name) {
			u.Enable, u.Command = false, ""
		}
		all = append(all, u)
	}
	return all
}

// unitSense complains about what a unit cannot be at once.
func (r *reader) unitSense(f fields) {
	mask, name := f.values["mask"], f.text("name")
	if f.flag("mask") && f.text("content") != "" {
		r.add(mask.key, Error, f.path, "%s is masked and has content: the link to /dev/null and the file want the same place; it is left out", name)
	}
	if f.flag("mask") && f.flag("enable") {
		r.add(mask.key, Warning, f.path, "%s is masked and enabled: a masked unit cannot be enabled", name)
	}
	if c := f.text("command"); f.flag("mask") && c != "" && c != "stop" {
		r.add(f.values["command"].key, Warning, f.path, "%s is masked: %s will fail", name, c)
	}
	if !IsNetworkUnit(name) {
		return
	}
	for _, option := range []string{"command", "enable"} {
		if v := f.values[option]; v.text != "" && v.text != "false" {
			r.add(v.key, Warning, f.path, "%s is read by systemd-networkd, which is restarted for it: %s is ignored", name, v.key.text)
		}
	}
}

func (r *reader) dropIns(items []fields) []DropIn {
	var all []DropIn
	seen := map[string]int{}
	for _, f := range items {
		r.unitText(f.values["content"])
		if !r.named(f, "a drop-in", "name") || !r.named(f, "a drop-in", "content") {
			continue
		}
		r.once(seen, f, "name", "drop-in")
		all = append(all, DropIn{Name: f.text("name"), Content: f.text("content")})
	}
	return all
}

func (r *reader) users(items []fields) []User {
	var all []User
	seen := map[string]int{}
	for _, f := range items {
		if !r.named(f, "a user", "name") {
			continue
		}
		r.once(seen, f, "name", "user")
		u := User{
			Name: f.text("name"), PasswordHash: f.text("passwd"), SSHAuthorizedKeys: f.texts("ssh_authorized_keys"),
			GithubUsers: f.texts("coreos_ssh_import_github_users"), KeysURL: f.text("coreos_ssh_import_url"),
			Gecos: f.text("gecos"), Homedir: f.text("homedir"), NoCreateHome: f.flag("no_create_home"), System: f.flag("system"),
			PrimaryGroup: f.text("primary_group"), Shell: f.text("shell"), Groups: f.texts("groups"),
			NoUserGroup: f.flag("no_user_group"), NoLogInit: f.flag("no_log_init"),
		}
		if one := f.text("coreos_ssh_import_github"); one != "" {
			u.GithubUsers = append([]string{one}, u.GithubUsers...)
		}
		all = append(all, u)
	}
	return all
}

func (r *reader) files(items []fields) []File {
	var all []File
	seen := map[string]int{}
	for _, f := range items {
		content, ok := r.decoded(f)
		if !r.named(f, "a file", "path") {
			continue
		}
		r.once(seen, f, "path", "file")
		mode, modeOK := r.mode(f)
		// Half a file is worse than none: a secret that all can read, a program that does not run.
		if !ok || !modeOK || f.wrong("owner") || f.wrong("content") {
			continue
		}
		all = append(all, File{Path: path.Clean(f.text("path")), Content: content, Owner: f.text("owner"), Mode: mode})
	}
	return all
}

// mode is what permissions say; false if they are wrong.
func (r *reader) mode(f fields) (uint32, bool) {
	v := f.values["permissions"]
	if v.text == "" {
		return 0o644, !f.wrong("permissions")
	}
	mode, err := strconv.ParseUint(v.text, 8, 32)
	if octal, ok := decimals[v.text]; ok && v.node.plain && mode&0o400 != 0 && mode&0o022 != 0 && mode&0o200 == 0 {
		r.add(v.node, Warning, v.path, "permissions %s let others write and not the owner: it is what a program makes of %s, which must stand in quotes there", v.text, octal)
	}
	return uint32(mode), err == nil
}

// decoded is the content of a file with its encoding undone.
func (r *reader) decoded(f fields) ([]byte, bool) {
	data := []byte(f.text("content"))
	v, ok := f.values["encoding"]
	if !ok || v.text == "" {
		return data, !f.wrong("encoding")
	}
	content := f.values["content"]
	data, err := undo(v.text, data, max(0, MaxUnpacked-r.bytes))
	if err != nil {
		at := v
		if content.node != nil {
			at = content
		}
		msg := r.add(at.node, Error, at.path, "content cannot be decoded as %q: %v", v.text, err)
		if at.node.binary && strings.Contains(v.text, "64") {
			msg.Message += "; !!binary has undone base64 already"
		}
	}
	r.bytes += len(data)
	return data, err == nil
}

// undo undoes an encoding: base64 first, where both are named. Unpacked it may have
// limit bytes.
func undo(encoding string, data []byte, limit int) ([]byte, error) {
	var err error
	if strings.Contains(encoding, "64") {
		if data, err = decodeBase64(string(data)); err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(encoding, "gz") {
		if data, err = gunzip(data, limit); err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
	}
	return data, nil
}
