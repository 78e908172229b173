package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"flotilla/internal/fault"
)

// ProcCmdline is a document at the URL that the kernel's command line names, read from
// path (/proc/cmdline). A machine started without the word never gets it, so then the
// source is not waited for.
func ProcCmdline(path string, f Fetcher) Source {
	f.Proxied = true
	return cmdline{path, f}
}

type cmdline struct {
	path  string
	fetch Fetcher
}

func (c cmdline) Name() string { return c.path }
func (c cmdline) Type() string { return "proc-cmdline" }

func (c cmdline) Available(context.Context) error {
	if _, err := c.url(); err != nil {
		return never{err}
	}
	return nil
}

func (c cmdline) UserData(ctx context.Context) ([]byte, error) {
	address, err := c.url()
	if err != nil {
		return nil, err
	}
	return c.fetch.Get(ctx, address, nil)
}

func (c cmdline) Metadata(context.Context) (Metadata, error) { return Metadata{}, nil }

func (c cmdline) url() (string, error) {
	text, err := readFile(c.path)
	if err != nil {
		return "", err
	}
	address, ok := cmdlineURL(string(text))
	if !ok {
		return "", fault.Hint(errors.New("the kernel's command line has no cloud-config-url="), "add cloud-config-url=URL in the boot loader")
	}
	if err := checkURL(address); err != nil {
		return "", fmt.Errorf("cloud-config-url= on the kernel's command line: %w", err)
	}
	return address, nil
}

// cmdlineURL is the value of the last cloud-config-url= of a command line. Dashes and
// underscores are the same there, and double quotes hold blanks together, as for the
// kernel.
func cmdlineURL(line string) (address string, ok bool) {
	quoted := false
	for _, word := range strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && unicode.IsSpace(r)
	}) {
		name, value, isSet := strings.Cut(strings.Trim(word, `"`), "=")
		if isSet && strings.ReplaceAll(name, "_", "-") == "cloud-config-url" {
			address, ok = strings.Trim(value, `"`), true
		}
	}
	return address, ok
}
