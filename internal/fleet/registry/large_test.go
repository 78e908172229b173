package registry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// What is too large for one message to the store is written in several, whether it
// is the store or the client that says so.
func TestApplyMoreThanOneMessageHolds(t *testing.T) {
	r, ctx := open(t), t.Context()
	var ws []UnitWrite
	for i := range 30 {
		s := "[Service]\nExecStart=/bin/web\n" + strings.Repeat("Environment=x="+strings.Repeat("x", 1000)+"\n", 50)
		ws = append(ws, UnitWrite{
			Name: fmt.Sprintf("web@%d.service", i), Text: Text{Canonical: s, Hash: unitfile.HashText(s)}, Want: model.Loaded,
		})
	}
	if err := r.Apply(ctx, ws, "ann", "large"); err != nil {
		t.Fatal(err)
	}
	if v, err := r.Read(ctx, Everything); err != nil || len(v.Units()) != len(ws) {
		t.Errorf("%d units, %v", len(v.Units()), err)
	}
}

// The record of a roll that nobody can read does not keep the next roll from being
// written down.
func TestABadRollRecordIsWrittenAnew(t *testing.T) {
	r, ctx := open(t), t.Context()
	if _, err := r.client.Put(ctx, r.key(Key{Kind: KindRoll, Group: "web@.service"}), `{"state":"from a later version"}`); err != nil {
		t.Fatal(err)
	}
	v, err := r.Read(ctx, Everything)
	if err != nil {
		t.Fatal(err)
	}
	was, ok := v.Roll("web@.service")
	if !ok || was.State != "" {
		t.Errorf("the view holds %+v, %v", was, ok)
	}
	if _, _, err := r.WriteRolls(ctx, lead(t, r), []model.Roll{{Group: "web@.service", State: model.Rolling, Rev: was.Rev}}, nil); err != nil {
		t.Error(err)
	}
}

// The record of a roll stays small: it holds no hash for each instance.
func TestSizeOfARoll(t *testing.T) {
	old, next := textOf("one"), textOf("two")
	roll := model.Roll{
		Group: "web@.service", State: model.Rolling, From: map[string]string{}, To: map[string]string{},
		Texts: map[string]string{old.Hash: old.Canonical}, Since: map[string]time.Time{},
	}
	for i := range 10_000 {
		unit := fmt.Sprintf("web@%d.service", i)
		roll.From[unit], roll.To[unit] = old.Hash, next.Hash
	}
	if n := RollSize(roll); n > 80_000 {
		t.Errorf("10,000 instances take %d bytes", n)
	}
	r, ctx := open(t), t.Context()
	huge := model.Roll{Group: "a.service", State: model.Rolling, Texts: map[string]string{"h": strings.Repeat("x", MaxRoll)}}
	_, unwritten, err := r.WriteRolls(ctx, lead(t, r), []model.Roll{huge, roll}, nil)
	if err != nil || len(unwritten) != 1 || !strings.Contains(unwritten["a.service"].Error(), "too large") {
		t.Errorf("unwritten %v, error %v", unwritten, err)
	}
	if rolls, err := r.ReadRolls(ctx); err != nil || len(rolls) != 1 || len(rolls[0].To) != 10_000 || rolls[0].From["web@17.service"] != old.Hash {
		t.Errorf("%d rolls, %v", len(rolls), err)
	}
}

// A key in a unit's history that is no version does not keep the unit from changing.
func TestAStrangeKeyInTheHistory(t *testing.T) {
	r, ctx := open(t), t.Context()
	if err := r.Create(ctx, "a.service", textOf("one"), model.Loaded, "ann", "create"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Put(ctx, r.prefix+historyPrefix+"a.service/zzz", "x"); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"two", "three"} {
		if err := r.Replace(ctx, "a.service", textOf(text), model.Loaded, "ben", "replace"); err != nil {
			t.Fatal(err)
		}
	}
	if got := history(t, r, "a.service"); got != "3 three by ben: replace\n2 two by ben: replace\n1 one by ann: create" {
		t.Errorf("got\n%s", got)
	}
}
