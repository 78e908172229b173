package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flotilla/internal/unitfile"
)

// Interval is how long after the end of one probe the next begins.
const Interval = time.Second

// Limit is how long one probe may take: what answers later is not healthy.
const Limit = 5 * time.Second

// Probe asks a health check once, and returns nil if all is well.
//
// A command is run on the machine as user, which is the unit's own User= ("" the
// agent's): its words go through no shell, and it has no variables but PATH, HOME and
// USER. When it has ended, or its time is up, what it started is killed: all of it where
// we may make cgroups, else what has not left its process group. Exit status 0 is good; otherwise the
// error holds the last line it printed.
//
// A URL is asked for with GET. An answer of 200 to 399 is good: redirects are not
// followed. Certificates are not verified, since what is asked is whether the
// service answers, on this machine mostly, and nothing is told to it.
func Probe(ctx context.Context, p unitfile.HealthProbe, username string) error {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	switch {
	case p.Command != "":
		return late(ctx, command(ctx, p.Command, username))
	case p.URL != "":
		return late(ctx, get(ctx, p.URL))
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.Address)
	if err != nil {
		return late(ctx, err)
	}
	return conn.Close()
}

// late puts the limit in the place of what it broke off.
func late(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v", Limit)
	}
	return err
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "flotilla-health")
	transport := &http.Transport{
		// The probe asks a unit on its own machine, sends no secret and trusts nothing
		// in the answer but its status; localhost is in no certificate.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}

func command(ctx context.Context, line, username string) error {
	words, err := unitfile.Words(line, unitfile.Lenient)
	if err != nil || len(words) == 0 {
		return fmt.Errorf("%q is no command: %v", line, err)
	}
	path, err := exec.LookPath(words[0])
	if err != nil {
		return fmt.Errorf("%s: %w", words[0], err)
	}
	cmd := exec.CommandContext(ctx, path, words[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := become(cmd, username); err != nil {
		return err
	}
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for whoever keeps its output open
	err = runAlone(cmd)
	if err != nil && out.line() != "" {
		return fmt.Errorf("%s: %w: %s", words[0], err, out.line())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", words[0], err)
	}
	return nil
}

// runAlone runs a command and kills what it leaves behind.
func runAlone(cmd *exec.Cmd) error {
	f := newFold()
	defer f.end()
	err := f.run(cmd)
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it has ended well, and something that it started has its output
	}
	return err
}

// become has the command run as a user, by name or number.
func become(cmd *exec.Cmd, username string) error {
	if username == "" {
		return nil
	}
	u, err := user.Lookup(username)
	if err != nil {
		u, err = user.LookupId(username)
	}
	if err != nil {
		return fmt.Errorf("health check as user %s: %w", username, err)
	}
	cmd.Env = append(cmd.Env, "HOME="+u.HomeDir, "USER="+u.Username)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("health check as user %s: %w", username, err)
	}
	if int(uid) != os.Geteuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: groupsOf(u)}
	}
	return nil
}

// groupsOf is the user's other groups; those that are no numbers it has not.
func groupsOf(u *user.User) []uint32 {
	ids, _ := u.GroupIds() // without them it has its own group alone
	var out []uint32
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			out = append(out, uint32(n))
		}
	}
	return out
}

// tail keeps the end of what a command prints.
type tail struct{ b []byte }

const tailSize = 512

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - tailSize; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

// line is the last line.
func (t *tail) line() string {
	lines := bytes.Split(bytes.TrimSpace(t.b), []byte("\n"))
	return strings.ToValidUTF8(strings.TrimSpace(string(lines[len(lines)-1])), "?")
}
