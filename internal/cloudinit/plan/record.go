package plan

import (
	"maps"
	"path"
	"slices"
	"strings"

	"flotilla/internal/cloudinit/config"
)

// before is the record that is saved ahead of the first step: all that the plan may
// leave behind, together with what was left before. So a run that is cut anywhere
// leaves nothing that the next one does not know of.
func (m *maker) before() Record {
	r := m.have.Record.clone()
	m.forget(&r)
	for _, f := range m.files {
		r.Files[f.Path] = FileMark{Hash: hash(string(f.Content)), Shared: f.Shared, Unit: f.Unit}
	}
	maps.Copy(r.KeySets, m.keySets)
	for name, p := range m.masks {
		mark := r.Units[name]
		mark.Mask = p
		r.Units[name] = mark
	}
	for name, runtime := range m.enabled {
		mark := r.Units[name]
		mark.Enabled, mark.Runtime = true, runtime
		r.Units[name] = mark
	}
	for _, s := range m.settled {
		r.Units[s.Target] = r.Units[s.Target].told(s.Asked, s.Text, m.have.Boot)
	}
	for _, name := range m.names {
		if !slices.Contains(r.Names, name) {
			r.Names = append(r.Names, name)
		}
	}
	for _, v := range m.want.Addrs {
		delete(r.Detected, v.Name)
		if m.want.Origins[v.Name] {
			r.Detected[v.Name] = v.Value
		}
	}
	for _, s := range m.steps {
		m.stepAhead(&r, s)
	}
	return r
}

// stepAhead records what a step may leave behind if the run is cut after it.
func (m *maker) stepAhead(r *Record, s Step) {
	if (s.Unit != "" && !isNetwork(s.Unit) || inUnitDir(s.Target)) && m.have.Live {
		r.ReloadDue = r.ReloadDue || s.Kind != Command
	}
	switch {
	case s.Kind == AddUser && !slices.Contains(r.Users, s.Target):
		r.Users = append(r.Users, s.Target)
	case s.Kind == Command && s.Unit != "":
		mark := r.Units[s.Target]
		mark.Due = true
		r.Units[s.Target] = mark
	}
}

// forget drops what is not on the machine any more.
func (m *maker) forget(r *Record) {
	maps.DeleteFunc(r.Files, func(p string, mark FileMark) bool {
		now, exists := m.have.Files[p]
		foreign := mark.Shared || hash(string(now.Content)) != mark.Hash
		return !exists || m.want.Prune && foreign
	})
	if m.want.Prune {
		r.Users = slices.DeleteFunc(r.Users, func(name string) bool { return !m.wantsUser(name) })
	}
	maps.DeleteFunc(r.KeySets, func(id string, _ bool) bool {
		_, there := m.have.Users[path.Dir(id)].Sets[path.Base(id)]
		return !there
	})
	maps.DeleteFunc(r.Units, func(name string, mark UnitMark) bool {
		masked := mark.Mask != "" && m.have.Files[mark.Mask].Link == "/dev/null"
		enabled := mark.Enabled && strings.HasPrefix(m.have.Units[name].Enabled, "enabled")
		return !slices.Contains(m.unitNames, name) && !masked && !enabled
	})
	r.Names = slices.DeleteFunc(r.Names, func(name string) bool {
		return !slices.Contains(strings.Fields(string(m.have.Files[hostsFile].Content)), name)
	})
}

// clone is a copy of which every map can be written to.
func (r Record) clone() Record {
	r.Files, r.KeySets, r.Units = copied(r.Files), copied(r.KeySets), copied(r.Units)
	r.Scripts, r.Detected = copied(r.Scripts), copied(r.Detected)
	r.Users, r.Names = slices.Clone(r.Users), slices.Clone(r.Names)
	return r
}

func copied[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m))
	maps.Copy(out, m)
	return out
}

// After is the record when a step was carried out in the boot of that id.
func (r Record) After(s Step, boot string) Record {
	r = r.clone()
	switch s.Kind {
	case Remove:
		delete(r.Files, s.Target)
	case Keys:
		if len(s.Keys) == 0 {
			delete(r.KeySets, s.Target+"/"+s.Set)
		}
	case Unmask:
		mark := r.Units[s.Unit]
		mark.Mask = ""
		r.Units[s.Unit] = mark
	case Disable:
		mark := r.Units[s.Target]
		mark.Enabled = false
		r.Units[s.Target] = mark
	case Reload:
		r.ReloadDue = false
	case Run:
		r.Scripts[s.Text] = boot
	case Command:
		r.command(s, boot)
	}
	return r
}

