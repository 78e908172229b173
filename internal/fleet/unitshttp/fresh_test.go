package unitshttp

import (
	"fmt"
	"strings"
	"testing"

	"flotilla/internal/kv/member/membertest"
)

// What was written before a question is in the answer: through another daemon, or
// behind the backs of all.
func TestAskedAtOnce(t *testing.T) {
	url := membertest.Start(t)
	a, other := newAPI(t, url, "/fresh/"), newAPI(t, url, "/fresh/")
	ask := func(method, path, body, want string) {
		t.Helper()
		if got := a.answer(method, path, []byte(body)); !strings.Contains(got.Name+" "+string(got.Data), want) {
			t.Errorf("%s %s: %s %.300s, want %q in it", method, path, got.Name, got.Data, want)
		}
	}
	for i := range 10 {
		unit := fmt.Sprintf("/fleet/v1/units/a%d.service", i)
		body := `{"desiredState":"loaded","options":[{"section":"Service","name":"ExecStart","value":"/bin/true"}]}`
		ask("GET", unit+"/why", "", "404 ")
		if got := other.answer("PUT", unit, []byte(body)); !strings.HasPrefix(got.Name, "201") {
			t.Fatal(got.Name, string(got.Data))
		}
		ask("GET", unit+"/why", "", `"desiredState":"loaded"`)
		for m := range 3 {
			id := fmt.Sprintf("%016x%016x", i, m)
			if _, err := a.raw.Put(t.Context(), a.prefix+"machines/"+id+"/object", `{"ID":"`+id+`"}`); err != nil {
				t.Fatal(err)
			}
			ask("GET", unit+"/why", "", `"machine":"`+id+`"`)
		}
		ask("PUT", unit, `{"desiredState":"launched"}`, "204 ")
		ask("GET", unit+"/why", "", `"desiredState":"launched"`)
	}
}
