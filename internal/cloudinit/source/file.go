package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"flotilla/internal/fault"
)

// File is a document in a file of this machine. It is available once the file exists.
func File(path string) Source { return file{path} }

type file struct{ path string }

func (f file) Name() string { return f.path }
func (f file) Type() string { return "local-file" }

func (f file) Available(context.Context) error {
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Hint(fmt.Errorf("%s does not exist", f.path), "is the path right?")
	case err != nil:
		return err
	case info.IsDir():
		return never{fmt.Errorf("%s is a directory", f.path)}
	}
	return nil
}

// UserData waits for as long as nobody writes to a pipe, and for ctx no longer.
func (f file) UserData(ctx context.Context) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := readFile(f.path)
		done <- result{data, err}
	}()
	select {
	case r := <-done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("read %s: %w", f.path, context.Cause(ctx))
	}
}

func (f file) Metadata(context.Context) (Metadata, error) { return Metadata{}, nil }

// readFile reads a file of at most MaxSize bytes. It works for pipes too.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readAtMost(f, MaxSize)
	if _, named := errors.AsType[*fs.PathError](err); err != nil && !named {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, err
}

// readIfThere is readFile for files that may be missing: no bytes then.
func readIfThere(path string) ([]byte, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
