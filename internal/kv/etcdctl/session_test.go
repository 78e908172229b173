package etcdctl

import (
	"slices"
	"testing"
)

func TestUsable(t *testing.T) {
	plain, secure := "http://127.0.0.1:2379", "https://10.0.0.1:2379"
	for _, c := range []struct {
		name         string
		s            session
		known, given []string
		want         []string
	}{
		{"plain loopback beside certificates", session{}, []string{secure}, []string{plain}, nil},
		{"plain addresses in the list", session{}, []string{secure, plain}, []string{plain}, []string{plain}},
		{"with an authority", session{caFile: "ca.pem"}, []string{secure}, []string{plain}, []string{secure}},
		{"came in over https", session{}, []string{secure}, []string{secure}, []string{secure}},
	} {
		if got := c.s.usable(c.known, c.given); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
