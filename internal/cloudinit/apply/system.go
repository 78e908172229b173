package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Commander runs programs of the machine.
type Commander interface {
	// Run runs a program to its end and returns what it prints on stdout. The error
	// holds what it prints on stderr.
	Run(ctx context.Context, stdin, name string, args ...string) (string, error)
}

// Programs is the Commander that runs them.
type Programs struct{}

// Run implements Commander. A program that $PATH does not have is looked for in
// /usr/sbin, which the paths of ordinary users leave out.
func (Programs) Run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	file, err := exec.LookPath(name)
	if err != nil {
		file = filepath.Join("/usr/sbin", name)
	}
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if ctx.Err() != nil {
		return out.String(), ctx.Err()
	}
	if err == nil {
		return out.String(), nil
	}
	said := strings.TrimSpace(errs.String())
	if said == "" {
		return out.String(), fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return out.String(), errors.New(strings.ReplaceAll(said, "\n", "; "))
}

var _ Commander = Programs{}
