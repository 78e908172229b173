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

// A store that has gone away is told, whatever was known of it a moment ago.
func TestAskedWhileTheStoreIsAway(t *testing.T) {
	var a *api
	expect := func(want string) {
		t.Helper()
		got := a.answer("GET", "/fleet/v1/units/a.service/why", nil)
		if !strings.Contains(got.Name+" "+string(got.Data), want) {
			t.Errorf("%s %s, want %q in it", got.Name, got.Data, want)
		}
	}
	t.Run("while it is there", func(there *testing.T) {
		a = newAPI(t, membertest.Start(there), "/away/")
		if _, err := a.raw.Put(t.Context(), "/away/job/a.service/object", `{"Raw":"[Service]\nExecStart=/bin/true\n"}`); err != nil {
			t.Fatal(err)
		}
		expect(`200 application/json {"desiredState":"inactive"`)
	})
	for range 2 {
		expect(`"message":"fleet server unable to communicate with etcd: read the registry: `)
	}
}
