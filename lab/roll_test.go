package lab

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	api "flotilla/api/fleet"
	"flotilla/internal/unitfile"
)

// rolls is how many changes TestRoll makes.
var rolls = flag.Int("lab.rolls", 10, "how `many` rolling changes a web unit gets; what is promised for 100 has to be seen for 100 too")

// rolledUnit is a web server that says which version it is.
const rolledUnit = `[Service]
ExecStart=/bin/sh -c "mkdir -p /run/web-%%i && echo %s >/run/web-%%i/index.html && exec busybox httpd -f -p 8000 -h /run/web-%%i"

[X-Fleet]
Conflicts=web@*
HealthyAfter=200ms
HealthCheck=tcp://:8000
HealthyTimeout=10s
`

// brokenUnit ends as soon as it has said why.
const brokenUnit = `[Service]
ExecStart=/bin/sh -c "echo the flux compensator is missing >&2; exit 3"

[X-Fleet]
Conflicts=web@*
HealthyAfter=200ms
HealthCheck=tcp://:8000
HealthyTimeout=10s
`

// inLab runs f in a thread that is on the lab's own end of the machines' network.
func inLab(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		fd, err := unix.Open("/run/netns/"+lab.Namespace(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err != nil {
			done <- fmt.Errorf("enter the lab's network: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// dialInLab connects to a machine from the lab's own end of the network. The address is
// a number: what makes the socket is this thread.
func dialInLab(ctx context.Context, network, address string) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: time.Second, FallbackDelay: -1}
	err = inLab(func() error {
		var err error
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// visitor asks the instances of a web unit without a pause, and the next one when one
// does not answer.
type visitor struct {
	client    http.Client
	addresses []string
	tries     int // how many a request may take

	mu                        sync.Mutex
	requests, retried, failed int
	lastFailure               error
}

func newVisitor(addresses []string) *visitor {
	return &visitor{addresses: addresses, tries: 2 * len(addresses), client: http.Client{
		Timeout:   time.Second,
		Transport: &http.Transport{DialContext: dialInLab, DisableKeepAlives: true},
	}}
}

func (v *visitor) get(address string) (string, error) {
	return get(&v.client, "http://"+address+":8000/")
}

// visit asks until ctx ends, starting each request at the next instance.
func (v *visitor) visit(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		var err error
		try := 0
		for ; try < v.tries; try++ {
			if _, err = v.get(v.addresses[(n+try)%len(v.addresses)]); err == nil {
				break
			}
		}
		v.mu.Lock()
		v.requests++
		if try > 0 {
			v.retried++
		}
		if err != nil {
			v.failed++
			v.lastFailure = err
		}
		v.mu.Unlock()
	}
}

// version is what all instances say they are, or why there is none such.
func (v *visitor) version(want string) error {
	for _, a := range v.addresses {
		if got, err := v.get(a); err != nil || got != want {
			return fmt.Errorf("%s serves %q: %v", a, got, err)
		}
	}
	return nil
}

// A web unit of three instances changes again and again, and no request of a client that
// tries another instance fails. Then comes a version that does not run: it goes back by
// itself, and the report says why.
func TestRoll(t *testing.T) {
	c := scenario(t)
	v := newVisitor(addressesOf(c))
	c.write("web@.service", fmt.Sprintf(rolledUnit, "v0"))
	c.inDesk("fleetctl start web@{1..3}")
	c.eventually(20*time.Second, "all serve v0", func() error { return v.version("v0") })

	ctx, stop := context.WithCancel(t.Context())
	var visitors sync.WaitGroup
	visitors.Go(func() { v.visit(ctx) })
	defer visitors.Wait()
	defer stop()
	began := time.Now()
	for i := range *rolls {
		version := fmt.Sprintf("v%d", i+1)
		text := fmt.Sprintf(rolledUnit, version)
		c.write("web@.service", text)
		c.inDesk("fleetctl start --replace web@{1..3}")
		if r := c.rolled("web@.service", "web@1.service", text); r.State != "done" {
			t.Fatalf("%s: the roll is %s: %s", version, r.State, r.Why)
		}
		if err := v.version(version); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	last := fmt.Sprintf("v%d", *rolls)

	c.write("web@.service", brokenUnit)
	out, err := c.tryInDesk("timeout 30 fleetctl start --replace web@{1..3} 2>&1")
	t.Logf("a version that does not run: %v\n%s", err, out)
	if err == nil || !strings.Contains(out, "the flux compensator is missing") {
		t.Error("fleetctl does not say that the version does not run, with the line of the log that tells why")
	}
	r := c.rolled("web@.service", "web@1.service", brokenUnit)
	t.Logf("the roll is %s after %.1f s: %s\n%s", r.State, r.Ended.Sub(r.Started).Seconds(), r.Why, strings.Join(r.Log, "\n"))
	if r.State != "reverted" || !strings.Contains(strings.Join(r.Log, "\n"), "the flux compensator is missing") {
		t.Errorf("the report of the roll does not say why it went back: %+v", r)
	}
	if err := v.version(last); err != nil {
		t.Errorf("after the roll went back: %v", err)
	}
	stop()
	visitors.Wait()
	t.Logf("%d rolling changes in %.1f s, %.2f s each; %d requests, %d of them tried again, %d failed",
		*rolls, took.Seconds(), took.Seconds()/float64(*rolls), v.requests, v.retried, v.failed)
	if v.failed > 0 {
		t.Errorf("%d of %d requests failed, the last with %v", v.failed, v.requests, v.lastFailure)
	}
}

// rolled waits until the roll of a group to a text is over, and returns its record.
func (c *cluster) rolled(group, unit, text string) (r api.Roll) {
	c.Helper()
	f, err := unitfile.Parse(text)
	if err != nil {
		c.Fatal(err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-tick.C {
		out := c.on(c.desk(), "curl", "-sS", "--unix-socket", "/run/fleet.sock", "http://fleet"+api.Prefix+"/rolls/"+group)
		r = api.Roll{}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			c.Fatalf("%v: %s", err, out)
		}
		if r.Final() && r.To[unit] == f.Hash() {
			return r
		}
	}
	c.Fatalf("the roll of %s does not end: %+v", group, r)
	return r
}

// write writes a unit file onto every machine's desk.
func (c *cluster) write(name, text string) {
	c.Helper()
	for _, m := range c.names() {
		if err := lab.WriteFile(m, desk+"/"+name, []byte(text), 0o644); err != nil {
			c.Fatal(err)
		}
	}
}

// inDesk types a line on the first machine that is whole; tryInDesk gives the error back.
func (c *cluster) inDesk(line string) string {
	c.Helper()
	out, err := c.tryInDesk(line)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

func (c *cluster) tryInDesk(line string) (string, error) {
	c.Helper()
	return c.try(c.desk(), "bash", "-c", "cd "+desk+" && "+line)
}
