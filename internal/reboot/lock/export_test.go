package lock

import "testing"

// SetHistoryKept makes the history short until the test ends.
func SetHistoryKept(t testing.TB, n int) {
	before := historyKept
	historyKept = n
	t.Cleanup(func() { historyKept = before })
}
