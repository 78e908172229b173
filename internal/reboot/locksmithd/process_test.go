package locksmithd

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"flotilla/internal/applet"
	"flotilla/internal/reboot/sema"
)

// The process itself, killed with SIGKILL again and again at moments that come later and
// later, on a real bus and a real store, until it has asked for a reboot: it never holds more
// than its one slot, has it when it asks, and the one that is left alone asks again.
func TestProcessKilled(t *testing.T) {
	if args := os.Getenv("LOCKSMITHD_TEST_ARGS"); args != "" {
		os.Exit(run(context.Background(), applet.Env{Args: strings.Fields(args), Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: os.Stderr}))
	}
	reboots := startLogind(t)
	url, c := startStore(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/reboot-required", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	me := strings.Repeat("a", 32)
	start := func() *exec.Cmd {
		p := exec.Command(os.Args[0], "-test.run=^TestProcessKilled$")
		p.Env = append(os.Environ(), "LOCKSMITHD_TEST_ARGS=--reboot_strategy=etcd-lock --endpoint="+url+" --machine_id="+me+
			" --run_dir="+dir+"/run --state_dir="+dir+"/state --coordinator_file="+dir+"/coordinator.conf --required_file="+dir+"/reboot-required --veto_dir="+dir+"/veto")
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Process.Kill(); p.Wait() })
		return p
	}
	l := mustLock(t, c)
	killed := map[sema.Phase]bool{} // how far it was
	for after := 10 * time.Millisecond; len(reboots) == 0; after += 20 * time.Millisecond {
		if after > 10*time.Second {
			t.Fatalf("it never comes to ask for a reboot: killed in %v", killed)
		}
		p := start()
		time.Sleep(after) // the moment of the blow is what varies
		p.Process.Kill()
		p.Wait()
		s, err := l.Read(t.Context())
		if err != nil || len(s.Holders) > 1 || s.Stopped != nil {
			t.Fatalf("killed after %v: the lock is %s, %v", after, s.Encode(), err)
		}
		killed[s.Details[me].Phase] = true
	}
	if !killed[""] || !killed[sema.Rebooting] {
		t.Errorf("it was to be killed before it had the lock, and when it has asked for a reboot: %v", killed)
	}
	for len(reboots) > 0 {
		<-reboots
	}
	start()
	select {
	case <-reboots:
	case <-time.After(30 * time.Second):
		t.Fatal("the one that is left alone does not reboot")
	}
	if s, err := l.Read(t.Context()); err != nil || s.Details[me].Phase != "rebooting" {
		t.Errorf("the lock is %s, %v", s.Encode(), err)
	}
}
