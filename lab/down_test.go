package lab

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/lab/machines"
)

// hereUnit serves the machine's boot id: whoever gets it knows that the machine is up,
// with its units, and since which boot.
const hereUnit = `[Service]
ExecStart=/bin/sh -c "mkdir -p /run/here && cp /proc/sys/kernel/random/boot_id /run/here/index.html && exec busybox httpd -f -p 8001 -h /run/here"

[X-Fleet]
Global=true
`

// talkerUnit says five times a second where it is alive, to a file that all machines share.
const talkerUnit = `[Service]
ExecStart=/bin/bash -c 'exec 3<> <(:); while :; do echo "%H %i $$EPOCHREALTIME" >>` + machines.Shared + `/talkers; read -rt 0.2 -u 3; done'
`

// sight is one look at a machine from outside.
type sight struct {
	at   time.Time
	boot string // "" if it does not answer
}

// absence is a time in which a machine did not answer. It may have been shorter by the
// time between two looks at each end.
type absence struct {
	machine  string
	from, to time.Time // the last look before it, the first after it; zero: it has not ended
	rebooted bool      // it came back from another boot
}

func (a absence) String() string {
	to := "now"
	if !a.to.IsZero() {
		to = a.to.Format("15:04:05.0")
	}
	return fmt.Sprintf("%s from %s to %s", a.machine, a.from.Format("15:04:05.0"), to)
}

// absences are a machine's, in order. Before the first answer there is nothing to be
// absent from.
func absences(machine string, looks []sight) []absence {
	var out []absence
	var last sight // that was answered
	away := false
	for _, s := range looks {
		switch {
		case s.boot == "" && !away && !last.at.IsZero():
			away = true
			out = append(out, absence{machine: machine, from: last.at})
		case s.boot == "":
		case away:
			away = false
			out[len(out)-1].to, out[len(out)-1].rebooted = s.at, s.boot != last.boot
			last = s
		case last.boot != "" && s.boot != last.boot: // too fast to be seen
			out = append(out, absence{machine: machine, from: last.at, to: s.at, rebooted: true})
			last = s
		default:
			last = s
		}
	}
	return out
}

// together are the pairs of absences that may have overlapped, of any two machines.
func together(all []absence) []string {
	slices.SortFunc(all, func(a, b absence) int { return a.from.Compare(b.from) })
	var out []string
	for i, a := range all {
		for _, b := range all[i+1:] {
			if a.machine != b.machine && (a.to.IsZero() || b.from.Before(a.to)) {
				out = append(out, fmt.Sprintf("%v, and %v", a, b))
			}
		}
	}
	return out
}

