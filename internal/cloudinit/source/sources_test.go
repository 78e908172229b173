package source

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what testdata expects anew")

// quick does not wait where a failure is what is tested.
var quick = Fetcher{Tries: 2, Pause: time.Millisecond}

// makers make the source of each kind of testdata; at is the base URL of the service, or
// the directory, that has the files of the archive.
var makers = map[string]struct {
	service bool
	make    func(at string) Source
}{
	"ec2":          {true, func(at string) Source { return EC2(at, quick) }},
	"gce":          {true, func(at string) Source { return GCE(at, quick) }},
	"digitalocean": {true, func(at string) Source { return DigitalOcean(at, quick) }},
	"packet":       {true, func(at string) Source { return Packet(at, quick) }},
	"url":          {true, func(at string) Source { return URL(at+"/doc", quick) }},
	"file":         {false, func(at string) Source { return File(filepath.Join(at, "user_data")) }},
	"configdrive":  {false, func(at string) Source { return ConfigDrive(filepath.Join(at, "drive")) }},
	"waagent":      {false, func(at string) Source { return WAAgent(at) }},
	"ovf":          {false, func(at string) Source { return OVFEnv(filepath.Join(at, "ovf-env.xml"), quick) }},
}

// Each file of testdata is a source and what comes of it: KIND-WHAT.txtar has the
// vendor's documents by path, and in "want" what the source says. Lines of its comment
// may change how the service answers: see imitation.
func TestSources(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			documents, want := split(a)
			kind, _, _ := strings.Cut(name, "-")
			m := makers[kind]
			var at string
			if m.service {
				srv := httptest.NewServer(imitation(string(a.Comment), documents))
				defer srv.Close()
				at = srv.URL
			} else {
				at = lay(t, documents)
			}
			got := strings.ReplaceAll(describe(t, m.make(at)), at, "AT")
			if *update {
				a.Files = append(a.Files[:len(a.Files):len(a.Files)], txtar.File{Name: "want", Data: []byte(got)})
				a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return f.Name == "want" && string(f.Data) != got })
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func split(a *txtar.Archive) (documents map[string][]byte, want string) {
	documents = make(map[string][]byte)
	for _, f := range a.Files {
		if f.Name == "want" {
			want = string(f.Data)
		} else {
			documents[f.Name] = f.Data
		}
	}
	return documents, want
}

