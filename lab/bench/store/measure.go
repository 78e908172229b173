package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	connections = 64
	reading     = 4 * time.Second // how long reads are counted
	singlePuts  = 2000
	rest        = 10 * time.Second // before the memory is looked at
	changes     = 5                // told to all watchers; their median counts
)

// pair starts both servers, takes each figure of the one and then of the other, and
// ends them. Which is first changes from pair to pair.
func (b *bench) pair(swap bool, programs [2]program) (out [2]sample, err error) {
	var servers [2]*server
	for i, p := range programs {
		s, err := b.start(p, b.members)
		if err != nil {
			return out, fmt.Errorf("%s: %w", p.name, err)
		}
		servers[i] = s
		defer func() {
			if stopErr := s.stop(); err == nil {
				err = stopErr
			}
		}()
	}
	order := []int{0, 1}
	if swap {
		order = []int{1, 0}
	}
	for step := range figures {
		for _, i := range order {
			if err := b.take(step, servers[i], &out[i]); err != nil {
				return out, fmt.Errorf("%s: %s: %w", programs[i].name, figures[step].step, err)
			}
		}
	}
	return out, nil
}

// take takes one figure of a server.
func (b *bench) take(step int, s *server, out *sample) (err error) {
	f := figures[step]
	if len(b.only) > 0 && !slices.Contains(b.only, f.step) {
		return nil
	}
	profiled := b.profiling(s, f.step)
	began, cpu, used := time.Now(), threadTime(), s.used()
	out.value[step], err = f.take(b, s)
	if err != nil {
		return err
	}
	took := float64(time.Since(began))
	out.busy[step] = float64(threadTime()-cpu) / took
	if b.verbose {
		fmt.Fprintf(os.Stderr, "%-10s %-8s %10.1f %-3s clients busy %3.0f %%, server %3.0f %%\n", s.name, f.step, out.value[step], f.unit,
			out.busy[step]*100, 100*float64(s.used()-used)/took)
	}
	return profiled()
}

// threadTime is the processor time that this thread has used.
func threadTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		panic("bench: getrusage: " + err.Error()) // it has no way to fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// used is the processor time that the members have used.
func (s *server) used() (sum time.Duration) {
	for _, m := range s.members {
		sum += m.used()
	}
	return sum
}

// used is from proc(5).
func (m *member) used() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	var user, system int64
	_, rest, _ := strings.Cut(string(stat), ") ")
	for i, field := range strings.Fields(rest) {
		switch i {
		case 11:
			user, _ = strconv.ParseInt(field, 10, 64) // the kernel wrote it
		case 12:
			system, _ = strconv.ParseInt(field, 10, 64)
		}
	}
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}

// profiling takes a profile of our server while a step runs; the function that it
// returns waits for it.
func (b *bench) profiling(s *server, step string) func() error {
	if b.profile == "" || s.name != ours {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() { done <- fetch(s.url+"/debug/pprof/profile?seconds=3", filepath.Join(b.profile, step+".pprof")) }()
	return func() error { return <-done }
}

func fetch(from, to string) error {
	resp, err := http.Get(from)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, resp.Body)
	return err
}

// path of the i-th key: a hundred directories.
func path(i int) string { return fmt.Sprintf("/v2/keys/bench/%02d/%06d", i%100, i) }

func put(path, value string) []byte {
	form := "value=" + value
	return fmt.Appendf(nil, "PUT %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", path, len(form), form)
}

func get(path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path)
}

var value = strings.Repeat("0123456789", 10)

func load(b *bench, s *server) (float64, error) {
	c, err := dial(s.addrs, connections)
	if err != nil {
		return 0, err
	}
	defer c.close()
	next := 0
	began := time.Now()
	err = c.exchange(b.ctx, func() []byte {
		if next == b.keys {
			return nil
		}
		next++
		return put(path(next-1), value)
	}, func(a *answer) error { return a.want(201, 200) })
	return float64(b.keys) / time.Since(began).Seconds(), err
}

func memory(b *bench, s *server) (float64, error) {
	select {
	case <-time.After(rest):
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
	return s.resident()
}

// resident is VmRSS in MB, of the member that has most.
func (s *server) resident() (most float64, err error) {
	for _, m := range s.members {
		mb, err := m.resident()
		if err != nil {
			return 0, err
		}
		most = max(most, mb)
	}
	return most, nil
}

func (m *member) resident() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kB, err := strconv.ParseFloat(string(bytes.Fields(rest)[0]), 64)
			return kB / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmRSS of process %d", m.cmd.Process.Pid)
}

func single(b *bench, s *server) (float64, error) {
	c, err := dial(s.addrs, 1)
	if err != nil {
		return 0, err
	}
	defer c.close()
	n := 0
	began := time.Now()
	err = c.exchange(b.ctx, func() []byte {
		if n == singlePuts {
			return nil
		}
		n++
		return put(path(n-1), value)
	}, func(a *answer) error { return a.want(200, 201) })
	return singlePuts / time.Since(began).Seconds(), err
}

// reads counts the answers for a while, to requests for keys at random.
func reads(query string) func(*bench, *server) (float64, error) {
	return func(b *bench, s *server) (float64, error) {
		c, err := dial(s.addrs, connections)
		if err != nil {
			return 0, err
		}
		defer c.close()
		if len(b.only) > 0 && !slices.Contains(b.only, "load") {
			if _, err := load(b, s); err != nil {
				return 0, err
			}
		}
		rng := rand.New(rand.NewPCG(1, 2))
		requests := make([][]byte, 4096)
		for i := range requests {
			requests[i] = get(path(rng.IntN(b.keys)) + query)
		}
		n := 0
		began := time.Now()
		err = c.exchange(b.ctx, func() []byte {
			if n%64 == 0 && time.Since(began) > reading {
				return nil
			}
			n++
			return requests[n%len(requests)]
		}, func(a *answer) error { return a.want(200, 200) })
		return float64(n) / time.Since(began).Seconds(), err
	}
}

// watch tells all watchers of one change at a time, and takes the median.
func watch(b *bench, s *server) (float64, error) {
	watchers, err := dial(s.addrs, b.watchers)
	if err != nil {
		return 0, err
	}
	defer watchers.close()
	writer, err := dial(s.addrs, 1)
	if err != nil {
		return 0, err
	}
	defer writer.close()
	var took []float64
	for i := range changes {
		if err := watchers.ask(b.ctx, get("/v2/keys/watched?wait=true&recursive=true")); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := writer.sendAll(put("/v2/keys/watched/it", strconv.Itoa(i))); err != nil {
			return 0, err
		}
		if err := watchers.receive(b.ctx, func(a *answer) error { return a.want(200, 200) }); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(began))/1e6)
		if err := writer.receive(b.ctx, func(a *answer) error { return a.want(200, 201) }); err != nil {
			return 0, err
		}
	}
	return median(took), nil
}
