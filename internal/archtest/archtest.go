// Package archtest holds the walls of the project: who may import whom, which
// modules may be linked, and what a pure package may not touch.
//
// ARCHITECTURE.md says why the walls stand where they stand.
package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the path all our packages begin with.
const Module = "flotilla/"

// Rank is how high a package stands: it may import lower ranks, its own
// component, and what the table in ARCHITECTURE.md adds.
type Rank int

// The ranks.
const (
	Vocabulary Rank = iota // standard library only
	Pure                   // decisions: vocabulary only, no effects
	Edge                   // the outside world and what every program shares
	Component              // a component's own edges
	Daemon                 // loops, daemons, HTTP, command lines
	Top                    // puts everything together
)

// place is where a package stands.
type place struct {
	rank      Rank
	component string // packages of one component may import each other downwards
}

// places lists packages by path; a path also stands for what is below it, and the
// longest match counts. A package that matches nothing is an error: it has to be
// given a place.
var places = map[string]place{
	"api":                     {Vocabulary, "api"},
	"dist":                    {Vocabulary, "dist"},
	"examples":                {Vocabulary, "examples"},
	"internal/fault":          {Vocabulary, "fault"},
	"internal/unit":           {Vocabulary, "unit"},
	"internal/unitfile":       {Vocabulary, "unitfile"},
	"internal/fleet/model":    {Vocabulary, "fleet"},
	"internal/kv/v2":          {Pure, "kv"},
	"internal/kv/whereabouts": {Pure, "kv"},
	"internal/kv/auth":        {Pure, "kv"},
	"internal/fleet/sched":    {Pure, "fleet"},
	"internal/fleet/nodeplan": {Pure, "fleet"},
	"internal/fleet/access":   {Pure, "fleet"},
	"internal/fleet/rollout":  {Pure, "fleet"},

	"internal/supervisor/service": {Pure, "supervisor"},
	"internal/supervisor/jobs":    {Pure, "supervisor"},

	"internal/cloudinit/config":  {Pure, "cloudinit"},
	"internal/cloudinit/plan":    {Pure, "cloudinit"},
	"internal/cloudinit/netconf": {Pure, "cloudinit"},
	"internal/reboot/sema":       {Pure, "reboot"},
	"internal/reboot/window":     {Pure, "reboot"},

	"internal/applet":        {Edge, "applet"},
	"internal/cli":           {Edge, "cli"},
	"internal/lifecycle":     {Edge, "lifecycle"},
	"internal/logx":          {Edge, "logx"},
	"internal/atomicfile":    {Edge, "atomicfile"},
	"internal/endpoint":      {Edge, "endpoint"},
	"internal/confload":      {Edge, "confload"},
	"internal/systemd":       {Edge, "systemd"},
	"internal/supervisor":    {Edge, "supervisor"},
	"internal/journal":       {Edge, "journal"},
	"internal/tunnel":        {Edge, "tunnel"},
	"internal/tlsfile":       {Edge, "tlsfile"},
	"internal/unit/unittest": {Edge, "unit"},
	"internal/unit/unitfake": {Edge, "unit"},

	"internal/kv/raftlog":     {Component, "kv"},
	"internal/kv/mvcc":        {Component, "kv"},
	"internal/kv/gate":        {Component, "kv"},
	"internal/fleet/registry": {Component, "fleet"},

	"client":         {Daemon, "client"},
	"internal/kv":    {Daemon, "kv"},
	"internal/fleet": {Daemon, "fleet"},
	"internal/lab":   {Daemon, "lab"},

	"internal/cloudinit": {Daemon, "cloudinit"},
	"internal/reboot":    {Daemon, "reboot"},

	"internal/up":       {Top, "up"},
	"internal/archtest": {Top, "archtest"},
	"cmd":               {Top, "cmd"},
	"lab":               {Top, "lab"},
	"dist/stage":        {Top, "dist"},
}

// base is the edges that every edge and program may use: how errors, flags, files
// and logs are written. The other edges know nothing of each other.
var base = []string{
	"internal/applet", "internal/cli", "internal/lifecycle", "internal/logx",
	"internal/atomicfile", "internal/endpoint", "internal/confload",
}

