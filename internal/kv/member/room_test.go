package member

import (
	"testing"
	"time"
)

// What is free is looked at again before it can be gone: seldom where there is plenty,
// often where there is little.
func TestLookAgain(t *testing.T) {
	for free, want := range map[uint64]time.Duration{
		0:                    roomInterval,
		lowRoom:              roomInterval,
		lowRoom + 64<<20:     roomInterval,
		lowRoom + fastDisk/2: 500 * time.Millisecond,
		lowRoom + 2*fastDisk: 2 * time.Second,
		1 << 50:              roomSeldom,
	} {
		if got := lookAgain(free); got != want {
			t.Errorf("%s free: look again after %v, want %v", mib(free), got, want)
		}
	}
}
