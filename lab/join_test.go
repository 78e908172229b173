package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/lab/machines"
)

// joinLimit is how long three blank machines may take from their first boot with a
// document until a unit of the cluster runs.
const joinLimit = time.Minute

// userData is where a machine finds its document when it boots.
const userData = "/var/lib/coreos-install/user_data"

// Three machines with nothing but the package boot with one document, and are a cluster
// that runs hello: nobody types anything on them. A fourth and a fifth with the same
// document come later: they have no member of the store, and get units by what is said of
// them.
func TestJoin(t *testing.T) {
	c := blankLab(t, 5, buildPackage(t))
	token, stop, err := newToken(t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	all := c.names()
	first, later := all[:3], all[3:]

	began := time.Now()
	c.bootWith(first, document(t, token, "role=web"))
	c.eventually(joinLimit, "hello is active", func() error {
		at, err := c.listed()
		if err == nil && len(at["hello.service"]) != 1 {
			err = fmt.Errorf("active on %v", at["hello.service"])
		}
		return err
	})
	t.Logf("from the boot of three blank machines to a cluster with hello.service: %.1f s", time.Since(began).Seconds())
	if took := time.Since(began); took > joinLimit {
		t.Errorf("it took %v; %v is allowed", took, joinLimit)
	}
	c.eventually(20*time.Second, "hello speaks", func() error {
		return says(c.fleetctl("journal", "hello"), "Hello World")
	})
	if list := c.fleetctl("list-machines", "--full"); strings.Count(list, "\tregion=us-east-1,role=web,type=m3.medium\n") != 3 || strings.Count(list, "10.10.1.") != 3 {
		t.Errorf("list-machines says\n%s", list)
	}

	// A unit for machines that are not there yet.
	c.write("worker.service", "[Service]\nExecStart=/bin/sleep infinity\n\n[X-Fleet]\nGlobal=true\nMachineMetadata=role=worker\n")
	c.inDesk("fleetctl start worker")
	began = time.Now()
	c.bootWith(later, document(t, token, "role=worker"))
	c.active(joinLimit, 2, "worker.service")
	t.Logf("from the boot of two more to their units: %.1f s", time.Since(began).Seconds())
	c.joined(5)
	for _, l := range c.lives("worker.service") {
		if l.machine != later[0] && l.machine != later[1] {
			t.Errorf("%v: that is no worker", l)
		}
	}
	for _, m := range later {
		if n := strings.Count(c.on(m, "etcdctl", "member", "list"), "\n"); n != 3 {
			t.Errorf("%s sees %d members of the store", m, n)
		}
		c.on(m, "etcdctl", "set", "/from/"+m, "here")
	}
	if got := c.on(first[0], "etcdctl", "ls", "/from"); strings.Count(got, "\n") != 2 {
		t.Errorf("what the workers have written: %q", got)
	}

	// The document is read at every boot, and changes nothing.
	before := c.lives("worker.service", "hello.service")
	if err := lab.Reboot(t.Context(), later[1]); err != nil {
		t.Fatal(err)
	}
	c.joined(5)
	c.active(joinLimit, 2, "worker.service")
	c.active(joinLimit, 1, "hello.service")
	others := func(ls []life) (out []life) {
		for _, l := range ls {
			if l.machine != later[1] {
				out = append(out, l)
			}
		}
		return out
	}
	c.keeps("the reboot of "+later[1], others(before), c.lives("worker.service", "hello.service"))
}

// says complains unless the text holds what is wanted.
func says(text, want string) error {
	if !strings.Contains(text, want) {
		return fmt.Errorf("%q is not in %q", want, text)
	}
	return nil
}

// each does the same on several machines at once.
func (c *cluster) each(names []string, do func(machine string) error) {
	c.Helper()
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, m := range names {
		all.Go(func() { errs[i] = do(m) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		c.Fatal(err)
	}
}

// bootWith has machines boot with a document, and returns when they are up.
func (c *cluster) bootWith(names []string, document string) {
	c.Helper()
	c.each(names, func(m string) error {
		if err := lab.WriteFile(m, userData, []byte(document), 0o600); err != nil {
			return err
		}
		return lab.Reboot(c.Context(), m)
	})
}

// document is the one that all machines are given.
func document(t *testing.T, discovery, role string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/join/user_data.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("DISCOVERY", discovery, "ROLE", role).Replace(string(text))
}

// buildPackage builds the Debian package of this source tree and returns what is in it.
func buildPackage(t *testing.T) []byte {
	t.Helper()
	if why != "" {
		t.Skip(why)
	}
	deb, err := os.ReadFile(debs(t, "1.0.0")[0])
	if err != nil {
		t.Fatal(err)
	}
	return deb
}

// blankLab boots n machines for the test that have nothing of ours but the package.
func blankLab(t *testing.T, n int, deb []byte) *cluster {
	t.Helper()
	ownLab(t, n, machines.Blank, machines.With("/opt/flotilla.deb", deb, 0o644))
	c := &cluster{T: t}
	c.each(c.names(), func(m string) error {
		_, err := lab.Output(t.Context(), m, "dpkg", "--install", "/opt/flotilla.deb")
		return err
	})
	return c
}

// newToken runs a discovery service on the machines' network, until it is stopped, and
// asks it for the token of a cluster. The service keeps its data in the directory.
func newToken(dir string, members int) (token string, stop func(), err error) {
	program, err := program()
	if err != nil {
		return "", nil, err
	}
	const at = "http://10.10.1.254:8087"
	ctx, cancel := context.WithCancel(running)
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", lab.Namespace(), program, "discovery", "--listen", at, "--allow-plain-http", "--data-dir", filepath.Join(dir, "discovery"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		return "", nil, err
	}
	stop = func() { cancel(); _ = cmd.Wait() } // it ends as it was told to
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: dialInLab, DisableKeepAlives: true}}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 100 {
		if token, err = get(&client, fmt.Sprintf("%s/new?size=%d", at, members)); err == nil {
			return token, stop, nil
		}
		<-tick.C
	}
	stop()
	return "", nil, fmt.Errorf("the discovery service does not answer: %w", err)
}

// get returns what is at a URL, without white space at its ends.
func get(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return strings.TrimSpace(string(body)), err
}
