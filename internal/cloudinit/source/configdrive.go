package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"flotilla/internal/fault"
)

// ConfigDrive is an OpenStack config drive (label config-2) mounted at dir. Each of
// its files may be missing.
func ConfigDrive(dir string) Source { return drive{dir} }

type drive struct{ dir string }

func (d drive) Name() string { return d.dir }
func (d drive) Type() string { return "cloud-drive" }

// Files of a config drive. Network descriptions lie beside latest/.
const (
	driveUserData = "openstack/latest/user_data"
	driveMetadata = "openstack/latest/meta_data.json"
	driveContent  = "openstack"
)

func (d drive) Available(context.Context) error {
	info, err := os.Stat(d.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Hint(fmt.Errorf("%s does not exist", d.dir), "is the drive attached, and mounted there?")
	case err != nil:
		return err
	case !info.IsDir():
		return never{fault.Hint(fmt.Errorf("%s is no directory", d.dir), "name the directory that the drive is mounted at")}
	}
	return nil
}

func (d drive) UserData(context.Context) ([]byte, error) { return d.read(driveUserData) }

func (d drive) Metadata(context.Context) (Metadata, error) {
	raw, err := d.read(driveMetadata)
	if err != nil || len(raw) == 0 {
		return Metadata{}, err
	}
	var said struct {
		Hostname   string            `json:"hostname"`
		PublicKeys map[string]string `json:"public_keys"`
		Network    struct {
			ContentPath string `json:"content_path"`
		} `json:"network_config"`
	}
	if err := decodeJSON(path.Join(d.dir, driveMetadata), raw, &said); err != nil {
		return Metadata{}, err
	}
	m := Metadata{Hostname: said.Hostname, SSHKeys: said.PublicKeys}
	if p := said.Network.ContentPath; p != "" {
		m.NetworkConfig, err = d.read(path.Join(driveContent, p))
		if err == nil && m.NetworkConfig == nil {
			err = fmt.Errorf("%s names the network description %q, and the drive has no such file", path.Join(d.dir, driveMetadata), p)
		}
	}
	return m, err
}

// read reads a file of the drive and nothing outside of it, whatever links or dots the
// path has. A missing file is no bytes.
func (d drive) read(name string) ([]byte, error) {
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("config drive %s: %w", d.dir, err)
	}
	defer f.Close()
	data, err := readAtMost(f, MaxSize)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path.Join(d.dir, name), err)
	}
	return data, nil
}

// decodeJSON says where a text from somewhere stops being JSON of the form wanted.
func decodeJSON(where string, raw []byte, to any) error {
	err := json.Unmarshal(raw, to)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("%s: line %d: no JSON: %w", where, lineAt(raw, syntax.Offset), err)
	case errors.As(err, &kind):
		return fmt.Errorf("%s: line %d: %s is a %s", where, lineAt(raw, kind.Offset), kind.Field, kind.Value)
	case err != nil:
		return fmt.Errorf("%s: %w", where, err)
	}
	return nil
}

func lineAt(raw []byte, offset int64) int {
	return 1 + strings.Count(string(raw[:min(offset, int64(len(raw)))]), "\n")
}
