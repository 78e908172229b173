package registry

import (
	"fmt"
	"strings"
)

// Kind is what a key of the registry is about.
type Kind string

// The kinds of key; package fleet lists their formats and writers.
const (
	KindObject    Kind = "object"       // job/UNIT/object
	KindDesired   Kind = "target-state" // job/UNIT/target-state
	KindRestart   Kind = "restart"      // job/UNIT/restart
	KindPlacement Kind = "schedule"     // schedule/MACHINE/UNIT
	KindUnplaced  Kind = "unplaced"     // unplaced/UNIT
	KindState     Kind = "states"       // states/MACHINE/UNIT
	KindMachine   Kind = "machine"      // machines/ID/object
	KindMetadata  Kind = "metadata"     // machines/ID/metadata/KEY
	KindLeader    Kind = "leader"       // lease/engine-leader
	KindHold      Kind = "hold"         // engine/hold
	KindMark      Kind = "mark"         // mark
	KindHistory   Kind = "history"      // history/UNIT/SEQ
	KindDestroyed Kind = "destroyed"    // destroyed/UNIT
	KindRoll      Kind = "roll"         // roll/GROUP
	KindCordon    Kind = "cordon"       // machines/ID/cordon
	KindEvent     Kind = "events"       // events/TIME-RANDOM
	KindAsk       Kind = "ask"          // ask/KIND-RANDOM
)

// Key is a key of the registry taken apart.
type Key struct {
	Kind    Kind
	Unit    string // object, target-state, schedule, unplaced, states, history, destroyed
	Machine string // schedule, states, machine, metadata, cordon
	Meta    string // metadata: the name of the value
	Group   string // roll
	ID      string // events, ask: the last part; history: the number of the version
}

// Path is the key below the registry's prefix.
func (k Key) Path() string {
	switch k.Kind {
	case KindObject, KindDesired, KindRestart:
		return "job/" + k.Unit + "/" + string(k.Kind)
	case KindPlacement:
		return "schedule/" + k.Machine + "/" + k.Unit
	case KindUnplaced:
		return "unplaced/" + k.Unit
	case KindState:
		return "states/" + k.Machine + "/" + k.Unit
	case KindMachine:
		return "machines/" + k.Machine + "/object"
	case KindMetadata:
		return "machines/" + k.Machine + "/metadata/" + k.Meta
	case KindLeader:
		return "lease/engine-leader"
	case KindHold:
		return "engine/hold"
	case KindMark:
		return "mark"
	case KindHistory:
		return "history/" + k.Unit + "/" + k.ID
	case KindDestroyed:
		return "destroyed/" + k.Unit
	case KindRoll:
		return "roll/" + k.Group
	case KindCordon:
		return "machines/" + k.Machine + "/cordon"
	case KindEvent:
		return eventsPrefix + k.ID
	case KindAsk:
		return asksPrefix + k.ID
	}
	panic(fmt.Sprintf("registry: kind %q has no path", k.Kind))
}

// ParsePath is the reverse of Path. It reports false for a path that is none of
// the registry's: other programs and older releases leave keys there.
func ParsePath(path string) (Key, bool) {
	parts := strings.Split(path, "/")
	for _, p := range parts {
		if p == "" {
			return Key{}, false
		}
	}
	switch {
	case len(parts) == 3 && parts[0] == "job" && isJobKind(Kind(parts[2])):
		return Key{Kind: Kind(parts[2]), Unit: parts[1]}, true
	case len(parts) == 3 && parts[0] == "schedule":
		return Key{Kind: KindPlacement, Machine: parts[1], Unit: parts[2]}, true
	case len(parts) == 3 && parts[0] == "states" && strings.Contains(parts[2], "."): // fleet 1.0 had the unit first
		return Key{Kind: KindState, Machine: parts[1], Unit: parts[2]}, true
	case len(parts) == 3 && parts[0] == "machines" && parts[2] == "object":
		return Key{Kind: KindMachine, Machine: parts[1]}, true
	case len(parts) == 4 && parts[0] == "machines" && parts[2] == "metadata":
		return Key{Kind: KindMetadata, Machine: parts[1], Meta: parts[3]}, true
	case len(parts) == 3 && parts[0] == "machines" && parts[2] == "cordon":
		return Key{Kind: KindCordon, Machine: parts[1]}, true
	case len(parts) == 3 && parts[0] == "history":
		return Key{Kind: KindHistory, Unit: parts[1], ID: parts[2]}, true
	case len(parts) == 2:
		return parsePair(parts[0], parts[1])
	case path == "mark":
		return Key{Kind: KindMark}, true
	}
	return Key{}, false
}

// parsePair is ParsePath for a path of two parts.
func parsePair(first, second string) (Key, bool) {
	switch {
	case first == "unplaced":
		return Key{Kind: KindUnplaced, Unit: second}, true
	case first == "destroyed":
		return Key{Kind: KindDestroyed, Unit: second}, true
	case first == "roll":
		return Key{Kind: KindRoll, Group: second}, true
	case first+"/" == eventsPrefix:
		return Key{Kind: KindEvent, ID: second}, true
	case first+"/" == asksPrefix:
		return Key{Kind: KindAsk, ID: second}, true
	case first == "lease" && second == "engine-leader":
		return Key{Kind: KindLeader}, true
	case first == "engine" && second == "hold":
		return Key{Kind: KindHold}, true
	}
	return Key{}, false
}

// isJobKind reports whether it is one of the kinds below job/UNIT/.
func isJobKind(k Kind) bool { return k == KindObject || k == KindDesired || k == KindRestart }
