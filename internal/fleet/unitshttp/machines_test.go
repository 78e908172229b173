package unitshttp

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/api/fleet"
	"flotilla/internal/kv/member/membertest"
)

func TestMetadataHasBounds(t *testing.T) {
	a := newAPI(t, membertest.Start(t), "/bounds/")
	machine := strings.Repeat("1", 32)
	patch := func(from, to int, op string) string {
		var ops []fleet.MetadataOp
		for i := from; i < to; i++ {
			ops = append(ops, fleet.MetadataOp{Op: op, Path: fmt.Sprintf("/%s/metadata/k%d", machine, i),
				Value: &fleet.MetadataValue{Value: "v"}})
		}
		body, err := json.Marshal(ops)
		if err != nil {
			t.Fatal(err)
		}
		answer := a.answer("PATCH", "/fleet/v1/machines", body)
		return answer.Name + ": " + string(answer.Data)
	}
	for _, c := range []struct {
		from, to int
		op, want string
	}{
		{0, maxPatches + 1, "add", "413 application/json: 1001 operations in one request: at most 1000"},
		{0, maxMetadata, "add", "204"},
		{maxMetadata, maxMetadata + 1, "add", "400 application/json: machine " + machine + " would have 129 values"},
		{0, maxMetadata, "replace", "204"},
		{0, maxMetadata, "remove", "204"},
		{maxMetadata, 2 * maxMetadata, "add", "204"}, // what was removed does not count
		{2 * maxMetadata, 2*maxMetadata + 1, "remove", "400 application/json: machine " + machine + " is away, and 257 keys of its metadata would be kept"},
		{maxMetadata, maxMetadata + 1, "remove", "204"}, // nothing more is kept
		{0, maxMetadata, "add", "400 application/json: machine " + machine + " would have 255 values"},
	} {
		got := patch(c.from, c.to, c.op)
		for _, part := range strings.SplitN(c.want, ": ", 2) {
			if !strings.Contains(got, part) {
				t.Errorf("%s of k%d to k%d: got %s, want %s", c.op, c.from, c.to-1, got, c.want)
			}
		}
	}
}

// What was removed of a machine leaves nothing behind but where it hides a configured
// value: also not what was removed while the machine was away.
func TestRemovedMetadataGoes(t *testing.T) {
	a := newAPI(t, membertest.Start(t), "/removed/")
	machine := strings.Repeat("2", 32)
	patch := func(op, key string) {
		t.Helper()
		body := fmt.Sprintf(`[{"op":%q,"path":"/%s/metadata/%s","value":"v"}]`, op, machine, key)
		if answer := a.answer("PATCH", "/fleet/v1/machines", []byte(body)); !strings.HasPrefix(answer.Name, "204") {
			t.Fatalf("%s %s: %s %s", op, key, answer.Name, answer.Data)
		}
	}
	left := func(when, want string) {
		t.Helper()
		dir := "/removed/machines/" + machine + "/metadata/"
		resp, err := a.raw.Get(t.Context(), dir, clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, kv := range resp.Kvs {
			got = append(got, strings.TrimPrefix(string(kv.Key), dir)+"="+string(kv.Value))
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%s: %q, want %q", when, text, want)
		}
	}
	patch("add", "rack")
	patch("remove", "rack")
	patch("remove", "disk")
	left("away", "disk= rack=")
	if _, err := a.raw.Put(t.Context(), "/removed/machines/"+machine+"/object", `{"ID":"`+machine+`","Metadata":{"disk":"ssd"}}`); err != nil {
		t.Fatal(err)
	}
	patch("add", "row")
	left("it is back", "disk= row=v")
	patch("remove", "row")
	patch("remove", "never")
	left("removed while it is here", "disk=")
	patch("add", "disk")
	left("set again", "disk=v")
}
