package whereabouts

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// view is a cluster of the members a, b and c (ids 1 to 3), on record at http://a1,
// http://b1 and http://c1, as a sees it.
func view(change func(*View)) View {
	v := View{Self: 1, Own: []string{"http://a1"}, Met: map[ID]Meeting{}}
	for i, name := range []string{"a", "b", "c"} {
		v.Recorded = append(v.Recorded, Member{ID: ID(i + 1), PeerURLs: []string{"http://" + name + "1"}})
	}
	change(&v)
	return v
}

func (v *View) meet(id ID, says, at string, leader bool) {
	v.Met[id] = Meeting{Card: Card{ID: id, Name: string(rune('a' + id - 1)), PeerURLs: []string{says}, Leader: leader}, At: []string{at}}
}

func TestDecide(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*View)
		want   string // "op member urls: why", a line each
	}{
		{"all is well", func(v *View) { v.Leader = true }, ""},
		{"nobody is there", func(*View) {}, ""},
		{"it has moved, and there is a leader", func(v *View) {
			v.Leader, v.Own = true, []string{"http://a2"}
		}, "announce 1 http://a2: on record at http://a1, reachable at http://a2"},
		{"others are where they were: etcd itself does the rest", func(v *View) {
			v.meet(2, "http://b1", "http://b1", false)
			v.meet(3, "http://c1", "http://c1", false)
		}, ""},
		{"one other has moved, and the two are a majority", func(v *View) {
			v.meet(2, "http://b2", "http://b2", false)
		}, "rehome 2 http://b2: b is on record at http://b1 and was met at http://b2"},
		{"all have moved", func(v *View) {
			v.Own = []string{"http://a2"}
			v.meet(2, "http://b2", "http://b2", false)
			v.meet(3, "http://c2", "http://c2", false)
		}, "rehome 1 http://a2: this member's own address is another now\n" +
			"rehome 2 http://b2: b is on record at http://b1 and was met at http://b2\n" +
			"rehome 3 http://c2: c is on record at http://c1 and was met at http://c2"},
		{"one of five is no majority", func(v *View) {
			v.Recorded = append(v.Recorded, Member{ID: 4}, Member{ID: 5})
			v.meet(2, "http://b2", "http://b2", false)
		}, ""},
		{"one of five that has a leader will do", func(v *View) {
			v.Recorded = append(v.Recorded, Member{ID: 4}, Member{ID: 5})
			v.meet(2, "http://b2", "http://b2", true)
		}, "rehome 2 http://b2: b is on record at http://b1 and was met at http://b2"},
		{"those without a vote are no majority", func(v *View) {
			v.Recorded = append(v.Recorded, Member{ID: 4, Learner: true})
			v.meet(4, "http://d2", "http://d2", false)
		}, ""},
		{"who says it is elsewhere is believed where it was found", func(v *View) {
			v.meet(2, "http://wrong", "http://b2", false)
		}, "rehome 2 http://b2: b is on record at http://b1 and was met at http://b2"},
		{"who is no member counts for nothing", func(v *View) {
			v.meet(9, "http://x", "http://x", true)
		}, ""},
		{"it hears a leader, and is not heard itself: its engine writes to where they were", func(v *View) {
			v.Leader, v.Unheard, v.Own = true, true, []string{"http://a2"}
			v.meet(2, "http://b2", "http://b2", true)
		}, "rehome 1 http://a2: this member's own address is another now\n" +
			"rehome 2 http://b2: b is on record at http://b1 and was met at http://b2"},
		{"it is not heard, and the others are where they were: it goes on trying", func(v *View) {
			v.Leader, v.Unheard, v.Own = true, true, []string{"http://a2"}
			v.meet(2, "http://b1", "http://b1", true)
		}, "announce 1 http://a2: on record at http://a1, reachable at http://a2"},
		{"it is heard: whoever has moved announces itself", func(v *View) {
			v.Leader = true
			v.meet(2, "http://b2", "http://b2", true)
		}, ""},
		{"a rehomed address is made official", func(v *View) {
			v.Leader, v.Unofficial = true, true
		}, "announce 1 http://a1: so far only those it has met know it at http://a1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var lines []string
			for _, s := range Decide(view(test.change)) {
				lines = append(lines, fmt.Sprintf("%s %s %s: %s", s.Op, s.Member, strings.Join(s.PeerURLs, ","), s.Why))
			}
			if got := strings.Join(lines, "\n"); got != test.want {
				t.Errorf("steps:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}
}

// When the steps are done there are no more.
func TestDecideConverges(t *testing.T) {
	v := view(func(v *View) {
		v.Own = []string{"http://a2"}
		v.meet(2, "http://b2", "http://b2", false)
	})
	for _, s := range Decide(v) {
		v.Recorded[s.Member-1].PeerURLs = s.PeerURLs
	}
	if again := Decide(v); len(again) > 0 {
		t.Errorf("after all steps: %v", again)
	}
}

func FuzzCard(f *testing.F) {
	f.Add(`{"cluster":"1f","id":"a","peerURLs":["http://h:1"],"leader":true,"met":{"b":["http://h:2"]},"givenUp":["c"]}`)
	f.Add(`{"id":"xyz"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var c Card
		if json.Unmarshal([]byte(text), &c) != nil {
			return
		}
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var again Card
		if err := json.Unmarshal(raw, &again); err != nil || again.ID != c.ID {
			t.Errorf("%s reads back as %+v, %v", raw, again, err)
		}
	})
}
