package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"flotilla/internal/unit"
)

// Local is what a machine says and does about its units when a peer asks.
type Local interface {
	unit.LogReader
	Show(ctx context.Context, w io.Writer, name string) (int, error)
	// Adopt returns the text of a running unit of the machine's own, and allows the
	// cluster to take it over.
	Adopt(ctx context.Context, name string) (text string, err error)
	// Eject makes a unit of the cluster the machine's own, as it runs.
	Eject(ctx context.Context, name string) error
}

// Server answers peers. Make it with NewServer.
type Server struct {
	identity Identity
	trusted  func(ctx context.Context, key string) error
	local    Local
	hostname string
	log      *slog.Logger
}

// NewServer makes a server that answers whoever trusted returns nil for: the
// argument is the key that the other side holds.
func NewServer(id Identity, hostname string, trusted func(ctx context.Context, key string) error, local Local, log *slog.Logger) *Server {
	return &Server{identity: id, trusted: trusted, local: local, hostname: hostname, log: log}
}

// Time limits of a connection: a stranger may not hold one for long.
const (
	handshakeLimit = 5 * time.Second
	idleLimit      = 30 * time.Second
	writeLimit     = 30 * time.Second
)

// Serve answers connections on ln until ctx is done, and closes it.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /journal", s.journal)
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("POST /adopt", s.adopt)
	mux.HandleFunc("POST /eject", s.eject)
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: handshakeLimit, // of the handshake too
		IdleTimeout:       idleLimit,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          log.New(complaints{s.log}, "", 0),
	}
	config := s.identity.config(func(key string) error {
		limited, cancel := context.WithTimeout(ctx, handshakeLimit)
		defer cancel()
		return s.trusted(limited, key)
	})
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	err := server.Serve(tls.NewListener(ln, config))
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("peer connections: %w", err)
}

// complaints are handshakes that failed: strangers, port scans.
type complaints struct{ log *slog.Logger }

func (c complaints) Write(b []byte) (int, error) {
	c.log.Debug("peer connection refused", "why", string(bytes.TrimSpace(b)))
	return len(b), nil
}

const (
	exitCodeHeader = "Fleet-Exit-Code"
	errorTrailer   = "Fleet-Error"
)

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	var text bytes.Buffer
	code, err := s.local.Show(r.Context(), &text, r.URL.Query().Get("unit"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set(exitCodeHeader, strconv.Itoa(code))
	w.Write(text.Bytes()) // an error is the peer's going away
}

func (s *Server) adopt(w http.ResponseWriter, r *http.Request) {
	text, err := s.local.Adopt(r.Context(), r.URL.Query().Get("unit"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	io.WriteString(w, text) // an error is the peer's going away
}

func (s *Server) eject(w http.ResponseWriter, r *http.Request) {
	if err := s.local.Eject(r.Context(), r.URL.Query().Get("unit")); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *Server) journal(w http.ResponseWriter, r *http.Request) {
	q, err := decodeQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Trailer", errorTrailer)
	w.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(w)
	// The headers go at once, so that whoever follows a quiet unit knows that it
	// is being followed.
	w.WriteHeader(http.StatusOK)
	err = control.Flush()
	if err == nil {
		err = Read(r.Context(), s.local, q, func(e unit.LogEntry) error {
			if e.Machine == "" {
				e.Machine = s.hostname
			}
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			_ = control.SetWriteDeadline(time.Now().Add(writeLimit))
			if _, err := w.Write(append(b, '\n')); err != nil {
				return err
			}
			return control.Flush()
		})
	}
	if err != nil {
		w.Header().Set(errorTrailer, err.Error())
	}
}
