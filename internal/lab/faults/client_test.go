package faults

import (
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	swap := Request{Verb: CompareAndSwap, Key: "/a", Value: "2", PrevValue: "1"}
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   Answer
		odd    bool
	}{
		{"done", 200, `{"action":"compareAndSwap","node":{"key":"/a","value":"2","modifiedIndex":7,"createdIndex":5},"prevNode":{"key":"/a","value":"1","modifiedIndex":5,"createdIndex":5}}`,
			Answer{Index: 9, Node: ver("2", 7, 5), Prev: ver("1", 5, 5)}, false},
		{"refused", 412, `{"errorCode":101,"message":"Compare failed","cause":"[1 != 3]","index":8}`, Answer{Code: 101, Index: 8}, false},
		{"no quorum", 500, `{"errorCode":300}`, Answer{Unknown: true, Why: `500 {"errorCode":300}`}, false},
		{"an error that a file has not", 400, `{"errorCode":209}`, Answer{Unknown: true, Why: `{"errorCode":209}`}, true},
		{"no JSON", 404, "404 page not found", Answer{Unknown: true, Why: "404 page not found"}, true},
		{"about another file", 200, `{"action":"compareAndSwap","node":{"key":"/b"}}`, Answer{Unknown: true, Why: `{"action":"compareAndSwap","node":{"key":"/b"}}`}, true},
		{"half an answer", 200, `{"action":`, Answer{Unknown: true, Why: `{"action":`}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := read(c.status, http.Header{"X-Etcd-Index": {"9"}}, []byte(c.body), swap)
			if diff := cmp.Diff(c.want, got); diff != "" || (err != nil) != c.odd {
				t.Errorf("error %v\n%s", err, diff)
			}
		})
	}
}

// What goes over the wire.
func TestHTTPRequest(t *testing.T) {
	for _, c := range []struct {
		r    Request
		want string
	}{
		{Request{Verb: Get, Key: "/a"}, "GET http://m/v2/keys/a?quorum=true"},
		{Request{Verb: Set, Key: "/a", Value: "1"}, "PUT http://m/v2/keys/a value=1"},
		{Request{Verb: Create, Key: "/a", Value: "1"}, "PUT http://m/v2/keys/a?prevExist=false value=1"},
		{Request{Verb: CompareAndSwap, Key: "/a", Value: "1", PrevIndex: 5}, "PUT http://m/v2/keys/a?prevIndex=5 value=1"},
		{Request{Verb: Delete, Key: "/a"}, "DELETE http://m/v2/keys/a"},
		{Request{Verb: CompareAndDelete, Key: "/a", PrevValue: "0 1"}, "DELETE http://m/v2/keys/a?prevValue=0+1"},
	} {
		req, err := httpRequest(t.Context(), "http://m", c.r)
		if err != nil {
			t.Fatal(err)
		}
		got := req.Method + " " + req.URL.String()
		if b, _ := io.ReadAll(req.Body); len(b) > 0 {
			got += " " + string(b)
		}
		if got != c.want {
			t.Errorf("%+v: %s, want %s", c.r, got, c.want)
		}
	}
}
