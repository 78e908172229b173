package faults

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The histories below read as: who began and ended when, asked what, and was told
// what. Times are in ms.

func call(begin, end int, r Request, a Answer) Call {
	r.Key = "/k"
	return Call{Begin: time.Duration(begin) * time.Millisecond, End: time.Duration(end) * time.Millisecond, Request: r, Answer: a}
}

func ver(value string, modified, created uint64) *Version { return &Version{value, modified, created} }

func wrote(node, prev *Version) Answer { return Answer{Index: node.Modified, Node: node, Prev: prev} }

func refused(code int, index uint64) Answer { return Answer{Code: code, Index: index} }

var (
	read1    = Request{Verb: Get}
	setA     = Request{Verb: Set, Value: "a"}
	setB     = Request{Verb: Set, Value: "b"}
	delete1  = Request{Verb: Delete}
	unknown  = Answer{Unknown: true}
	aAt5     = ver("a", 5, 5)
	bAt6     = ver("b", 6, 6)
	swapAtoB = Request{Verb: CompareAndSwap, Value: "b", PrevValue: "a"}
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name  string
		calls []Call
		sound bool
	}{
		{"write, then read", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, read1, Answer{Index: 5, Node: aAt5}),
		}, true},
		{"a read that began before the write ended may see either", []Call{
			call(0, 9, setA, wrote(aAt5, nil)),
			call(1, 2, read1, Answer{Index: 5, Node: aAt5}),
			call(0, 1, read1, refused(100, 4)),
		}, true},
		{"a stale read", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, setB, wrote(bAt6, aAt5)),
			call(4, 5, read1, Answer{Index: 5, Node: aAt5}),
		}, false},
		{"a read that goes back", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 9, setB, wrote(bAt6, aAt5)),
			call(3, 4, read1, Answer{Index: 6, Node: bAt6}),
			call(5, 6, read1, Answer{Index: 5, Node: aAt5}),
		}, false},
		{"an acknowledged write that is lost", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, read1, refused(100, 5)),
		}, false},
		{"a write without an answer happens later", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, setB, unknown),
			call(4, 5, read1, Answer{Index: 5, Node: aAt5}),
			call(6, 7, read1, Answer{Index: 6, Node: bAt6}),
		}, true},
		{"a write without an answer happens once", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, setB, unknown),
			call(4, 5, read1, Answer{Index: 6, Node: bAt6}),
			call(6, 7, setA, wrote(ver("a", 7, 7), bAt6)),
			call(8, 9, read1, Answer{Index: 8, Node: ver("b", 8, 8)}),
		}, false},
		{"a write without an answer does not happen before it was asked for", []Call{
			call(0, 1, read1, Answer{Index: 6, Node: bAt6}),
			call(2, 3, setB, unknown),
		}, false},
		{"a delete without an answer", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, delete1, unknown),
			call(4, 5, read1, refused(100, 6)),
		}, true},
		{"two swaps of one value", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 9, swapAtoB, wrote(ver("b", 6, 5), aAt5)),
			call(2, 9, Request{Verb: CompareAndSwap, Value: "c", PrevValue: "a"}, wrote(ver("c", 7, 5), aAt5)),
		}, false},
		{"a swap that is refused although it matches", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, swapAtoB, refused(101, 5)),
		}, false},
		{"a swap of what another has changed", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, setB, wrote(bAt6, aAt5)),
			call(4, 5, swapAtoB, refused(101, 6)),
		}, true},
		{"a swap by index keeps createdIndex", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, Request{Verb: CompareAndSwap, Value: "b", PrevIndex: 5}, wrote(ver("b", 6, 5), aAt5)),
			call(4, 5, read1, Answer{Index: 6, Node: ver("b", 6, 5)}),
		}, true},
		{"a swap that renews createdIndex", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, swapAtoB, wrote(bAt6, aAt5)),
		}, false},
		{"a set that keeps createdIndex", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, setB, wrote(ver("b", 6, 5), aAt5)),
		}, false},
		{"an index that goes back", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, setB, wrote(ver("b", 4, 4), aAt5)),
		}, false},
		{"an index that goes back over a delete", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, delete1, wrote(ver("", 8, 5), aAt5)),
			call(4, 5, setB, wrote(bAt6, nil)),
		}, false},
		{"an error older than what it is about", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, Request{Verb: Create, Value: "b"}, refused(105, 4)),
		}, false},
		{"create of what is there", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, Request{Verb: Create, Value: "b"}, refused(105, 5)),
		}, true},
		{"the file before is another", []Call{
			call(0, 1, setA, wrote(aAt5, nil)),
			call(2, 3, setB, wrote(bAt6, ver("z", 5, 5))),
		}, false},
		{"a write without an answer shows in a refusal", []Call{
			call(0, 1, read1, refused(100, 4)),
			call(2, 3, setA, unknown),
			call(4, 5, swapAtoB, refused(100, 4)),
			call(6, 7, Request{Verb: CompareAndSwap, Value: "c", PrevValue: "z"}, refused(101, 5)),
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := Judge(c.calls, nil, time.Second, nil)
			if got := len(v.Wrong) == 0; got != c.sound || len(v.Undecided) > 0 {
				t.Errorf("judged %s, want sound: %v", v, c.sound)
			}
		})
	}
}

// A hundred writes that no watcher was told of do not make the search longer.
func TestJudgeManyUnknown(t *testing.T) {
	var calls []Call
	prev := (*Version)(nil)
	told := map[string]bool{}
	for i := range 100 {
		now := ver(fmt.Sprintf("w%d", i), uint64(10+i), uint64(10+i))
		calls = append(calls,
			call(10*i, 10*i+5, Request{Verb: Set, Value: fmt.Sprintf("lost%d", i)}, unknown),
			call(10*i+1, 10*i+6, Request{Verb: Set, Value: now.Value}, wrote(now, prev)))
		prev = now
		told[now.Value] = true
	}
	if v := Judge(calls, told, 5*time.Second, nil); len(v.Wrong)+len(v.Undecided) > 0 {
		t.Errorf("judged %s", v)
	}
}

func TestHistoryFile(t *testing.T) {
	calls := []Call{call(0, 1, setA, wrote(aAt5, nil)), call(2, 3, read1, refused(100, 4)), call(4, 5, setB, unknown)}
	watched := []Watched{{"a", told()}, {"b", told()[:2]}}
	var b bytes.Buffer
	if err := WriteHistory(&b, calls, watched); err != nil {
		t.Fatal(err)
	}
	gotCalls, gotWatched, err := ReadHistory(&b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(calls, gotCalls) + cmp.Diff(watched, gotWatched); diff != "" {
		t.Error(diff)
	}
	if _, _, err := ReadHistory(strings.NewReader("{}\n{")); err == nil {
		t.Error("half a line is no error")
	}
}

// FuzzReadHistory: whatever was read is read again from what it is written as.
func FuzzReadHistory(f *testing.F) {
	f.Add([]byte(`{"call":{"verb":"set","key":"/a","answer":{"unknown":true}}}` + "\n" + `{"watcher":"w","event":{"index":1}}`))
	f.Add([]byte(`{"call":null}{"event":{}}{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		calls, watched, err := ReadHistory(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := WriteHistory(&again, calls, watched); err != nil {
			t.Fatal(err)
		}
		calls2, watched2, err := ReadHistory(&again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(calls, calls2) + cmp.Diff(watched, watched2); diff != "" {
			t.Error(diff)
		}
	})
}
