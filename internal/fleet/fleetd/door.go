package fleetd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"sync/atomic"

	"flotilla/internal/fault"
	"flotilla/internal/fleet/access"
	"flotilla/internal/tlsfile"
)

// door is where the HTTP API listens, and who is let in there: on unix sockets by
// the owner of the process at the other end, over TCP by certificate.
type door struct {
	fallback access.Role // of certificates that name no role; "" none
	log      *slog.Logger
	config   atomic.Pointer[tls.Config] // nil: TCP has no TLS
}

func newDoor(c Config, log *slog.Logger) (*door, error) {
	d := &door{fallback: access.Role(c.ClientDefaultRole), log: log}
	return d, d.load(c)
}

// load reads the certificates at once, so that whoever asks for it hears what is wrong
// with them; those in use stay then. Files that are replaced are read without it.
func (d *door) load(c Config) error {
	if c.APICertFile == "" && c.APIKeyFile == "" && c.APICAFile == "" {
		return nil
	}
	if c.APICertFile == "" || c.APIKeyFile == "" || c.APICAFile == "" {
		return fault.Hint(errors.New("API over TLS: api_certfile, api_keyfile and api_cafile go together"),
			"api_cafile is the authority that clients' certificates are made with; whoever has one is let in, so it is the cluster's own")
	}
	config, err := tlsfile.Files{
		CA:   tlsfile.File{Setting: "api_cafile", Path: c.APICAFile},
		Cert: tlsfile.File{Setting: "api_certfile", Path: c.APICertFile},
		Key:  tlsfile.File{Setting: "api_keyfile", Path: c.APIKeyFile},
		Log:  d.log,
	}.Server()
	if err != nil {
		return err
	}
	d.config.Store(config)
	return nil
}

// listen returns the API's listeners: those that systemd passed, else the unix
// socket, and api_listen. Close what it returns also after an error.
func (d *door) listen(c Config, passed []net.Listener) ([]net.Listener, error) {
	var out []net.Listener
	for _, ln := range passed {
		ready, err := d.guard(ln, c.APIPlainLoopback)
		if err != nil {
			d.log.Error("socket passed by systemd is not served", "address", ln.Addr().String(), "err", err)
			ln.Close()
			continue
		}
		out = append(out, ready)
	}
	if len(passed) > 0 && len(out) == 0 {
		return out, fault.Hint(errors.New("none of the sockets that systemd passed can be served"),
			"let fleet.socket listen on /run/fleet.sock, and reach other machines with 'fleetctl --tunnel' or with certificates (api_listen)")
	}
	if len(passed) == 0 {
		ln, err := listenUnix(c.APISocket)
		if err != nil {
			return out, err
		}
		out = append(out, ln)
	}
	if c.APIListen == "" || c.APIListen == "off" {
		return out, nil
	}
	ln, err := net.Listen("tcp", c.APIListen)
	if err != nil {
		return out, fault.Hint(fmt.Errorf("api_listen: %w", err), "set api_listen to a free address, or to off")
	}
	ready, err := d.guard(ln, c.APIPlainLoopback)
	if err != nil {
		ln.Close()
		return out, fmt.Errorf("api_listen %s: %w", ln.Addr(), err)
	}
	return append(out, ready), nil
}

// guard has a listener let in whoever can be told: over TCP that takes TLS.
func (d *door) guard(ln net.Listener, plainLoopback bool) (net.Listener, error) {
	addr, overTCP := ln.Addr().(*net.TCPAddr)
	switch {
	case !overTCP:
		return ln, nil
	case d.config.Load() != nil:
		return tls.NewListener(ln, &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				return d.config.Load().GetConfigForClient(hello)
			},
		}), nil
	case plainLoopback && addr.IP.IsLoopback():
		return ln, nil
	}
	err := errors.New("over TCP the API is served to client certificates alone, and there are none")
	if addr.IP.IsLoopback() {
		return nil, fault.Hint(err, "set api_certfile, api_keyfile and api_cafile; or api_plain_loopback, which makes an admin of every user and program of this machine")
	}
	return nil, fault.Hint(err, "set api_certfile, api_keyfile and api_cafile")
}

type callerKey struct{}

// caller is who holds a connection, if the connection says so.
type caller struct {
	who access.Who
	err error
}

// greet finds out who holds a connection that has come in. It is http.Server's
// ConnContext.
func (d *door) greet(ctx context.Context, conn net.Conn) context.Context {
	var c caller
	switch conn := conn.(type) {
	case *tls.Conn:
		return ctx // the handshake is still to come: see who
	case *net.UnixConn:
		c.who, c.err = owner(conn)
	default:
		c.who = access.Who{Name: "somebody", Role: access.Admin, From: "this machine, without a certificate"}
	}
	return context.WithValue(ctx, callerKey{}, c)
}

// who is unitshttp's Deps.Who.
func (d *door) who(r *http.Request) (access.Who, error) {
	if c, ok := r.Context().Value(callerKey{}).(caller); ok {
		return c.who, c.err
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return access.Who{}, errors.New("the connection does not tell who is at its other end")
	}
	subject := r.TLS.VerifiedChains[0][0].Subject
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	return access.Certified(access.Subject{
		CommonName: subject.CommonName, Organization: subject.Organization, OrganizationalUnit: subject.OrganizationalUnit,
	}, d.fallback, from)
}

// fleetGroup is the group whose members may use the API.
const fleetGroup = "fleet"

// groupID is that group's id; negative where there is none.
func groupID() int {
	g, err := user.LookupGroup(fleetGroup)
	if err != nil {
		return -1
	}
	id, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return id
}

// owner asks the kernel who is at the other end of a unix socket.
func owner(conn *net.UnixConn) (access.Who, error) {
	p, err := peerOf(conn)
	if err != nil {
		return access.Who{}, fmt.Errorf("who is at the other end of the API's socket: %w", err)
	}
	if u, err := user.LookupId(strconv.Itoa(p.UID)); err == nil {
		p.User = u.Username
	}
	return access.Local(p, os.Geteuid(), groupID())
}
