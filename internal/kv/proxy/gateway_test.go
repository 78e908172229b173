package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

type says struct {
	status int
	body   string
}

func (s says) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: s.status, Body: io.NopCloser(strings.NewReader(s.body))}, nil
}

// A member that cannot tell does not make the gateway give up what it may answer.
func TestAuthOn(t *testing.T) {
	for _, c := range []struct {
		member     says
		on, untold bool
	}{
		{says{200, `{"enabled":true}`}, true, false},
		{says{200, `{"enabled":false}`}, false, false},
		{says{404, "404 page not found"}, false, false},
		{says{401, `{"message":"Insufficient credentials"}`}, true, false},
		{says{500, ""}, false, true},
		{says{503, `{"message":"the store is starting"}`}, false, true},
		{says{200, "{"}, false, true},
	} {
		on, err := authOn(t.Context(), c.member)
		if on != c.on || (err != nil) != c.untold {
			t.Errorf("%v: %t %v", c.member, on, err)
		}
	}
}
