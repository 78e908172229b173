package fleetd

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		present := map[string]bool{"a": true}
		reads := 0
		tr := &trust{read: func(context.Context) (map[string]bool, error) {
			reads++
			now := map[string]bool{}
			for k := range present {
				now[k] = true
			}
			return now, nil
		}}
		ask := func(key string, want bool) {
			t.Helper()
			if err := tr.accept(t.Context(), key); (err == nil) != want {
				t.Errorf("%s: %v", key, err)
			}
		}
		ask("a", true)
		for range 1000 {
			ask("stranger", false)
		}
		if reads != 1 {
			t.Errorf("a stranger cost %d reads", reads)
		}
		// A machine that has just joined is known a moment later.
		present["b"] = true
		time.Sleep(unknownFor)
		ask("b", true)
		// One that has left is not, soon.
		delete(present, "a")
		time.Sleep(knownFor)
		ask("a", false)
	})
}
