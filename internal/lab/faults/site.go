package faults

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/lab/machines"
)

// site is the machines that are broken: how to reach the store on them.
type site struct {
	lab      *machines.Lab
	machines []machines.Machine
	tls      *tls.Config // a client's of the store
	disks    map[string]loopDisk
}

// openSite looks at a lab whose machines all run a member of the store.
func openSite(ctx context.Context, lab *machines.Lab) (*site, error) {
	ms, err := lab.Machines()
	if err != nil {
		return nil, err
	}
	s := &site{lab: lab, machines: ms, disks: map[string]loopDisk{}}
	var files [3]string
	for i, name := range []string{"ca.pem", "machine.pem", "machine-key.pem"} {
		if files[i], err = lab.Output(ctx, ms[0].Name, "cat", "/etc/etcd/"+name); err != nil {
			return nil, fmt.Errorf("read the certificates of %s: %w", ms[0].Name, err)
		}
	}
	cert, err := tls.X509KeyPair([]byte(files[1]), []byte(files[2]))
	if err != nil {
		return nil, fmt.Errorf("read the certificates of %s: %w", ms[0].Name, err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(files[0]))
	s.tls = &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}
	return s, nil
}

// here is the member as a client on its own machine sees it: a cable that is out is
// no matter.
func (s *site) here(m machines.Machine) Member {
	return Member{Name: m.Name, URL: "http://127.0.0.1:2379", HTTP: httpIn(s.lab.NamespaceFile(m.Name), nil)}
}

// there is the member as a client sees it that is no machine of the cluster.
func (s *site) there(m machines.Machine) Member {
	namespace := filepath.Join("/run/netns", s.lab.Namespace())
	return Member{Name: m.Name + " (remote)", URL: "https://" + m.Address + ":2379", HTTP: httpIn(namespace, s.tls)}
}

func (s *site) allThere() []Member {
	var out []Member
	for _, m := range s.machines {
		out = append(out, s.there(m))
	}
	return out
}

// leader returns the number of the machine whose member leads, as the first member
// says that answers; -1 if none does.
func (s *site) leader(ctx context.Context) int {
	for _, m := range s.machines {
		if name := s.leaderAt(ctx, m); name != "" {
			return slices.IndexFunc(s.machines, func(m machines.Machine) bool { return m.Name == name })
		}
	}
	return -1
}

func (s *site) leaderAt(ctx context.Context, m machines.Machine) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	at := s.here(m)
	defer at.HTTP.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.URL+"/v2/members/leader", nil)
	if err != nil {
		return ""
	}
	resp, err := at.HTTP.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var member struct {
		Name string `json:"name"`
	}
	if json.NewDecoder(resp.Body).Decode(&member) != nil {
		return ""
	}
	return member.Name
}

// httpIn makes connections from within a network namespace.
func httpIn(namespace string, tls *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialIn(ctx, namespace, network, address)
		},
		TLSClientConfig:     tls,
		TLSHandshakeTimeout: requestLimit,
		MaxIdleConnsPerHost: 1,
	}}
}

// dialIn connects from within a network namespace. A namespace is entered by a thread;
// the one that has been there is not used again and ends with its goroutine.
func dialIn(ctx context.Context, namespace, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		if err := enter(namespace); err != nil {
			done <- result{nil, &net.OpError{Op: "dial", Net: network, Err: err}}
			return
		}
		// Addresses are numbers: the socket is made in this goroutine.
		d := net.Dialer{Timeout: requestLimit, FallbackDelay: -1}
		conn, err := d.DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

func enter(namespace string) error {
	fd, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the network namespace %s: %w", namespace, err)
	}
	err = unix.Setns(fd, unix.CLONE_NEWNET)
	return errors.Join(err, unix.Close(fd))
}
