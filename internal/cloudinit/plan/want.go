package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"slices"
	"strings"

	"flotilla/internal/cloudinit/config"
)

// DefaultKeySet is the name of the set that the document's SSH keys go into.
const DefaultKeySet = "coreos-cloudinit"

// Core is the user that the keys at the top of a document are for.
const Core = "core"

// Wanted is all that a run is to bring about. The zero value asks for nothing.
type Wanted struct {
	Document config.Document
	Scripts  []string        // whole texts, each with its #! line
	Hostname string          // from the data source; the document's counts before it
	SSHKeys  []string        // from the data source, for Core
	Network  []config.Unit   // network files made from the data source's configuration
	Imported []ImportedKeys  // fetched as the document's users ask for it
	Addrs    []Variable      // what /etc/environment is to have
	KeySet   string          // "" is DefaultKeySet
	Scratch  string          // the workspace: where scripts are put
	Prune    bool            // take back what earlier runs did and nobody wants now
	Origins  map[string]bool // names of Addrs that were detected on this machine
}

// ImportedKeys are public keys that were fetched for a user.
type ImportedKeys struct {
	User, Set string
	Keys      []string
}

// A Variable of an environment.
type Variable struct{ Name, Value string }

// Merge makes one document of the parts of a multipart one: lists are joined in
// order, and of a single value the last one counts.
func Merge(docs []config.Document) config.Document {
	var out config.Document
	for _, d := range docs {
		last(&out.Hostname, d.Hostname)
		last(&out.ManageEtcHosts, d.ManageEtcHosts)
		out.SSHAuthorizedKeys = append(out.SSHAuthorizedKeys, d.SSHAuthorizedKeys...)
		out.Users = append(out.Users, d.Users...)
		out.WriteFiles = append(out.WriteFiles, d.WriteFiles...)
		mergeCoreOS(&out.CoreOS, d.CoreOS)
	}
	return out
}

func mergeCoreOS(out *config.CoreOS, c config.CoreOS) {
	out.Etcd = mergeOptions(out.Etcd, c.Etcd)
	out.Etcd2 = mergeOptions(out.Etcd2, c.Etcd2)
	out.Fleet = mergeOptions(out.Fleet, c.Fleet)
	out.Flannel = mergeOptions(out.Flannel, c.Flannel)
	out.Locksmith = mergeOptions(out.Locksmith, c.Locksmith)
	if c.OEM != (config.OEM{}) {
		out.OEM = c.OEM
	}
	last(&out.Update.RebootStrategy, c.Update.RebootStrategy)
	last(&out.Update.Group, c.Update.Group)
	last(&out.Update.Server, c.Update.Server)
	out.Units = append(out.Units, c.Units...)
}

func last(to *string, value string) {
	if value != "" {
		*to = value
	}
}

// mergeOptions replaces options of the same variable and keeps the order of names.
func mergeOptions(a, b config.Options) config.Options {
	out := slices.Clone(a)
	for _, o := range b {
		i := slices.IndexFunc(out, func(x config.Option) bool { return x.Variable == o.Variable })
		if i >= 0 {
			out[i] = o
			continue
		}
		out = append(out, o)
	}
	slices.SortStableFunc(out, func(x, y config.Option) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// Targets is what a snapshot has to look at for Make to decide.
type Targets struct {
	Files []string // paths
	Users []string
	Units []string
}

// Look returns what a plan for want depends on, beside the record of earlier runs.
func Look(want Wanted, record Record) Targets {
	m := newMaker(want, Snapshot{Record: record})
	var t Targets
	m.contents()
	m.wantScripts()
	for _, u := range m.units() {
		if !isNetwork(u.Name) {
			t.Units = append(t.Units, u.Name)
		}
		t.Files = append(t.Files, unitPath(u.Unit), maskPath(u.Unit, true), maskPath(u.Unit, false))
	}
	t.Units = append(t.Units, networkd)
	for name, mark := range record.Units {
		t.Units = append(t.Units, name)
		if mark.Mask != "" {
			t.Files = append(t.Files, mark.Mask)
		}
	}
	for _, f := range m.files {
		t.Files = append(t.Files, f.Path)
		if f.Unit != "" && !isNetwork(f.Unit) {
			t.Units = append(t.Units, f.Unit)
		}
	}
	for p, mark := range record.Files {
		t.Files = append(t.Files, p)
		if mark.Unit != "" && !isNetwork(mark.Unit) {
			t.Units = append(t.Units, mark.Unit)
		}
	}
	t.Files = append(t.Files, updateConf, updateConfDefault, hostsFile, environmentFile)
	t.Users = []string{Core}
	for _, u := range want.Document.Users {
		t.Users = append(t.Users, u.Name)
	}
	for id := range record.KeySets {
		t.Users = append(t.Users, path.Dir(id))
	}
	for _, list := range []*[]string{&t.Files, &t.Users, &t.Units} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return t
}

// hash is how texts are compared over time.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
}