// lay puts documents into a directory. A name that ends with a slash is a directory.
func lay(t *testing.T, documents map[string][]byte) string {
	dir := t.TempDir()
	for name, data := range documents {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// imitation is a vendor's metadata service with these documents. Lines of the comment
// that begin with "answers" or "wants" say how it differs from a plain one:
//
//	answers STATUS PATH
//	wants HEADER: VALUE     in every request, else it answers 401
//
// Below latest/api/token lies the token that a PUT gets.
func imitation(comment string, documents map[string][]byte) http.HandlerFunc {
	status := make(map[string]int)
	wants := make(map[string]string)
	for line := range strings.Lines(comment) {
		var code int
		var path, header, value string
		if n, _ := fmt.Sscanf(line, "answers %d %s", &code, &path); n == 2 {
			status[path] = code
		} else if n, _ := fmt.Sscanf(line, "wants %s %s", &header, &value); n == 2 {
			wants[strings.TrimSuffix(header, ":")] = value
		}
	}
	return func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/")
		document, ok := documents[path]
		token := path == ec2TokenPath
		for name, value := range wants {
			if !token && r.Header.Get(name) != value {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
		switch {
		case status[path] != 0:
			w.WriteHeader(status[path])
		case !ok && !isFolder(path, documents):
			w.WriteHeader(http.StatusNotFound)
		case token && (r.Method != http.MethodPut || r.Header.Get(ec2TTLHeader) == ""):
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
		w.Write(document)
	}
}

// isFolder says whether documents lie below the path: services list those.
func isFolder(path string, documents map[string][]byte) bool {
	for name := range documents {
		if strings.HasSuffix(path, "/") && strings.HasPrefix(name, path) {
			return true
		}
	}
	return false
}

// describe is everything that a source says.
func describe(t *testing.T, s Source) string {
	var b strings.Builder
	fmt.Fprintf(&b, "type: %s\n", s.Type())
	if err := s.Available(t.Context()); err != nil {
		fmt.Fprintf(&b, "not available: %v\n", err)
	}
	if data, err := s.UserData(t.Context()); err != nil {
		fmt.Fprintf(&b, "user data: error: %v\n", err)
	} else {
		fmt.Fprintf(&b, "user data: %.200q\n", data)
	}
	m, err := s.Metadata(t.Context())
	if err != nil {
		fmt.Fprintf(&b, "metadata: error: %v\n", err)
		return b.String()
	}
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	line("hostname", m.Hostname)
	for _, name := range slices.Sorted(maps.Keys(m.SSHKeys)) {
		line("key "+name, m.SSHKeys[name])
	}
	line("public ipv4", m.PublicIPv4)
	line("private ipv4", m.PrivateIPv4)
	line("public ipv6", m.PublicIPv6)
	line("private ipv6", m.PrivateIPv6)
	if len(m.NetworkConfig) > 0 {
		fmt.Fprintf(&b, "network: %d bytes\n", len(m.NetworkConfig))
	}
	return b.String()
}

func TestFileBounds(t *testing.T) {
	if _, err := File("/dev/zero").UserData(t.Context()); err == nil || !strings.Contains(err.Error(), "more than 16777216 bytes") {
		t.Errorf("an endless file: %v", err)
	}
}

// A pipe that nobody writes to holds up nobody who wants to leave.
func TestPipeEndsWithItsContext(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := File(pipe).UserData(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it ends with %v", err)
	}
	w, err := os.OpenFile(pipe, os.O_RDWR, 0) // lets the reader go
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
}

// A config drive is read alone: neither a link nor dots lead out of it.
func TestConfigDriveHoldsTight(t *testing.T) {
	dir := t.TempDir()
	latest := filepath.Join(dir, "drive", "openstack", "latest")
	if err := os.MkdirAll(latest, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(latest, "user_data")); err != nil {
		t.Fatal(err)
	}
	meta := `{"network_config": {"content_path": "../../secret"}}`
	if err := os.WriteFile(filepath.Join(latest, "meta_data.json"), []byte(meta), 0o600); err != nil {
		t.Fatal(err)
	}
	d := ConfigDrive(filepath.Join(dir, "drive"))
	if data, err := d.UserData(t.Context()); err == nil {
		t.Errorf("a link out of the drive was followed: %q", data)
	}
	if m, err := d.Metadata(t.Context()); err == nil {
		t.Errorf("dots led out of the drive: %q", m.NetworkConfig)
	}
}

func TestProcCmdline(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "#cloud-config\n") }))
	defer srv.Close()
	for _, c := range []struct{ line, want, err string }{
		{line: "quiet cloud-config-url=" + srv.URL, want: "#cloud-config\n"},
		{line: "cloud-config-url=http://127.0.0.1:1/ cloud_config_url=" + srv.URL + " rw\n", want: "#cloud-config\n"},
		{line: `a="b cloud-config-url=http://127.0.0.1:1/ c" cloud-config-url="` + srv.URL + `"`, want: "#cloud-config\n"},
		{line: "quiet splash", err: "has no cloud-config-url="},
		{line: "cloud-config-url", err: "has no cloud-config-url="},
		{line: "cloud-config-url=/etc/x", err: `"/etc/x" is no http or https URL`},
		{line: "cloud-config-url=file:///etc/x", err: "only http and https are fetched"},
	} {
		path := filepath.Join(t.TempDir(), "cmdline")
		if err := os.WriteFile(path, []byte(c.line), 0o600); err != nil {
			t.Fatal(err)
		}
		s := ProcCmdline(path, quick)
		err := s.Available(t.Context())
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: available: %v, want %q", c.line, err, c.err)
		}
		if data, _ := s.UserData(t.Context()); string(data) != c.want {
			t.Errorf("%s: got %q, want %q", c.line, data, c.want)
		}
	}
}

func FuzzCmdline(f *testing.F) {
	f.Add(`root=/dev/vda1 cloud-config-url=http://example.org/ "cloud_config_url=x y"`)
	f.Fuzz(func(t *testing.T, line string) {
		if url, ok := cmdlineURL(line); !ok && url != "" || ok && !strings.Contains(line, url) {
			t.Errorf("%q %v", url, ok)
		}
	})
}

func FuzzOVF(f *testing.F) {
	f.Add([]byte(`<Environment><PropertySection><Property key="a" value="b"/></PropertySection></Environment>`))
	f.Fuzz(func(_ *testing.T, raw []byte) { ovfProperties(raw) })
}

func FuzzSharedConfig(f *testing.F) {
	f.Add([]byte(`<SharedConfig><Incarnation instance="a"/><Instances><Instance id="a" address="192.0.2.1"/></Instances></SharedConfig>`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if m, err := sharedConfig(raw); err == nil {
			addresses(t, m)
		}
	})
}

// addresses checks that what is given as an address is one.
func addresses(t *testing.T, m Metadata) {
	for _, a := range []string{m.PublicIPv4, m.PrivateIPv4, m.PublicIPv6, m.PrivateIPv6} {
		if _, err := checkAddress("fuzz", a); err != nil {
			t.Error(err)
		}
	}
}
