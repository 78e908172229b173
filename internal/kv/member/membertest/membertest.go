// Package membertest is a store for the tests of whoever uses one.
package membertest

import (
	"log/slog"
	"path/filepath"
	"testing"

	"flotilla/internal/kv/kvtest"
	"flotilla/internal/kv/member"
)

// Start runs a member of the store, n1, in this process, alone in its cluster, until the test
// ends, and returns its URL. The test fails if it cannot, or if it ends badly.
func Start(t testing.TB) (url string) {
	t.Helper()
	cfg, err := member.Alone("n1", filepath.Join(t.TempDir(), "store"), []string{"http://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	m := member.New(cfg, member.Deps{Log: slog.New(slog.DiscardHandler)})
	kvtest.Run(t, m)
	return m.ClientURLs()[0]
}
