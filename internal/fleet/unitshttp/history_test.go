package unitshttp

import (
	"testing"

	"flotilla/internal/fleet/model"
)

// The version before the present one is one that was good: what a roll went back from
// is passed over, and so is the text that the unit has already.
func TestVersionBefore(t *testing.T) {
	versions := []model.Version{
		{Seq: 4, Hash: "good", Why: "reverted: web@1.service on 1234abcd: it failed"},
		{Seq: 3, Hash: "bad", Why: "apply"},
		{Seq: 2, Hash: "good", Why: "apply"},
		{Seq: 1, Hash: "first", Why: "apply"},
	}
	for _, c := range []struct {
		name     string
		versions []model.Version
		hash     string
		want     int
	}{
		{"after a roll that went back", versions, "good", 1},
		{"after one that did not", versions[1:], "bad", 2},
		{"of a unit that is gone", versions[2:], "", 2},
	} {
		v, err := versionFor(c.versions, model.Unit{Name: "web@1.service", Hash: c.hash}, 0)
		if err != nil || v.Seq != c.want {
			t.Errorf("%s: version %d (%v), want %d", c.name, v.Seq, err, c.want)
		}
	}
	if v, err := versionFor(versions, model.Unit{Hash: "good"}, 3); err != nil || v.Hash != "bad" {
		t.Errorf("by its number: %+v, %v", v, err)
	}
}
