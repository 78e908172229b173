package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// HookLimit is how long one executable may take to make up its mind.
const HookLimit = time.Minute

// Hooks runs the executables of a directory in order of their names, with these
// variables added to the environment, and returns what the machine's owner has to say
// against it: for each that ends with a status other than 0 its name and the last line
// that it has printed. Without the directory there is nothing against it. Names that
// begin with a dot or end in ~ are left out, as are files that are not executable; one
// that others than its owner may write is not run, and counts as an objection.
func Hooks(ctx context.Context, dir string, env ...string) []string {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return []string{fmt.Sprintf("hooks: %v", err)}
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || strings.HasSuffix(e.Name(), "~") {
			continue
		}
		if why := hook(ctx, filepath.Join(dir, e.Name()), env); why != "" {
			out = append(out, e.Name()+": "+why)
		}
	}
	return out
}

// hook runs one file; "" it has nothing against it.
func hook(ctx context.Context, path string, env []string) string {
	info, err := os.Stat(path) // of what a link leads to
	switch {
	case err != nil:
		return err.Error()
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return ""
	case info.Mode().Perm()&0o022 != 0:
		return "others than its owner may write it, so it is not run"
	}
	ctx, cancel := context.WithTimeout(ctx, HookLimit)
	defer cancel()
	out, err := run(ctx, path, env)
	switch {
	case err == nil:
		return ""
	case ctx.Err() != nil:
		return fmt.Sprintf("it takes longer than %v", HookLimit)
	}
	if line := lastLine(out); line != "" {
		return line
	}
	return err.Error()
}

// run runs an executable and returns the end of what it prints. Whatever it has
// started ends with it.
func run(ctx context.Context, path string, env []string) (string, error) {
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// tail keeps the last bytes that were written.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const tailSize = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b.Write(p[max(0, len(p)-tailSize):])
	t.b.Next(max(0, t.b.Len()-tailSize))
	return len(p), nil
}

// String is what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

func lastLine(s string) string {
	s = strings.TrimSpace(strings.ToValidUTF8(s, "?"))
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	return strings.Join(strings.Fields(s), " ")
}