func TestAbsences(t *testing.T) {
	at := func(tenths int) time.Time { return time.Unix(0, 0).Add(time.Duration(tenths) * 100 * time.Millisecond) }
	looks := func(boots ...string) (out []sight) {
		for i, b := range boots {
			out = append(out, sight{at(i), b})
		}
		return out
	}
	for _, c := range []struct {
		name  string
		looks []sight
		want  []absence
	}{
		{"never seen", looks("", "", ""), nil},
		{"always there", looks("", "a", "a"), nil},
		{"reboots", looks("a", "a", "", "", "b", "b"), []absence{{"m1", at(1), at(4), true}}},
		{"does not answer for a moment", looks("a", "", "a"), []absence{{"m1", at(0), at(2), false}}},
		{"is gone", looks("a", "", ""), []absence{{machine: "m1", from: at(0)}}},
		{"twice, once unseen", looks("a", "b", "", "c"), []absence{{"m1", at(0), at(1), true}, {"m1", at(1), at(3), true}}},
	} {
		if got := absences("m1", c.looks); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	one, next, late := absence{"m1", at(0), at(4), true}, absence{"m2", at(4), at(8), true}, absence{"m3", at(7), at(9), true}
	if got := together([]absence{next, one}); got != nil {
		t.Errorf("one after the other: %v", got)
	}
	if got := together([]absence{late, one, next}); len(got) != 1 || !strings.Contains(got[0], "m3") {
		t.Errorf("two at once: %v", got)
	}
	if got := together([]absence{{machine: "m1", from: at(0)}, late}); len(got) != 1 {
		t.Errorf("one that did not return: %v", got)
	}
}

// watcher looks at the machines from outside, ten times a second.
type watcher struct {
	client http.Client

	mu    sync.Mutex
	looks map[string][]sight // by machine
}

// watch looks at the machines until the test ends.
func (c *cluster) watch() *watcher {
	c.Helper()
	all, err := lab.Machines()
	if err != nil {
		c.Fatal(err)
	}
	w := &watcher{looks: map[string][]sight{}, client: http.Client{
		// A machine that is down refuses at once: its addresses are those of a namespace
		// that stays. Whoever takes long to answer has too little of the processors.
		Timeout:   5 * time.Second,
		Transport: &http.Transport{DialContext: dialInLab, DisableKeepAlives: true},
	}}
	ctx, stop := context.WithCancel(context.WithoutCancel(c.Context()))
	var lookers sync.WaitGroup
	for _, m := range all {
		lookers.Go(func() { w.follow(ctx, m) })
	}
	c.Cleanup(func() { stop(); lookers.Wait() })
	return w
}

func (w *watcher) follow(ctx context.Context, m machines.Machine) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		s := sight{time.Now(), w.boot(m)}
		w.mu.Lock()
		w.looks[m.Name] = append(w.looks[m.Name], s)
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// boot is what the machine answers; "" if it does not.
func (w *watcher) boot(m machines.Machine) string {
	id, err := get(&w.client, "http://"+m.Address+":8001/")
	if err != nil {
		return ""
	}
	return id
}

// absences are all machines', in order.
func (w *watcher) absences() []absence {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []absence
	for m, looks := range w.looks {
		out = append(out, absences(m, looks)...)
	}
	slices.SortFunc(out, func(a, b absence) int { return a.from.Compare(b.from) })
	return out
}

// rebooted are the machines that have come back from another boot.
func (w *watcher) rebooted() []string {
	var out []string
	for _, a := range w.absences() {
		if a.rebooted {
			out = append(out, a.machine)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// words are when each talker has spoken, by its name, in order. The last line may be half
// a line.
func words(text string) (map[string][]time.Time, error) {
	out := map[string][]time.Time{}
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("a talker wrote %q", line)
		}
		s, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			return nil, fmt.Errorf("a talker wrote %q: %w", line, err)
		}
		out[f[1]] = append(out[f[1]], time.UnixMicro(int64(s*1e6)))
	}
	for _, at := range out {
		slices.SortFunc(at, time.Time.Compare)
	}
	return out, nil
}

// mute are the talkers that have not spoken for a while at some time.
func mute(spoken map[string][]time.Time, at time.Time, while time.Duration) []string {
	var out []string
	for name, words := range spoken {
		if !slices.ContainsFunc(words, func(t time.Time) bool { return !t.After(at) && at.Sub(t) < while }) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func TestMute(t *testing.T) {
	spoken, err := words("m1 1 10.000000\nm2 2 10.100000\nm1 1 11.500000\nm1 1 12.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   float64
		want string
	}{{10.2, "[]"}, {11.2, "[1 2]"}, {11.6, "[2]"}, {9, "[1 2]"}} {
		if got := fmt.Sprint(mute(spoken, time.UnixMicro(int64(c.at*1e6)), time.Second)); got != c.want {
			t.Errorf("at %v: %s, want %s", c.at, got, c.want)
		}
	}
	if _, err := words("m1 1\n"); err == nil {
		t.Error("half a line was taken")
	}
}

// talk starts n talkers and the global unit that the watcher looks at.
func (c *cluster) talk(n int) {
	c.Helper()
	if err := os.RemoveAll(filepath.Join(lab.SharedDir(), "talkers")); err != nil {
		c.Fatal(err)
	}
	c.submit("here.service", hereUnit)
	c.submit("talker@.service", talkerUnit)
	c.fleetctl("start", "here.service")
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("talker@%d.service", i+1))
	}
	c.fleetctl(append([]string{"start"}, names...)...)
	c.active(30*time.Second, size, "here.service")
	c.active(30*time.Second, 1, names...)
}

// spokenWords are the talkers' so far.
func (c *cluster) spokenWords() map[string][]time.Time {
	c.Helper()
	text, err := os.ReadFile(filepath.Join(lab.SharedDir(), "talkers"))
	if err != nil {
		c.Fatal(err)
	}
	spoken, err := words(string(text))
	if err != nil {
		c.Fatal(err)
	}
	return spoken
}

// rebootLimit is how long a machine of the lab may be away when it reboots: it takes a
// second or two, so that whatever takes longer has waited for something.
const rebootLimit = 20 * time.Second

// oneByOne fails the test if two machines were down together, or if one went down
// while a unit did not run; it is told what one waited for that took long over it.
func (c *cluster) oneByOne(away []absence) {
	c.Helper()
	for _, pair := range together(away) {
		c.Errorf("down together: %s", pair)
	}
	spoken := c.spokenWords()
	for _, a := range away {
		c.Logf("%v, %.1f s", a, a.to.Sub(a.from).Seconds())
		if a.to.Sub(a.from) > rebootLimit {
			out, err := c.try(a.machine, "journalctl", "--no-pager", "--output=short-precise", "--since", a.from.UTC().Format(time.DateTime))
			c.Logf("%s was away for longer than %v: %v\n%s", a.machine, rebootLimit, err, out)
		}
		if m := mute(spoken, a.from, time.Second); len(m) > 0 {
			c.Errorf("%s went down at %s while these did not run: %v", a.machine, a.from.Format("15:04:05.0"), m)
		}
	}
}
