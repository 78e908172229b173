package up

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"flotilla/internal/endpoint"
	"flotilla/internal/fault"
)

// controlSocket is the name below DIR/run of the socket that power commands use.
const controlSocket = "up.sock"

// MachineStatus is a machine of a running "up" as "up status -o json" prints it.
type MachineStatus struct {
	Name string `json:"name"`
	ID   string `json:"id"`
	// Power is on, off (after kill), or failed: on, and a daemon of it has ended by itself
	// or does not start. It is started again, every restartAfter.
	Power string `json:"power"`
	Dir   string `json:"dir"`
	Error string `json:"error,omitempty"` // why the machine has failed
}

// control serves the power switch: GET /machines, POST /machines/NAME/kill and
// .../boot.
func (u *Up) control(ctx context.Context, ready func()) error {
	l, err := endpoint.ListenUnix(u.cfg.runPath(controlSocket))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /machines", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(u.hosts.status())
	})
	mux.HandleFunc("POST /machines/{name}/kill", u.power((*hosts).kill))
	mux.HandleFunc("POST /machines/{name}/boot", u.power((*hosts).boot))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	ready()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (u *Up) power(do func(*hosts, context.Context, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := do(u.hosts, r.Context(), r.PathValue("name")); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	}
}

// ask sends one request to the running "up" of a directory and returns the body.
func ask(ctx context.Context, cfg Config, method, path string) ([]byte, error) {
	socket := cfg.runPath(controlSocket)
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://up"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the made-up address
		}
		return nil, fault.Hint(fmt.Errorf("no 'flotilla up' runs in %s: %w", cfg.Dir, err), "start one, or name its directory with --dir DIR")
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return body, nil
}
