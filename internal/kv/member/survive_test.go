package member

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flotilla/client/keys"
)

// eventually waits until ok, looking often.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond) // between looks
	}
}

// health asks a member how it is; "" as the text when nobody answers.
func health(base string) (status int, text string) {
	resp, err := http.Get(base + "/health")
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// A member of three that is the only one there answers everybody with the reason,
// and is whole once the others are there.
func TestAnswersWhileWaitingForAMajority(t *testing.T) {
	t.Parallel()
	cfgs := clusterConfigs(t, 3)
	m, ready, _ := launch(t, cfgs[0])
	eventually(t, 10*time.Second, "the reason in /health", func() bool {
		_, text := health(m.firstClientURL())
		return strings.Contains(text, "majority")
	})
	base := m.firstClientURL()
	code, text := health(base)
	if code != http.StatusServiceUnavailable || !strings.Contains(text, `{"health":"false","reason":"waiting for a majority of the members: n1=`) {
		t.Errorf("/health: %d %s", code, text)
	}
	code, text = body(t, http.DefaultClient, base+"/v2/keys/a")
	if code != http.StatusInternalServerError || !strings.Contains(text, `"errorCode":300`) || !strings.Contains(text, "majority") {
		t.Errorf("/v2/keys/a: %d %s", code, text)
	}
	if code, _ := body(t, http.DefaultClient, base+"/livez"); code != http.StatusOK {
		t.Errorf("/livez: %d", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{base}, MaxUnaryRetries: 1, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Get(ctx, "/a"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "majority") {
		t.Errorf("gRPC: %v", err)
	}
	select {
	case <-ready:
		t.Error("ready without a majority")
	default:
	}
	_, other, _ := launch(t, cfgs[1])
	<-other
	<-ready
	eventually(t, 5*time.Second, "a put by the same client", func() bool {
		_, err := c.Put(ctx, "/a", "1")
		return err == nil
	})
	if code, text := health(base); code != http.StatusOK || text != `{"health":"true"}` {
		t.Errorf("/health: %d %s", code, text)
	}
}

// onTmpfs mounts a small disk.
func onTmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a tmpfs (the tests run as root): %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill writes to a file until the disk takes no more.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for {
		if _, err := f.Write(chunk); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond) // a disk, not memory: some 500 MiB a second
	}
}

// A disk that fills up stops the store, not the member: it says why, and goes on by
// itself with all its data when there is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := onTmpfs(t, "400m")
	m := start(t, alone(t, "n1", filepath.Join(disk, "data")))
	base := m.ClientURLs()[0]
	v2, err := keys.New(keys.Config{Endpoints: []string{base}, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer v2.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	set := func(key string) error {
		_, err := v2.Set(ctx, key, "value", keys.SetOptions{})
		return err
	}
	if err := set("/before"); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	eventually(t, 10*time.Second, "the full disk in /health", func() bool {
		code, text := health(base)
		return code == http.StatusServiceUnavailable && strings.Contains(text, "the disk of "+disk)
	})
	if err := set("/during"); err == nil || !strings.Contains(err.Error(), "is full") {
		t.Errorf("a write to a full disk: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "health with room", func() bool {
		code, _ := health(base)
		return code == http.StatusOK
	})
	if err := set("/after"); err != nil {
		t.Error(err)
	}
	if _, err := v2.Get(ctx, "/before", keys.GetOptions{Quorum: true}); err != nil {
		t.Errorf("what was written before: %v", err)
	}
	if err := m.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	for _, want := range []string{"the engine is stopped for a while", "is full", "there is room again", "the engine starts again"} {
		if !strings.Contains(m.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, m.log)
		}
	}
}

// A disk that is full when the member starts makes it wait, not fail.
func TestStartOnAFullDisk(t *testing.T) {
	t.Parallel()
	disk := onTmpfs(t, "250m")
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	m, ready, _ := launch(t, alone(t, "n1", filepath.Join(disk, "data")))
	eventually(t, 10*time.Second, "the full disk in /health", func() bool {
		_, text := health(m.firstClientURL())
		return strings.Contains(text, "is full")
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ready:
	case <-time.After(10 * time.Second):
		t.Fatalf("not ready with room\n%s", m.log)
	}
}

// However often the disk is late, it is said once, and once that it is well again.
func TestSlowDisk(t *testing.T) {
	log := &syncBuffer{}
	now := time.Now()
	l := newEngineLog(textLog(log), "/data", func() time.Time { return now })
	zl := l.logger()
	for range 5 {
		zl.Warn(slowFlush, zap.Duration("took", 2300*time.Millisecond))
		l.lag.look()
		now = now.Add(10 * time.Second)
	}
	zl.Warn(slowFlush, zap.Duration("took", 4*time.Second))
	now = now.Add(calmAfter)
	l.lag.look()
	l.lag.look()
	got := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(got) != 2 || !strings.Contains(got[0], "the disk is slow") || !strings.Contains(got[0], "/data") || !strings.Contains(got[0], "2.3s") ||
		!strings.Contains(got[1], "keeps up again") || !strings.Contains(got[1], "slow_flushes=6") || !strings.Contains(got[1], "worst=4s") {
		t.Errorf("logged:\n%s", log)
	}
}

// stopped is a member's data directory after some writes.
func stopped(t *testing.T) (cfg Config, segment string) {
	t.Helper()
	cfg = alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	m := start(t, cfg)
	c := v3(t, m)
	for _, key := range []string{"/a", "/b", "/c"} {
		if _, err := c.Put(t.Context(), key, strings.Repeat("x", 2000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	segments, err := walSegments(walDir(cfg.Engine.Dir, ""))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	return cfg, segments[len(segments)-1]
}

// overwrite changes bytes of a file, counted from behind the last one that is not 0
// when offset is negative.
func overwrite(t *testing.T, path string, offset int64, with []byte) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if offset < 0 {
		offset += int64(len(strings.TrimRight(string(raw), "\x00")))
	}
	copy(raw[offset:], with)
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A record that power loss left half written is cut off, and the log says which.
func TestTornRecord(t *testing.T) {
	t.Parallel()
	cfg, segment := stopped(t)
	// A record that was begun: a length, some bytes, and sectors never written.
	record := append([]byte{0x00, 0x08, 0, 0, 0, 0, 0, 0}, make([]byte, 0x800)...)
	copy(record[8:], "begun")
	raw, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	end := int64(len(strings.TrimRight(string(raw), "\x00")))
	overwrite(t, segment, (end+7)/8*8, record)
	m := start(t, cfg)
	if got, err := v3(t, m).Get(t.Context(), "/c"); err != nil || len(got.Kvs) != 1 {
		t.Errorf("what was written: %v, %v", got, err)
	}
	for _, want := range []string{"torn", segment, "offset=", segment + ".broken"} {
		if !strings.Contains(m.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, m.log)
		}
	}
}

// Damage in the middle of the log is not repaired: the member refuses to start and
// leaves the log as it is.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	cfg, segment := stopped(t)
	overwrite(t, segment, -3000, []byte("damage"))
	before, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	wantParts(t, refused(t, cfg), "the log is damaged, and nothing was changed", "crc mismatch", filepath.Base(segment), "etcd recover", "remove member n1")
	after, err := os.ReadFile(segment)
	if err != nil || string(after) != string(before) {
		t.Errorf("the log was changed (%v)", err)
	}
}
