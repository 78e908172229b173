package faults

import (
	"strings"
	"testing"
)

// What three clients did: two writes, a swap and a delete were acknowledged, one
// write was not and happened.
func written() []Call {
	return []Call{
		{Request: Request{Verb: Set, Key: "/a", Value: "1"}, Answer: wrote(ver("1", 5, 5), nil)},
		{Request: Request{Verb: Set, Key: "/b", Value: "2"}, Answer: unknown},
		{Request: Request{Verb: CompareAndSwap, Key: "/a", Value: "3", PrevValue: "1"}, Answer: wrote(ver("3", 7, 5), ver("1", 5, 5))},
		{Request: Request{Verb: Delete, Key: "/a"}, Answer: wrote(ver("", 8, 5), ver("3", 7, 5))},
		{Request: Request{Verb: Set, Key: "/a", Value: "4"}, Answer: wrote(ver("4", 9, 9), nil)},
		{Request: Request{Verb: Get, Key: "/a"}, Answer: Answer{Index: 9, Node: ver("4", 9, 9)}},
		{Request: Request{Verb: Create, Key: "/a", Value: "5"}, Answer: refused(105, 9)},
	}
}

func told() []Event {
	return []Event{
		{5, "set", "/a", "1", 0},
		{6, "set", "/b", "2", 0},
		{7, "compareAndSwap", "/a", "3", 5},
		{8, "delete", "/a", "", 7},
		{9, "set", "/a", "4", 0},
	}
}

func TestCheckWatch(t *testing.T) {
	for _, c := range []struct {
		name   string
		events func([]Event) []Event
		want   string // part of a complaint; "" for none
	}{
		{"all, in order", func(e []Event) []Event { return e }, ""},
		{"not as far yet", func(e []Event) []Event { return e[:3] }, ""},
		{"a gap", func(e []Event) []Event { return append(e[:2], e[3:]...) }, "[7] compareAndSwap /a was acknowledged and seen 0 times"},
		{"a gap shows in what comes after it", func(e []Event) []Event { return append(e[:2], e[3:]...) }, "[8] delete /a took the place of [7], but [5] was seen before: a gap"},
		{"a repeat", func(e []Event) []Event { return append(e[:2], e[1:]...) }, "[6] set /b came twice"},
		{"an older one again", func(e []Event) []Event { return append(e, e[0]) }, "[5] set /a came after [9]"},
		{"out of order", func(e []Event) []Event { e[0], e[1] = e[1], e[0]; return e }, "[5] set /a came after [6]"},
		{"another value", func(e []Event) []Event { e[4].Value = "x"; return e }, "[9] was acknowledged as set /a 4 and seen as set /a x"},
		{"another action", func(e []Event) []Event { e[4].Action = "create"; return e }, "[9] was acknowledged as set /a 4 and seen as create /a 4"},
		{"asked for by nobody", func(e []Event) []Event { e[1].Value = "x"; return e }, "[6] set /b x was asked for by nobody"},
		{"carried out twice", func(e []Event) []Event { return append(e, Event{10, "set", "/b", "2", 6}) }, "[10] set /b 2 was asked for by nobody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(CheckWatch(Watched{"w", c.events(told())}, written()), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("complaints:\n%s\nwant: %s", got, c.want)
			}
		})
	}
}

func TestCompareWatches(t *testing.T) {
	all := []Watched{{"a", told()}, {"b", told()[:2]}}
	if got := CompareWatches(all); got != nil {
		t.Errorf("one that has not come as far differs: %v", got)
	}
	all[1].Events = told()
	all[1].Events[1].Key = "/c"
	if got := CompareWatches(all); len(got) != 1 || !strings.Contains(got[0], "a and b differ: change 1 ") {
		t.Errorf("got %v", got)
	}
}

// One that is wrong throughout is not told a thousand times.
func TestComplaintsEnd(t *testing.T) {
	var events []Event
	for range 1000 {
		events = append(events, Event{5, "set", "/a", "1", 0})
	}
	if got := CheckWatch(Watched{"w", events}, written()); len(got) != maxComplaints {
		t.Errorf("%d complaints", len(got))
	}
}
