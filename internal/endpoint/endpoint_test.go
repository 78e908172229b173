package endpoint

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"flotilla/internal/applet"
)

func envWith(home string) applet.Env {
	return applet.Env{LookupEnv: func(k string) (string, bool) {
		if k == "XDG_STATE_HOME" {
			return home, true
		}
		return "", false
	}}
}

func TestCommandLinesFindTheCurrentUp(t *testing.T) {
	home, err := os.MkdirTemp("", "ep") // a socket's path is at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	env := envWith(home)
	if got := Store(env); !slices.Equal(got, ClassicStore) {
		t.Errorf("before: %v", got)
	}
	dir := filepath.Join(home, "elsewhere")
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "run", ClientURLs), []byte("http://127.0.0.1:9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "run", FleetSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 2 { // the second call replaces the link
		if err := SetCurrent(env, dir); err != nil {
			t.Fatal(err)
		}
	}
	if got := Store(env); !slices.Equal(got, []string{"http://127.0.0.1:9"}) {
		t.Errorf("store: %v", got)
	}
	want := "unix://" + filepath.Join(home, "flotilla", "current", "run", FleetSocket)
	if answers(classicSocket) {
		want = "unix://" + classicSocket
	}
	if got := Fleet(env); got != want {
		t.Errorf("fleet: got %s, want %s", got, want)
	}
}
