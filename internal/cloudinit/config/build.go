package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// document makes a Document of what is right.
func (r *reader) document(f fields) Document {
	c := f.section("coreos")
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
// option that is false, zero or empty from one that is not there.
func options(section string, f fields) Options {
	var all Options
	for _, e := range schema {
		v := f.text(e.Name)
		if e.Section != section || v == "" || e.Type != Text && (v == "0" || v == "false") {
			continue
		}
		all = append(all, Option{Name: e.Name, Variable: e.Variable, Value: v})
	}
	slices.SortFunc(all, func(a, b Option) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (r *reader) oem(f fields) OEM {
	return OEM{ID: f.text("id"), Name: f.text("name"), VersionID: f.text("version_id"),
		HomeURL: f.text("home_url"), BugReportURL: f.text("bug_report_url")}
}

func update(f fields) Update {
	return Update{RebootStrategy: f.text("reboot_strategy"), Group: f.text("group"), Server: f.text("server")}
}

func (r *reader) units(items []fields) []Unit {
	var all []Unit
	for _, f := range items {
		all = append(all, Unit{Name: f.text("name"), Content: f.text("content"), Runtime: f.flag("runtime"),
			Enable: f.flag("enable"), Mask: f.flag("mask"), Command: f.text("command"), DropIns: r.dropIns(f.items("drop_ins"))})
	}
	return all
}

func (r *reader) dropIns(items []fields) []DropIn {
	var all []DropIn
	for _, f := range items {
		all = append(all, DropIn{Name: f.text("name"), Content: f.text("content")})
	}
	return all
}

func (r *reader) users(items []fields) []User {
	var all []User
	for _, f := range items {
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
	for _, f := range items {
		file := File{Path: f.text("path"), Content: []byte(f.text("content")), Owner: f.text("owner"), Mode: 0o644}
		if p := f.text("permissions"); p != "" {
			mode, _ := strconv.ParseUint(strings.TrimPrefix(p, "0"), 8, 32)
			file.Mode = uint32(mode)
		}
		all = append(all, file)
	}
	return all
}