// Import restrictions on modules of others: only packages below the named paths
// may import them, and why.
var guarded = []struct{ pkg, only, why string }{
	{"go.etcd.io/etcd/server/", "internal/kv", "the engine is the store's business; everybody else is a client"},
	{"github.com/godbus/", "internal/systemd", "D-Bus is spoken in one place"},
	{"github.com/coreos/go-systemd/v22/dbus", "internal/systemd", "D-Bus is spoken in one place"},
}

// impure is what a pure package may not import.
var impure = []string{"os", "os/exec", "net", "net/http", "context", "sync", "sync/atomic", "log", "log/slog", "math/rand", "math/rand/v2", "io/fs", "syscall"}

// placeOf finds the place of a package path without the module's prefix.
func placeOf(path string) (place, bool) {
	for p := path; p != "."; {
		if at, ok := places[p]; ok {
			return at, true
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return place{}, false
}

// Check says why importer may not import imported; "" if it may. Both are paths
// without the module's prefix for our own packages, whole paths for others.
func Check(importer, imported string, ours bool) string {
	from, ok := placeOf(importer)
	if !ok {
		return fmt.Sprintf("%s has no rank: give it a place in internal/archtest", importer)
	}
	if !ours {
		return checkForeign(importer, from, imported)
	}
	to, ok := placeOf(imported)
	if !ok {
		return fmt.Sprintf("%s imports %s, which has no rank", importer, imported)
	}
	switch {
	case from.rank == Top:
		return ""
	case to.rank == Top:
		return fmt.Sprintf("%s imports %s: nothing imports what puts everything together", importer, imported)
	case from.component == to.component:
		if to.rank > from.rank {
			return fmt.Sprintf("%s (rank %d) imports %s (rank %d): imports go downwards", importer, from.rank, imported, to.rank)
		}
		return ""
	case to.rank == Vocabulary:
		if from.rank == Vocabulary && imported != "internal/fault" && to.component == "fleet" {
			return fmt.Sprintf("%s imports %s: a component's vocabulary is its own", importer, imported)
		}
		return ""
	case to.rank == Edge && slices.Contains(base, imported):
		if from.rank < Edge {
			return fmt.Sprintf("%s (rank %d) imports %s: decisions have no effects", importer, from.rank, imported)
		}
		return ""
	case to.rank == Edge && from.rank > Edge:
		return ""
	case imported == "client" || strings.HasPrefix(imported, "client/"):
		if from.rank < Daemon {
			return fmt.Sprintf("%s (rank %d) imports a client: only daemons and command lines speak to servers", importer, from.rank)
		}
		return ""
	}
	return fmt.Sprintf("%s imports %s: components meet in the store and in systemd, not by import", importer, imported)
}

// grammars are modules of others that read a text and nothing else, and which pure
// package may do so: a grammar like YAML's is not to be written anew.
var grammars = []struct{ module, only string }{
	{"github.com/goccy/go-yaml", "internal/cloudinit/config"},
}

func grammar(importer, imported string) bool {
	for _, g := range grammars {
		if importer == g.only && strings.HasPrefix(imported+"/", g.module+"/") {
			return true
		}
	}
	return false
}

func checkForeign(importer string, from place, imported string) string {
	standard := !strings.Contains(strings.Split(imported, "/")[0], ".")
	switch {
	case from.rank <= Pure && !standard && !grammar(importer, imported):
		return fmt.Sprintf("%s imports %s: ranks 0 and 1 use the standard library alone, and the grammars that are listed", importer, imported)
	case from.rank == Pure && slices.Contains(impure, imported):
		return fmt.Sprintf("%s imports %s: a decision has no effects; hand the value in", importer, imported)
	}
	for _, g := range guarded {
		if strings.HasPrefix(imported, g.pkg) && importer != g.only && !strings.HasPrefix(importer, g.only+"/") {
			return fmt.Sprintf("%s imports %s, only %s may: %s", importer, imported, g.only, g.why)
		}
	}
	return ""
}
