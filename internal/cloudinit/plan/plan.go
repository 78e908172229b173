// Package plan decides what is to be done so that a machine becomes what a
// cloud-config document asks for. It looks at a snapshot of the machine and returns
// steps with reasons; it touches nothing. The same snapshot gives the same plan, and a
// plan that was carried out leaves an empty one.
package plan

import (
	"fmt"

	"flotilla/internal/cloudinit/config"
)

// Kind is what a step does.
type Kind string

// The kinds of steps, roughly in the order in which a plan has them.
const (
	Hostname Kind = "hostname" // set the host name to Target
	AddUser  Kind = "user"     // make the user Target
	Password Kind = "password" // set the password of the user Target
	Keys     Kind = "keys"     // replace one set of the user's SSH keys
	WriteTo  Kind = "write"    // make New the content of the file Target
	Remove   Kind = "remove"   // remove the file Target
	Mask     Kind = "mask"     // make Target, a unit's file, a link to /dev/null
	Unmask   Kind = "unmask"   // remove that link, or an empty file
	Enable   Kind = "enable"   // enable the unit Target
	Disable  Kind = "disable"  // disable the unit Target
	Reload   Kind = "reload"   // systemd reads its unit files anew
	Command  Kind = "command"  // tell the unit Target the Verb
	Run      Kind = "script"   // run the file Target in a transient unit
)

// A Step is one change of the machine.
type Step struct {
	Kind   Kind
	Target string // a path, a user, a unit or a host name, by Kind
	Why    string

	File // of WriteTo, Remove, Mask and Unmask: what is there now, and is to be

	User config.User // of AddUser and Password
	Set  string      // of Keys: the name of the set
	Keys []string    // of Keys: the lines of the set; none removes it
	// MakeHome: of Keys: a home directory that is missing is made.
	MakeHome bool

	Verb    string // of Command: as systemctl has it; of Run: the name of the transient unit
	Asked   string // of Command: the document's word, which may be start where Verb is restart
	Runtime bool   // of Enable and Disable: until the next reboot
	// Unit is whose file a WriteTo or Mask writes. If the step fails, no command is
	// carried out for this unit.
	Unit string
	// Text is the hash of all that the document says about a unit, or of a script. It
	// goes into the record when the step is done.
	Text string
}

// File is the change of one file. For Keys it is authorized_keys, for people to look at.
type File struct {
	Existed  bool
	Old, New []byte
	OldLink  string // what it links to if it is a symbolic link now
	OldMode  uint32
	Mode     uint32 // permission bits that it is to have
	OldOwner string // USER:GROUP
	Owner    string // that it is to have: USER, USER:GROUP, or "" for whoever runs this
}

// String is the step as one line of a plan.
func (s Step) String() string {
	what := fmt.Sprintf("%-8s %s", s.Kind, s.Target)
	switch s.Kind {
	case Reload:
		what = string(s.Kind)
	case Command:
		what = fmt.Sprintf("%-8s %s %s", s.Kind, s.Verb, s.Target)
	case Keys:
		what = fmt.Sprintf("%-8s %s, set %s", s.Kind, s.Target, s.Set)
	}
	return what + " # " + s.Why
}

// A Note is something that the plan does not change, and why.
type Note struct {
	Target string `json:"target"`
	Text   string `json:"text"`
	// Problem: the document asks for what cannot be done, and the run has failed in
	// this point before it begins.
	Problem bool `json:"problem"`
}

// A Plan is what to do.
type Plan struct {
	Steps []Step
	Notes []Note
	// Before is the record to save ahead of the first step: what this plan and the
	// runs before it may have left on the machine.
	Before Record
}

// Problems counts the notes that are problems.
func (p Plan) Problems() int {
	n := 0
	for _, note := range p.Notes {
		if note.Problem {
			n++
		}
	}
	return n
}

// maker is a plan in the making.
type maker struct {
	want  Wanted
	have  Snapshot
	steps []Step
	notes []Note

	files     []file         // all that are wanted, in order
	at        map[string]int // path: its place in files
	texts     map[string]*text
	masks     map[string]string // unit: path of its mask
	enabled   map[string]bool   // unit: only until the next boot
	unitNames []string
	settled   []Step   // commands that need not be carried out: it is so already
	names     []string // host names for /etc/hosts
	keySets   map[string]bool
}

// Make returns the plan that makes the machine have what is wanted.
func Make(want Wanted, have Snapshot) Plan {
	m := newMaker(want, have)
	if have.Blind != "" {
		m.problem("systemd", "%s", have.Blind)
	}
	m.hostname()
	m.users()
	m.contents()
	m.wantScripts()
	units := m.units()
	m.writeFiles("")
	m.unitFiles(units)
	m.removed()
	m.commands(units)
	m.scripts()
	if !have.Live {
		m.withoutSystemd()
	}
	return Plan{Steps: m.steps, Notes: m.notes, Before: m.before()}
}

func newMaker(want Wanted, have Snapshot) *maker {
	return &maker{want: want, have: have, at: map[string]int{}, texts: map[string]*text{},
		masks: map[string]string{}, enabled: map[string]bool{}, keySets: map[string]bool{}}
}

func (m *maker) step(s Step) { m.steps = append(m.steps, s) }

func (m *maker) note(target, format string, args ...any) {
	m.notes = append(m.notes, Note{Target: target, Text: fmt.Sprintf(format, args...)})
}

func (m *maker) problem(target, format string, args ...any) {
	m.notes = append(m.notes, Note{Target: target, Text: fmt.Sprintf(format, args...), Problem: true})
}

// hostname is that of the document, else the one that the data source gives.
func (m *maker) hostname() {
	name, why := m.want.Document.Hostname, "hostname of the document"
	if given := m.want.Hostname; given != "" && name == "" {
		name, why = given, "host name from the data source"
	} else if given != "" && given != name {
		m.note(name, "the document's host name counts, not %q from the data source", given)
	}
	if name == "" || name == m.have.StaticHostname && (!m.have.Live || name == m.have.Hostname) {
		return
	}
	m.step(Step{Kind: Hostname, Target: name, Why: why})
}

// currentName is the host name after the plan.
func (m *maker) currentName() string {
	for _, name := range []string{m.want.Document.Hostname, m.want.Hostname, m.have.StaticHostname} {
		if name != "" {
			return name
		}
	}
	return m.have.Hostname
}

// withoutSystemd leaves out what only a running systemd can do, and says so.
func (m *maker) withoutSystemd() {
	var steps []Step
	for _, s := range m.steps {
		switch s.Kind {
		case Command:
			m.note(s.Target, "no systemd to tell %q here: the document says it at each boot", s.Verb)
		case Run:
			m.note(s.Target, "no systemd to run a script here")
		case Reload:
		default:
			steps = append(steps, s)
		}
	}
	m.steps = steps
}
