package member

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowdAt makes this program the crowd's side of TestCrowd: HOST:PORT of the member.
const crowdAt = "FLOTILLA_TEST_CROWD"

const (
	crowdIdle   = 10_000 // connections that say nothing, or nothing more
	crowdUnread = 200    // watches of which nothing is read
)

func TestMain(m *testing.M) {
	if at := os.Getenv(crowdAt); at != "" {
		if err := crowd(at); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if !flagGiven("test.parallel") {
		flag.Set("test.parallel", "4") // members under test wait most of the time: for elections, for each other
	}
	os.Exit(m.Run())
}

func flagGiven(name string) (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

// crowd opens a connection for each line of its input and keeps them all until the
// input ends: "silent", "asked" (one request, answered) or "unread" (a watch).
func crowd(at string) error {
	in := bufio.NewScanner(os.Stdin)
	var all []net.Conn
	for in.Scan() {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			return fmt.Errorf("connection %d: %w", len(all), err)
		}
		all = append(all, conn)
		switch in.Text() {
		case "asked":
			err = sendGet(conn, "/v2/keys/?quorum=false")
		case "unread":
			conn.(*net.TCPConn).SetReadBuffer(4096)
			err = sendGet(conn, "/v2/keys/w?wait=true&stream=true&recursive=true")
		}
		if err != nil {
			return err
		}
		fmt.Println("ok")
	}
	runtime.KeepAlive(all)
	return in.Err()
}

// sendGet sends a request and reads the head of the answer.
func sendGet(conn net.Conn, target string) error {
	if _, err := io.WriteString(conn, "GET "+target+" HTTP/1.1\r\nHost: "+conn.RemoteAddr().String()+"\r\n\r\n"); err != nil {
		return err
	}
	_, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
	return err
}

// TestCrowd: a member with 10,000 connections that say nothing, and 200 clients that
// never read what their watches tell them, stays within the memory that
// docs/reliability.md names, and answers others as if they were not there.
func TestCrowd(t *testing.T) {
	allowFiles(t, crowdIdle+1000)
	cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	cfg.Engine.UnsafeNoFsync = true
	m := start(t, cfg)
	others := &other{t: t, base: m.ClientURLs()[0]}
	others.served("before")

	join := startCrowd(t, m.ClientURLs()[0])
	before := memory()
	join("silent", crowdIdle/2)
	join("asked", crowdIdle/2)
	each := float64(memory()-before) / crowdIdle
	t.Logf("an idle connection costs %.1f KiB, resident %d MiB", each/1024, resident(t)>>20)
	if each > 24<<10 {
		t.Errorf("an idle connection costs %.1f KiB, want 24 at most", each/1024)
	}
	others.served("beside idle connections")

	join("unread", crowdUnread)
	before = memory()
	value := strings.Repeat("x", 32<<10)
	for i := range 200 {
		others.put("/v2/keys/w/"+strconv.Itoa(i%10), value)
	}
	grown := memory() - before
	t.Logf("%d unread watches of 6 MiB each cost %d MiB, resident %d MiB", crowdUnread, grown>>20, resident(t)>>20)
	if grown > 96<<20 {
		t.Errorf("the unread watches cost %d MiB, want 96 at most", grown>>20)
	}
	others.served("beside unread watches")
}

// startCrowd starts the other side. The function that it returns has it open n
// connections of a sort.
func startCrowd(t *testing.T, member string) func(sort string, n int) {
	t.Helper()
	u, err := url.Parse(member)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crowdAt+"="+u.Host)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the crowd: %v", err)
		}
	})
	joined := bufio.NewScanner(out)
	return func(sort string, n int) {
		t.Helper()
		go io.WriteString(in, strings.Repeat(sort+"\n", n))
		for i := range n {
			if !joined.Scan() {
				t.Fatalf("%d of %d connections: %v", i, n, joined.Err())
			}
		}
	}
}

// other is a client that is to notice nothing.
type other struct {
	t    *testing.T
	base string
}

// served does a PUT and a quorum GET, a few times, each on a new connection. How
// fast they are is told, and tested only as far as a busy machine permits.
func (o *other) served(when string) {
	o.t.Helper()
	for range 3 {
		began := time.Now()
		o.put("/v2/keys/other", when)
		resp, err := http.Get(o.base + "/v2/keys/other?quorum=true")
		if err != nil {
			o.t.Fatalf("%s: %v", when, err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(body), when) {
			o.t.Fatalf("%s: %s %s", when, resp.Status, body)
		}
		http.DefaultClient.CloseIdleConnections()
		took := time.Since(began)
		o.t.Logf("%s a PUT and a GET take %s", when, took.Round(time.Millisecond))
		if took > 10*time.Second {
			o.t.Errorf("%s a PUT and a GET are held up", when)
		}
	}
}

func (o *other) put(path, value string) {
	o.t.Helper()
	req, err := http.NewRequest(http.MethodPut, o.base+path, strings.NewReader(url.Values{"value": {value}}.Encode()))
	if err != nil {
		o.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode >= 300 {
		o.t.Fatalf("PUT %s: %s %.200s", path, resp.Status, body)
	}
}

// memory is that of heap and stacks, in bytes.
func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// resident is the process's memory as the kernel counts it, in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(raw), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// allowFiles raises the limit of open files, for this process and those that it starts.
func allowFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= n {
		return
	}
	limit.Cur, limit.Max = n, max(n, limit.Max)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatalf("raise the limit of open files to %d: %v", n, err)
	}
}