func (r *Record) command(s Step, boot string) {
	if s.Target == networkd && s.Unit == "" {
		r.Network = s.Text
		return
	}
	r.Units[s.Target] = r.Units[s.Target].told(s.Asked, s.Text, boot)
}

// told is the mark of a unit after it was told a command.
func (mark UnitMark) told(command, text, boot string) UnitMark {
	mark.Due = false
	if mark.Boot != boot || mark.Text != text {
		mark.Boot, mark.Text, mark.Told = boot, text, nil
	}
	if !slices.Contains(mark.Told, command) {
		mark.Told = append(slices.Clone(mark.Told), command)
	}
	return mark
}

// removed names what earlier runs left and the document does not ask for any more, and
// takes it back if that is wanted.
func (m *maker) removed() {
	m.removedKeys()
	m.removedUnits()
	m.removedFiles()
	for _, name := range m.have.Record.Users {
		if _, exists := m.have.Users[name]; exists && !m.wantsUser(name) {
			m.note(name, "the user was made by an earlier run; the document does not name it any more, it stays")
		}
	}
}

func (m *maker) wantsUser(name string) bool {
	return slices.ContainsFunc(m.allUsers(), func(u config.User) bool { return u.Name == name })
}

// gone says what happens to something that the document does not have any more.
func (m *maker) gone(target, what string, takeBack func()) {
	if !m.want.Prune {
		m.note(target, "%s of an earlier run; the document does not have it any more (-prune takes it back)", what)
		return
	}
	takeBack()
}

func (m *maker) removedKeys() {
	for _, id := range slices.Sorted(maps.Keys(m.have.Record.KeySets)) {
		user, set := path.Dir(id), path.Base(id)
		account := m.have.Users[user]
		if _, there := account.Sets[set]; m.keySets[id] || !there {
			continue
		}
		m.gone(user, "SSH keys (set "+set+")", func() {
			m.step(Step{Kind: Keys, Target: user, Set: set, Why: "the document does not have them any more", File: File{
				Existed: true, Old: []byte(account.AuthorizedKeys), OldMode: keysMode, Mode: keysMode,
				New: []byte(MergeKeys(account.AuthorizedKeys, account.Sets, set, nil))}})
		})
	}
}

func (m *maker) removedUnits() {
	listed := func(name string) bool { return m.texts[name] != nil || slices.Contains(m.unitNames, name) }
	for _, name := range slices.Sorted(maps.Keys(m.have.Record.Units)) {
		mark, now := m.have.Record.Units[name], m.have.Units[name]
		if mark.Enabled && !has(m.enabled, name) && strings.HasPrefix(now.Enabled, "enabled") {
			m.gone(name, "enabled by the document", func() {
				m.step(Step{Kind: Disable, Target: name, Unit: name, Runtime: mark.Runtime, Why: "the document does not enable it any more"})
			})
		}
		if mark.Mask != "" && !listed(name) && m.have.Files[mark.Mask].Link == "/dev/null" {
			m.gone(name, "masked by the document", func() {
				m.step(Step{Kind: Unmask, Target: mark.Mask, Unit: name, Why: "the document does not mask it any more", File: File{Existed: true, OldLink: "/dev/null"}})
			})
		}
	}
}

func (m *maker) removedFiles() {
	for _, p := range slices.Sorted(maps.Keys(m.have.Record.Files)) {
		mark := m.have.Record.Files[p]
		now, exists := m.have.Files[p]
		if _, wanted := m.at[p]; wanted || !exists || now.Dir || now.Link != "" {
			continue
		}
		if mark.Shared && p == environmentFile {
			continue // it is to be there for everybody
		}
		if mark.Shared {
			m.note(p, "lines that the document does not ask for any more stay")
			continue
		}
		if hash(string(now.Content)) != mark.Hash {
			m.note(p, "was written by an earlier run and changed by others since; the document does not have it any more, it stays")
			continue
		}
		m.gone(p, "written by the document", func() {
			if path.Base(p) == mark.Unit && m.have.Units[mark.Unit].Active {
				// First, so that a run which is cut here still knows whose file it was.
				m.step(Step{Kind: Command, Target: mark.Unit, Verb: "stop", Asked: "stop", Why: "the document does not have it any more"})
			}
			m.step(Step{Kind: Remove, Target: p, Unit: mark.Unit, Why: "the document does not have it any more",
				File: File{Existed: true, Old: now.Content, OldMode: now.Mode, OldOwner: now.Owner}})
		})
	}
}

func has[V any](m map[string]V, key string) bool {
	_, ok := m[key]
	return ok
}
