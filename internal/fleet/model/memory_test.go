package model

import "testing"

// What units ask for can be added up, whatever they ask for.
func TestMemoryOfManyUnitsDoesNotOverflow(t *testing.T) {
	var sum int64
	for range 4000 {
		u := NewUnit("a.service", "[Service]\nExecStart=/bin/a\n[X-Fleet]\nMemory=8388607T\n", Launched, 1)
		if u.Req.Memory <= 0 || sum+u.Req.Memory < sum {
			t.Fatalf("%d beside %d", u.Req.Memory, sum)
		}
		sum += u.Req.Memory
	}
}
