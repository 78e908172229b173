package etcdcmd

import "testing"

func TestRoomPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 200, 6 << 20: 200, 24 << 20: 200, 48 << 20: 200, 64 << 20: 150, 96 << 20: 100, 8 << 30: 100,
	} {
		if got := roomPercent(live); got != want {
			t.Errorf("%d MB live: %d %%, want %d", live>>20, got, want)
		}
	}
}
