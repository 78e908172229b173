package lifecycle

import "testing"

func TestProgramText(t *testing.T) {
	const exe = "/usr/bin/flotilla"
	for _, c := range []struct {
		line     string
		from, to uintptr
		ok       bool
	}{
		{"00400000-0150b000 r-xp 00000000 fe:00 42                  /usr/bin/flotilla\n", 0x400000, 0x150b000, true},
		{"0150b000-02a10000 r--p 0110b000 fe:00 42                  /usr/bin/flotilla\n", 0x150b000, 0x2a10000, true},
		{"02a10000-02ab0000 rw-p 02610000 fe:00 42                  /usr/bin/flotilla\n", 0, 0, false}, // holds what we wrote
		{"c000000000-c000400000 rw-p 00000000 00:00 0 \n", 0, 0, false},
		{"7f0000000000-7f0000001000 r-xp 00000000 fe:00 7           /usr/lib/libc.so.6\n", 0, 0, false},
		{"02000000-01000000 r-xp 00000000 fe:00 42                  /usr/bin/flotilla\n", 0, 0, false},
		{"nonsense", 0, 0, false},
		{"", 0, 0, false},
	} {
		from, to, ok := programText(c.line, exe)
		if ok != c.ok || ok && (from != c.from || to != c.to) {
			t.Errorf("%q: %x to %x, %t", c.line, from, to, ok)
		}
	}
}

// Code and constants are there after a trim.
func TestTrimLosesNothing(t *testing.T) {
	Trim()
	TestProgramText(t)
}
