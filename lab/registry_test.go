package lab

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// The images that the talks' units pull, at a registry of the lab's own: no other can be
// reached there. Each is busybox with another command: what is tried is the unit, not
// what is in its container.
var images = map[string][]string{
	"library/busybox":       {"/bin/sh"},
	"library/nginx":         {"/bin/web", "80"},
	"marceldegraaf/sinatra": {"/bin/sh", "-c", "exec /bin/web $PORT"},
	"google/cadvisor":       {"/bin/web", "8080"},
	"coreos/apache":         {"/bin/sh"},
}

// extras are what the images have beside busybox.
var extras = map[string]string{
	"www/index.html": "it works\n",
	// A PID 1 that has no handler for SIGTERM does not hear it.
	"bin/web":             "#!/bin/sh\ntrap 'exit 0' TERM\nhttpd -f -p $1 -h /www &\nwait\n",
	"usr/sbin/apache2ctl": "#!/bin/sh\nexec /bin/web 80\n",
}

// registryPort is on the lab's own end of the machines' network.
const registryPort = "5000"

// registry speaks as much of the registry's HTTP API, version 2, as "docker pull" asks
// for: manifests by name or digest, and blobs.
type registry struct {
	blobs     map[string][]byte // by digest
	manifests map[string][]byte // by NAME:latest and NAME@DIGEST
}

const (
	typeManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeConfig   = "application/vnd.docker.container.image.v1+json"
	typeLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// descriptor names a blob.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Size      int    `json:"size"`
	Digest    string `json:"digest"`
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func (r *registry) keep(mediaType string, b []byte) descriptor {
	d := digest(b)
	r.blobs[d] = b
	return descriptor{mediaType, len(b), d}
}

// newRegistry makes the images of the file system in busybox, a tar.
func newRegistry(busybox []byte) (*registry, error) {
	r := &registry{blobs: map[string][]byte{}, manifests: map[string][]byte{}}
	more, err := archive(extras)
	if err != nil {
		return nil, err
	}
	var layers []descriptor
	var diffs []string
	for _, layer := range [][]byte{busybox, more} {
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // a level that exists
		z.Write(layer)                                  // into memory
		z.Close()
		layers = append(layers, r.keep(typeLayer, b.Bytes()))
		diffs = append(diffs, digest(layer))
	}
	for name, command := range images {
		config, err := json.Marshal(map[string]any{
			"architecture": runtime.GOARCH, "os": "linux",
			"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
			// "docker stop" would wait its ten seconds for the talks' shell loops.
			"config": map[string]any{"Cmd": command, "Env": []string{"PATH=/usr/sbin:/bin"}, "StopSignal": "SIGKILL"},
		})
		if err != nil {
			return nil, err
		}
		manifest, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": typeManifest, "config": r.keep(typeConfig, config), "layers": layers,
		})
		if err != nil {
			return nil, err
		}
		r.manifests[name+":latest"] = manifest
		r.manifests[name+":"+digest(manifest)] = manifest
	}
	return r, nil
}

// archive makes a tar of programs.
func archive(files map[string]string) ([]byte, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for name, text := range files {
		if err := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(text))}); err != nil {
			return nil, err
		}
		if _, err := t.Write([]byte(text)); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), t.Close()
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := strings.TrimPrefix(req.URL.Path, "/v2/")
	kind, body := "application/json", []byte("{}")
	ok := path == ""
	if name, ref, found := strings.Cut(path, "/manifests/"); found {
		body, ok = r.manifests[name+":"+ref]
		kind = typeManifest
	} else if _, d, found := strings.Cut(path, "/blobs/"); found {
		body, ok = r.blobs[d]
		kind = "application/octet-stream"
	}
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.Header().Set("Docker-Content-Digest", digest(body))
	if req.Method != http.MethodHead {
		w.Write(body)
	}
}

// withRegistry serves the images until the end of the test, and tells every machine's
// Docker to ask there for what it would ask Docker Hub for.
func (c *cluster) withRegistry() {
	c.Helper()
	first := c.names()[0]
	r, err := newRegistry([]byte(c.on(first, "cat", "/usr/share/flotilla-lab/busybox.tar")))
	if err != nil {
		c.Fatal(err)
	}
	l, err := listenInLab(registryPort)
	if err != nil {
		c.Fatal(err)
	}
	server := &http.Server{Handler: r}
	go server.Serve(l) // ends with the listener
	c.Cleanup(func() { server.Close() })
	mirror := fmt.Sprintf("{\"registry-mirrors\":[\"http://%s\"]}\n", l.Addr())
	for _, m := range c.names() {
		if err := lab.WriteFile(m, "/etc/docker/daemon.json", []byte(mirror), 0o644); err != nil {
			c.Fatal(err)
		}
		c.on(m, "systemctl", "reload", "docker")
	}
}

// listenInLab listens on the lab's end of the machines' network.
func listenInLab(port string) (l net.Listener, err error) {
	err = inLab(func() error {
		var err error
		l, err = net.Listen("tcp", "10.10.1.254:"+port)
		return err
	})
	return l, err
}

// What a registry hands out is what its digests say.
func TestRegistry(t *testing.T) {
	r, err := newRegistry([]byte("not a tar, for all that the registry knows"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range r.manifests {
		var m struct {
			Config descriptor
			Layers []descriptor
		}
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		for _, d := range append(m.Layers, m.Config) {
			if got := r.blobs[d.Digest]; digest(got) != d.Digest || len(got) != d.Size {
				t.Errorf("%s: blob %s is %d bytes of %s", name, d.Digest, len(got), digest(got))
			}
		}
	}
}
