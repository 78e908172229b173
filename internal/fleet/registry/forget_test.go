package registry

import (
	"errors"
	"slices"
	"testing"

	"flotilla/internal/fleet/model"
)

// A machine that is away is forgotten with all that it had; one that is present is not,
// nor is another whose id begins like it.
func TestForgetMachine(t *testing.T) {
	r, ctx := open(t), t.Context()
	for _, key := range []string{"machines/m1/object", "machines/m2/cordon", "machines/m2/metadata/a", "schedule/m2/a.service", "schedule/m2/b.service", "schedule/m22/c.service"} {
		if _, err := r.client.Put(ctx, r.prefix+key, "{}"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.ForgetMachine(ctx, "m1", "anna"); !errors.Is(err, ErrPresent) {
		t.Errorf("a machine that is present: %v", err)
	}
	units, err := r.ForgetMachine(ctx, "m2", "anna")
	if err != nil || !slices.Equal(units, []string{"a.service", "b.service"}) {
		t.Errorf("got %v, %v", units, err)
	}
	v, err := r.Read(ctx, Everything)
	if err != nil {
		t.Fatal(err)
	}
	if asks := v.Asks(); len(asks) != 1 || asks[0].Kind != model.Forget || asks[0].Machine != "m2" || asks[0].By != "anna" {
		t.Errorf("asked is %+v", asks)
	}
	if p := v.Placements(); len(p) != 1 || p[0].Machine != "m22" || v.Cordon("m2") != nil || len(v.DynamicMetadata("m2")) != 0 {
		t.Errorf("left are %+v", p)
	}
}
