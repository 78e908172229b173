package unitshttp

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

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
		{maxMetadata, maxMetadata + 1, "add", "removed among them: at most 128"},
	} {
		got := patch(c.from, c.to, c.op)
		for _, part := range strings.SplitN(c.want, ": ", 2) {
			if !strings.Contains(got, part) {
				t.Errorf("%s of k%d to k%d: got %s, want %s", c.op, c.from, c.to-1, got, c.want)
			}
		}
	}
}
