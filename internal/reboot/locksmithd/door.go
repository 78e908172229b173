package locksmithd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"flotilla/client/keys"
	"flotilla/internal/fault"
	"flotilla/internal/lifecycle"
	"flotilla/internal/reboot/fleetlock"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
	"flotilla/internal/tlsfile"
)

// check says everything that is wrong with settings that are right by themselves.
func (c Config) check() error {
	_, _, err := c.window()
	problems := []error{err}
	if len(c.Endpoints) == 0 {
		problems = append(problems, about(errors.New("endpoint: none; without the setting it is "+strings.Join(Defaults().Endpoints, ",")), "endpoint"))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		problems = append(problems, about(errors.New("etcd_certfile and etcd_keyfile: one is of no use without the other"), "etcd_certfile", "etcd_keyfile"))
	}
	if c.Group == "." || c.Group == ".." {
		problems = append(problems, about(fmt.Errorf("group: %q cannot be the name of one", c.Group), "group"))
	}
	return errors.Join(append(problems, c.checkDoor())...)
}

func (c Config) serves() bool { return c.FleetLockListen != "" && c.FleetLockListen != "off" }

// checkDoor says whether FleetLock would be served to anybody who comes along.
func (c Config) checkDoor() error {
	if !c.serves() {
		return nil
	}
	host, _, err := net.SplitHostPort(c.FleetLockListen)
	if err != nil {
		return about(fmt.Errorf("fleetlock_listen: %w", err), "fleetlock_listen")
	}
	ip := net.ParseIP(host)
	loopback := host == "localhost" || ip != nil && ip.IsLoopback()
	switch {
	case (c.FleetLockCertFile == "") != (c.FleetLockKeyFile == ""):
		return about(errors.New("fleetlock_certfile and fleetlock_keyfile: one is of no use without the other"), "fleetlock_certfile", "fleetlock_keyfile")
	case c.FleetLockCAFile != "" && c.FleetLockCertFile == "":
		return about(errors.New("fleetlock_cafile: no use without fleetlock_certfile and fleetlock_keyfile"), "fleetlock_cafile")
	case c.FleetLockCAFile == "" && !loopback && !c.FleetLockInsecure:
		return about(fault.Hint(fmt.Errorf("fleetlock_listen: %s is not of the loopback interface, and there is no authority of the clients' certificates", c.FleetLockListen),
			"set fleetlock_certfile, fleetlock_keyfile and fleetlock_cafile; fleetlock_insecure serves whoever comes"), "fleetlock_listen")
	case c.FleetLockCAFile != "" && c.FleetLockInsecure:
		return about(errors.New("fleetlock_insecure: clients have to show certificates of fleetlock_cafile; one of the two is not meant"),
			"fleetlock_insecure", "fleetlock_cafile")
	}
	if c.FleetLockTimeout > sema.MaxTimeout {
		return about(fmt.Errorf("fleetlock_holder_timeout: %v is more than %v", c.FleetLockTimeout, sema.MaxTimeout), "fleetlock_holder_timeout")
	}
	return nil
}

// client is the way to the store; it connects with the first request.
func (c Config) client(log *slog.Logger) (*keys.Client, error) {
	conf, err := tlsfile.Files{
		CA:   tlsfile.File{Setting: "etcd_cafile", Path: c.CAFile},
		Cert: tlsfile.File{Setting: "etcd_certfile", Path: c.CertFile},
		Key:  tlsfile.File{Setting: "etcd_keyfile", Path: c.KeyFile},
		Log:  log,
	}.Client()
	if err != nil {
		return nil, err
	}
	return keys.New(keys.Config{Endpoints: c.Endpoints, Username: c.Username, Password: c.Password, TLS: conf})
}

// door is the FleetLock listener; none if it is off.
func (c Config) door(client *keys.Client, log *slog.Logger) ([]lifecycle.Part, error) {
	if !c.serves() {
		return nil, nil
	}
	conf, err := c.doorTLS(log)
	if err != nil {
		return nil, err
	}
	all := locks{
		open:   func(group string) (fleetlock.Locker, error) { return lock.New(client, group) },
		groups: func(ctx context.Context) ([]string, error) { return lock.Groups(ctx, client) },
	}
	handler := fleetlock.New(fleetlock.Config{Open: all.open, Timeout: c.FleetLockTimeout, Log: log})
	began := time.Now()
	w := warden{machine: c.MachineID, now: func() time.Duration { return time.Since(began) }, log: log}
	return []lifecycle.Part{{Name: "fleetlock", Run: func(ctx context.Context, ready func()) error {
		return serve(ctx, ready, c.FleetLockListen, conf, handler, log)
	}}, {Name: "fleetlock observer", Run: func(ctx context.Context, ready func()) error {
		ready()
		return w.observeGroups(ctx, all, c.HolderTimeout, func(group string) bool { return group == c.Group && c.observes() })
	}}}, nil
}

// doorTLS is how the listener is secured; nil: not at all.
func (c Config) doorTLS(log *slog.Logger) (*tls.Config, error) {
	return tlsfile.Files{
		CA:   tlsfile.File{Setting: "fleetlock_cafile", Path: c.FleetLockCAFile},
		Cert: tlsfile.File{Setting: "fleetlock_certfile", Path: c.FleetLockCertFile},
		Key:  tlsfile.File{Setting: "fleetlock_keyfile", Path: c.FleetLockKeyFile},
		Log:  log,
	}.Server()
}

// serve serves until ctx is done.
func serve(ctx context.Context, ready func(), address string, conf *tls.Config, handler http.Handler, log *slog.Logger) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for FleetLock: %w", err)
	}
	if conf != nil {
		ln = tls.NewListener(ln, conf)
	}
	server := newServer(handler, log)
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	log.Info("serves FleetLock", "at", ln.Addr().String(), "tls", conf != nil)
	ready()
	select {
	case err := <-ended:
		return fmt.Errorf("serve FleetLock: %w", err)
	case <-ctx.Done():
	}
	limited, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := server.Shutdown(limited); err != nil {
		server.Close()
	}
	return nil
}

// newServer is a server that no client holds up: neither one that sends or reads a byte
// now and then, nor one that stays without asking.
func newServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      90 * time.Second, // from the header on: the body, the store, the answer
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn), // handshakes that fail
	}
}
