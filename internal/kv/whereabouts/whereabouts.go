// Package whereabouts decides what a member of the store does about addresses that
// have changed: its own and those of the others. It is pure; package member asks
// around and carries the steps out.
//
// Identity is not an address. A member is who its data directory says it is, and
// the others need to know where it is now. An address is believed only of a process
// that was reached there and that says itself which member of which cluster it is.
package whereabouts

import (
	"cmp"
	"encoding"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ID is the id of a member or of a cluster, in JSON lower case hex without padding.
type ID uint64

var (
	_ encoding.TextMarshaler   = ID(0)
	_ encoding.TextUnmarshaler = (*ID)(nil)
)

func (id ID) String() string { return strconv.FormatUint(uint64(id), 16) }

// MarshalText never fails.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText wants 1 to 16 hex digits.
func (id *ID) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil {
		return fmt.Errorf("id %q: want hex digits", text)
	}
	*id = ID(n)
	return nil
}

// Card is what a member tells another about itself: the wire format of the peer
// port's /flotilla/peer.
type Card struct {
	Cluster    ID       `json:"cluster"`
	ID         ID       `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"` // where it says that it can be reached
	ClientURLs []string `json:"clientURLs"`
	Leader     bool     `json:"leader"` // it sees one
	// Met is where it has reached other members or, with a leader, has them on
	// record: hints for whoever asks, and nothing more.
	Met map[ID][]string `json:"met,omitempty"`
	// GivenUp are the members that were lost when the cluster was recovered: if one
	// comes back, it has to join anew.
	GivenUp []ID `json:"givenUp,omitempty"`
}

// Meeting is a member that was reached.
type Meeting struct {
	Card Card
	At   []string // the URLs under which it answered, at least one
}

// Address is where to reach the member from now on: where it says it is, as far as
// it was found there, else where it was found.
func (m Meeting) Address() []string {
	var both []string
	for _, u := range m.Card.PeerURLs {
		if slices.Contains(m.At, u) {
			both = append(both, u)
		}
	}
	if len(both) > 0 {
		return both
	}
	return m.At
}

// Member is a member as the engine has it on record.
type Member struct {
	ID       ID
	PeerURLs []string
	Learner  bool // it has no vote
}

// View is what a member knows when it decides.
type View struct {
	Self     ID
	Own      []string // where this member can be reached now; nil: not known
	Recorded []Member // of the whole cluster, this member included
	Leader   bool     // this member sees one
	// Unofficial: what is on record of this member comes from a Rehome; the others
	// may know nothing of it.
	Unofficial bool
	// Unheard: it sees a leader that does not take its address, for seconds. Messages
	// of others may come on connections that they made, while its own go to where
	// they were before.
	Unheard bool
	Met     map[ID]Meeting
}

// Op is a kind of step.
type Op string

// The steps.
const (
	// Announce: have the cluster record this member's own addresses. It takes a
	// leader.
	Announce Op = "announce"
	// Rehome: write the addresses of one member into the record of the stopped
	// engine and start it again. It is this member's own view alone that changes;
	// the record that all share is changed by Announce.
	Rehome Op = "rehome"
)

// Step is something to do, for one member.
type Step struct {
	Op       Op
	Member   ID
	PeerURLs []string
	Why      string
}

// Decide says what to do. All steps are of one kind, by member id. For the view that
// the steps lead to there are none.
//
// With a leader that hears it, a member announces itself. Without, it moves its
// engine to where it has found the others, but only if that helps: a restart that
// leads to no majority would only cost time.
func Decide(v View) []Step {
	if v.Leader && !v.Unheard {
		return announce(v)
	}
	steps := moved(v)
	if len(steps) == 0 || !promising(v) {
		if v.Leader {
			return announce(v)
		}
		return nil
	}
	if own, ok := v.recorded(v.Self); ok && len(v.Own) > 0 && !same(own.PeerURLs, v.Own) {
		steps = append(steps, Step{Rehome, v.Self, v.Own, "this member's own address is another now"})
	}
	slices.SortFunc(steps, func(a, b Step) int { return cmp.Compare(a.Member, b.Member) })
	return steps
}

func announce(v View) []Step {
	own, ok := v.recorded(v.Self)
	if !ok || len(v.Own) == 0 || (same(own.PeerURLs, v.Own) && !v.Unofficial) {
		return nil
	}
	if v.Unofficial {
		return []Step{{Announce, v.Self, v.Own, "so far only those it has met know it at " + list(v.Own)}}
	}
	return []Step{{Announce, v.Self, v.Own,
		fmt.Sprintf("on record at %s, reachable at %s", list(own.PeerURLs), list(v.Own))}}
}

// moved is the others that were met elsewhere than on record.
func moved(v View) []Step {
	var steps []Step
	for _, m := range v.Recorded {
		met, ok := v.Met[m.ID]
		if m.ID == v.Self || !ok || overlap(m.PeerURLs, met.At) {
			continue
		}
		steps = append(steps, Step{Rehome, m.ID, met.Address(),
			fmt.Sprintf("%s is on record at %s and was met at %s", name(met.Card), list(m.PeerURLs), list(met.At))})
	}
	return steps
}

// promising tells whether a leader is to be expected once this member knows where
// those are that it has met: one of them has one, or they are a majority.
func promising(v View) bool {
	voters, met := 0, 0
	for _, m := range v.Recorded {
		if m.Learner {
			continue
		}
		voters++
		meeting, ok := v.Met[m.ID]
		if ok && meeting.Card.Leader {
			return true
		}
		if ok || m.ID == v.Self {
			met++
		}
	}
	return met > voters/2
}

func (v View) recorded(id ID) (Member, bool) {
	i := slices.IndexFunc(v.Recorded, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return Member{}, false
	}
	return v.Recorded[i], true
}

func name(c Card) string {
	if c.Name == "" {
		return "member " + c.ID.String()
	}
	return c.Name
}

func list(urls []string) string { return strings.Join(urls, ",") }

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// same compares two sets of URLs.
func same(a, b []string) bool {
	x, y := slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(x), slices.Compact(y))
}
