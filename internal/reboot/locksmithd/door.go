package locksmithd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"flotilla/client/keys"
	"flotilla/internal/fault"
	"flotilla/internal/lifecycle"
	"flotilla/internal/reboot/fleetlock"
	"flotilla/internal/reboot/lock"
)

// check says everything that is wrong with settings that are right by themselves.
func (c Config) check() error {
	_, _, err := c.window()
	problems := []error{err}
	if (c.CertFile == "") != (c.KeyFile == "") {
		problems = append(problems, errors.New("etcd_certfile and etcd_keyfile: one is of no use without the other"))
	}
	if c.Group == "." || c.Group == ".." {
		problems = append(problems, fmt.Errorf("group: %q cannot be the name of one", c.Group))
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
		return fmt.Errorf("fleetlock_listen: %w", err)
	}
	withTLS := c.FleetLockCertFile != "" || c.FleetLockKeyFile != "" || c.FleetLockCAFile != ""
	ip := net.ParseIP(host)
	loopback := host == "localhost" || ip != nil && ip.IsLoopback()
	switch {
	case withTLS && (c.FleetLockCertFile == "" || c.FleetLockKeyFile == "" || c.FleetLockCAFile == ""):
		return errors.New("fleetlock_certfile, fleetlock_keyfile and fleetlock_cafile: all three or none")
	case !withTLS && !loopback && !c.FleetLockInsecure:
		return fault.Hint(fmt.Errorf("fleetlock_listen: %s is not of the loopback interface, and there are no certificates", c.FleetLockListen),
			"set fleetlock_certfile, fleetlock_keyfile and fleetlock_cafile; fleetlock_insecure serves whoever comes")
	}
	return nil
}

// client is the way to the store; it connects with the first request.
func (c Config) client() (*keys.Client, error) {
	out := keys.Config{Endpoints: c.Endpoints, Username: c.Username, Password: c.Password}
	if c.CAFile != "" || c.CertFile != "" {
		out.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	var err error
	if c.CAFile != "" {
		if out.TLS.RootCAs, err = authority("etcd_cafile", c.CAFile); err != nil {
			return nil, err
		}
	}
	if c.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("etcd_certfile and etcd_keyfile: %w", err)
		}
		out.TLS.Certificates = []tls.Certificate{cert}
	}
	return keys.New(out)
}

func authority(setting, path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s: no certificate in %s", setting, path)
	}
	return pool, nil
}

// door is the FleetLock listener; none if it is off.
func (c Config) door(client *keys.Client, log *slog.Logger) ([]lifecycle.Part, error) {
	if !c.serves() {
		return nil, nil
	}
	var conf *tls.Config
	if c.FleetLockCertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.FleetLockCertFile, c.FleetLockKeyFile)
		if err != nil {
			return nil, fmt.Errorf("fleetlock_certfile and fleetlock_keyfile: %w", err)
		}
		pool, err := authority("fleetlock_cafile", c.FleetLockCAFile)
		if err != nil {
			return nil, err
		}
		conf = &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		}
	}
	handler := fleetlock.New(fleetlock.Config{
		Open: func(group string) (fleetlock.Locker, error) { return lock.New(client, group) }, Log: log,
	})
	return []lifecycle.Part{{Name: "fleetlock", Run: func(ctx context.Context, ready func()) error {
		return serve(ctx, ready, c.FleetLockListen, conf, handler, log)
	}}}, nil
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
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn), // handshakes that fail
	}
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
