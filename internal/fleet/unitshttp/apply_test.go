package unitshttp

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unitfile"
)

// A roll whose record the store would not take is refused before anything is written.
func TestRollsFit(t *testing.T) {
	text := func(i, size int) string {
		return fmt.Sprintf("[Service]\nExecStart=/bin/web %d %s\n", i, strings.Repeat("x", size))
	}
	for _, c := range []struct {
		name    string
		units   int
		size    int // of each text
		alike   bool
		state   model.State
		refused bool
	}{
		{"a thousand alike", 1000, 10_000, true, model.Launched, false},
		{"a hundred, each with a text of its own", 100, 1000, false, model.Launched, false},
		{"large ones", 100, 20_000, false, model.Launched, true},
		{"large ones that do not run", 100, 20_000, false, model.Loaded, false},
	} {
		values := map[string]string{}
		var writes []registry.UnitWrite
		for i := range c.units {
			name, own := fmt.Sprintf("web@%d.service", i), i
			if c.alike {
				own = 0
			}
			raw, err := json.Marshal(map[string]any{"Name": name, "Raw": text(own, c.size)})
			if err != nil {
				t.Fatal(err)
			}
			values["job/"+name+"/object"], values["job/"+name+"/target-state"] = string(raw), c.state.String()
			next := text(-1, 0)
			writes = append(writes, registry.UnitWrite{Name: name, Text: registry.Text{Canonical: next, Hash: unitfile.HashText(next)}})
		}
		v := registry.NewView("/f/")
		v.Load(values, 1)
		err := rollsFit(v, writes)
		if (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), "the roll of web@.service would change 100 units") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
