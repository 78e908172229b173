package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unit"
	"flotilla/internal/unit/unitfake"
)

// units is what a machine says of its own.
type units struct{ follows chan struct{} }

func (u units) Show(_ context.Context, w io.Writer, name string) (int, error) {
	if name == "broken.service" {
		return 0, errors.New("the bus is gone")
	}
	fmt.Fprintf(w, "● %s\n", name)
	return 3, nil
}

func (u units) Adopt(_ context.Context, name string) (string, error) {
	if name == "broken.service" {
		return "", errors.New("it has no file")
	}
	return "text of " + name, nil
}

func (u units) Eject(_ context.Context, name string) error {
	if name == "broken.service" {
		return errors.New("it is not on this machine")
	}
	return nil
}

func (u units) ReadLog(ctx context.Context, q unit.LogQuery, emit func(unit.LogEntry) error) error {
	for i := range 3 {
		if err := emit(unit.LogEntry{Unit: q.Units[0], Message: fmt.Sprintf("line %d of %d", i, q.Lines)}); err != nil {
			return err
		}
	}
	if q.Follow {
		<-ctx.Done()
		close(u.follows)
		return nil
	}
	if q.After == "gone" {
		return errors.New("no such cursor")
	}
	return nil
}

func identity(t *testing.T) Identity {
	t.Helper()
	id, err := LoadIdentity(filepath.Join(t.TempDir(), "peer.key"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// serve runs a machine that trusts one key.
func serve(t *testing.T, id Identity, trusts string) (model.Machine, units) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := units{follows: make(chan struct{})}
	s := NewServer(id, "web-1", func(_ context.Context, key string) error {
		if key != trusts {
			return errors.New("a stranger")
		}
		return nil
	}, u, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return model.Machine{ID: "m", Hostname: "web-1", PeerAddr: ln.Addr().String(), PeerKey: id.Key()}, u
}

func TestStatusAndLog(t *testing.T) {
	me, server := identity(t), identity(t)
	m, _ := serve(t, server, me.Key())
	c := NewClient(me)
	var text bytes.Buffer
	if code, err := c.Show(t.Context(), m, &text, "a.service"); err != nil || code != 3 || text.String() != "● a.service\n" {
		t.Errorf("%d %v %q", code, err, text.String())
	}
	if _, err := c.Show(t.Context(), m, &text, "broken.service"); err == nil || err.Error() != "ask web-1: the bus is gone" {
		t.Errorf("got %v", err)
	}
	if text, err := c.Adopt(t.Context(), m, "a.service"); err != nil || text != "text of a.service" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := c.Adopt(t.Context(), m, "broken.service"); err == nil || err.Error() != "ask web-1: it has no file" {
		t.Errorf("got %v", err)
	}
	if err := c.Eject(t.Context(), m, "a.service"); err != nil {
		t.Error(err)
	}
	if err := c.Eject(t.Context(), m, "broken.service"); err == nil || err.Error() != "ask web-1: it is not on this machine" {
		t.Errorf("got %v", err)
	}
	var got []string
	err := c.ReadLog(t.Context(), m, Query{LogQuery: unit.LogQuery{Units: []string{"a.service"}, Lines: 7}, Priority: LeastUrgent}, func(e unit.LogEntry) error {
		got = append(got, e.Machine+" "+e.Message)
		return nil
	})
	if want := []string{"web-1 line 0 of 7", "web-1 line 1 of 7", "web-1 line 2 of 7"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v", got, err)
	}
	err = c.ReadLog(t.Context(), m, Query{LogQuery: unit.LogQuery{Units: []string{"a.service"}, After: "gone"}, Priority: LeastUrgent}, func(unit.LogEntry) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "no such cursor") {
		t.Errorf("what broke a log on the way is lost: %v", err)
	}
}

// Whoever follows a log and goes away ends it on the other machine.
func TestFollowEnds(t *testing.T) {
	me, server := identity(t), identity(t)
	m, u := serve(t, server, me.Key())
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := NewClient(me).ReadLog(ctx, m, Query{LogQuery: unit.LogQuery{Units: []string{"a.service"}, Follow: true}, Priority: LeastUrgent}, func(unit.LogEntry) error {
		if n++; n == 3 {
			cancel()
		}
		return nil
	})
	if err != nil {
		t.Errorf("got %v", err)
	}
	select {
	case <-u.follows:
	case <-time.After(10 * time.Second):
		t.Error("it is still being followed")
	}
}

// Each side turns away a key that it was not told of.
func TestStrangers(t *testing.T) {
	me, server, stranger := identity(t), identity(t), identity(t)
	m, _ := serve(t, server, me.Key())
	if _, err := NewClient(stranger).Show(t.Context(), m, io.Discard, "a.service"); err == nil {
		t.Error("the server answers a stranger")
	}
	m.PeerKey = stranger.Key()
	if _, err := NewClient(me).Show(t.Context(), m, io.Discard, "a.service"); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("the client believes a stranger: %v", err)
	}
	m.PeerKey = ""
	if _, err := NewClient(me).Show(t.Context(), m, io.Discard, "a.service"); err == nil {
		t.Error("the client believes whoever answers for a machine without a key")
	}
}

func TestIdentityIsKeptAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peer.key")
	first, err := LoadIdentity(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadIdentity(path)
	if err != nil || again.Key() != first.Key() || len(first.Key()) != 64 {
		t.Errorf("%s, then %s, %v", first.Key(), again.Key(), err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

func TestQueryThereAndBack(t *testing.T) {
	q := Query{
		LogQuery: unit.LogQuery{Units: []string{"a.service", "b.service"}, Lines: -1, Follow: true, Since: time.Date(2026, 8, 1, 1, 2, 3, 4, time.UTC), After: "s=1;i=2"},
		Priority: 3, Grep: regexp.MustCompile("a b|c"),
	}
	if got, err := decodeQuery(encodeQuery(q)); err != nil || fmt.Sprint(got) != fmt.Sprint(q) {
		t.Errorf("%+v, %v", got, err)
	}
	q.Priority, q.Grep = LeastUrgent, nil
	if got, err := decodeQuery(encodeQuery(q)); err != nil || !reflect.DeepEqual(got, q) {
		t.Errorf("%+v, %v", got, err)
	}
}

// Lines counts what is wanted, not what there is; following goes on where reading
// has stopped.
func TestReadWhatIsWanted(t *testing.T) {
	m := unitfake.New()
	if err := m.Install(t.Context(), "a.service", "[Service]\nExecStart=/bin/true\n"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		m.Print("a.service", fmt.Sprintf("line %d", i))
	}
	read := func(q Query) (out []string) {
		t.Helper()
		q.Units, q.Priority = []string{"a.service"}, LeastUrgent
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := Read(ctx, m, q, func(e unit.LogEntry) error {
			out = append(out, e.Message)
			if q.Follow && len(out) == 2 {
				m.Print("a.service", "unwanted")
				m.Print("a.service", "line 7 again")
			}
			if len(out) == 3 && q.Follow {
				cancel()
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return out
	}
	odd := regexp.MustCompile("line [13579]")
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{LogQuery: unit.LogQuery{Lines: -1}, Grep: odd}, "[line 1 line 3 line 5 line 7 line 9]"},
		{Query{LogQuery: unit.LogQuery{Lines: 2}, Grep: odd}, "[line 7 line 9]"},
		{Query{LogQuery: unit.LogQuery{Lines: 0}, Grep: odd}, "[]"},
		{Query{LogQuery: unit.LogQuery{Lines: 3}}, "[line 7 line 8 line 9]"},
		{Query{LogQuery: unit.LogQuery{Lines: 2, Follow: true}, Grep: odd}, "[line 7 line 9 line 7 again]"},
	} {
		if got := fmt.Sprint(read(c.q)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.q, got, c.want)
		}
	}
	if !(Query{Priority: 3}).Wants(unit.LogEntry{Priority: 3}) || (Query{Priority: 3}).Wants(unit.LogEntry{Priority: 4}) {
		t.Error("a smaller number is more urgent")
	}
}
