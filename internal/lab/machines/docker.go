package machines

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	// imageFile is where a machine finds the busybox image; Docker imports it when
	// it starts, so the image is there before any unit that comes after Docker.
	imageFile = "/usr/share/flotilla-lab/busybox.tar"

	// The hierarchies that Docker makes cgroups in. systemd-nspawn mounts those of
	// version 1 read-only; with version 2 they are not mounts and nothing is done.
	dockerDropIn = `[Service]
ExecStartPre=-/bin/sh -c 'for c in cpu cpuacct cpuset memory pids blkio freezer devices; do mount -o remount,bind,rw /sys/fs/cgroup/$$c 2>/dev/null; done; true'
`
	imageDropIn = `[Service]
ExecStartPost=-/bin/sh -c 'docker image inspect busybox >/dev/null 2>&1 || docker import ` + imageFile + ` busybox'
`
)

// dockerUnit returns the distribution's docker.service, "" if Docker is not
// installed.
func dockerUnit() string {
	if _, err := lookPath("dockerd"); err != nil {
		return ""
	}
	for _, dir := range []string{"/usr/lib/systemd/system", "/lib/systemd/system"} {
		path := filepath.Join(dir, "docker.service")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// dockerFiles are the drop-ins that make Docker run inside a machine; none where it
// is not installed.
func dockerFiles(host Host) map[string]string {
	if host.Docker == "" {
		return nil
	}
	return map[string]string{"/etc/systemd/system/docker.service.d/10-cgroups.conf": dockerDropIn}
}

// imageFiles are the busybox image and the drop-in that imports it. The error says
// why there is no image; a lab without it is still a lab.
func imageFiles(host Host) (map[string]string, error) {
	if host.Docker == "" {
		return nil, errors.New("no Docker here (package docker.io): units that run containers cannot start")
	}
	path, err := lookPath("busybox")
	if err != nil {
		return nil, errors.New("no busybox here (package busybox-static): machines have Docker, but no busybox image")
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("make the busybox image: %w", err)
	}
	if !static(binary) {
		return nil, fmt.Errorf("%s needs shared libraries (package busybox-static has one that does not): machines have Docker, but no busybox image", path)
	}
	var image bytes.Buffer
	if err := writeImage(&image, binary); err != nil {
		return nil, fmt.Errorf("make the busybox image: %w", err)
	}
	return map[string]string{
		imageFile: image.String(),
		"/etc/systemd/system/docker.service.d/20-image.conf": imageDropIn,
	}, nil
}

// static reports whether the program runs without a dynamic linker.
func static(binary []byte) bool {
	f, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return false
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// writeImage writes a file system for "docker import": busybox and links for the
// commands of the examples.
func writeImage(w io.Writer, busybox []byte) error {
	t := tar.NewWriter(w)
	headers := []tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(busybox))},
	}
	for _, name := range []string{"sh", "sleep", "echo", "cat", "date", "env", "hostname", "httpd", "ls", "nc", "ps", "true", "wget"} {
		headers = append(headers, tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
	}
	for _, h := range headers {
		if err := t.WriteHeader(&h); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := t.Write(busybox); err != nil {
				return err
			}
		}
	}
	return t.Close()
}
