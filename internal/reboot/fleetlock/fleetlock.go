// Package fleetlock serves the FleetLock protocol over the reboot lock, so that
// machines of other systems (Fedora CoreOS, Flatcar) take their turn with ours.
//
// The protocol has two requests, POST BASE/v1/pre-reboot to take a slot and POST
// BASE/v1/steady-state to give it back, both with the header "fleet-lock-protocol:
// true" and the body
//
//	{"client_params":{"id":"MACHINE","group":"GROUP"}}
//
// Both are recursive: taking what one holds and giving back what one does not hold
// succeed. 200 is yes; everything else is no, with {"kind":"...","value":"..."} for
// programs and people. A client asks steady-state after its start until it succeeds,
// and pre-reboot before its reboot until it succeeds.
//
// In between it gives no sign of life, so that its slot says itself how long it may be
// silent: Config.Timeout.
package fleetlock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"

	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
)

// DefaultGroup is the group of clients that were told none. It is the lock of our
// machines that are in no group.
const DefaultGroup = "default"

// The kinds of refusals: those of airlock, the protocol's first server, where it has
// one.
const (
	KindProtocol = "invalid_protocol"        // 400: the header is missing
	KindIdentity = "invalid_client_identity" // 400: the body does not say who asks
	KindGroup    = "unknown_group"           // 400: there is no lock for the group
	KindSema     = "failed_sem_init"         // 500: the lock could not be read
	KindLock     = "failed_lock"             // 409: not now; 500: the lock could not be written
	KindPath     = "unknown_path"            // 404: neither of the two requests
	KindMethod   = "invalid_method"          // 405
	KindTooLarge = "request_too_large"       // 413
)

// Limits of a request. An id is a hash of 32 letters with all known clients.
const (
	maxBody = 16 << 10
	maxName = 256
)

// changeLimit is how long the store may take to change the lock: a client asks again.
const changeLimit = 30 * time.Second

// DefaultTimeout is how long a client may take from the slot to its first word after the
// boot, if nobody has said otherwise: a server that counts its memory and checks its
// disks, and all that it does before it goes down.
const DefaultTimeout = 30 * time.Minute

// A group is part of a key's name. "." and ".." would be another key's.
var groupName = regexp.MustCompile(`^[a-zA-Z0-9.-]+$`)

// Locker is the lock of a group: *lock.Lock.
type Locker interface {
	Read(ctx context.Context) (lock.State, error)
	Change(ctx context.Context, f func(sema.Semaphore) (sema.Semaphore, error)) (lock.State, error)
}

var _ Locker = (*lock.Lock)(nil)

// Config is what a Handler works with.
type Config struct {
	// Open returns the lock of a group; "" is that of machines in no group.
	Open func(group string) (Locker, error)
	// Timeout is after how long without a word a client is taken for dead, in whole
	// seconds; 0: DefaultTimeout.
	Timeout time.Duration
	Now     func() time.Time // nil: time.Now
	Log     *slog.Logger     // nil: nothing is logged
}

// Handler serves the protocol below any path. Requests are small and the lock may be
// asked for by many at once.
type Handler struct{ cfg Config }

// New makes a handler; it asks the store nothing.
func New(cfg Config) *Handler {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{cfg: cfg}
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var change func(client) func(sema.Semaphore) (sema.Semaphore, error)
	switch {
	case strings.HasSuffix(r.URL.Path, "/v1/pre-reboot"):
		change = h.take
	case strings.HasSuffix(r.URL.Path, "/v1/steady-state"):
		change = giveBack
	default:
		refuse(http.StatusNotFound, KindPath, "the protocol has v1/pre-reboot and v1/steady-state").write(w)
		return
	}
	c, no := readRequest(w, r)
	if no == nil {
		ctx, cancel := context.WithTimeout(r.Context(), changeLimit)
		defer cancel()
		no = h.change(ctx, c, change(c))
	}
	if no != nil {
		h.cfg.Log.Info("refused", "request", r.URL.Path, "machine", c.ID, "group", c.Group, "kind", no.Kind, "why", no.Value)
		no.write(w)
		return
	}
	h.cfg.Log.Info("granted", "request", r.URL.Path, "machine", c.ID, "group", c.Group)
}

// client is who asks.
type client struct {
	ID    string `json:"id"`
	Group string `json:"group"`
}

// lockName is the client's group as the lock has it.
func (c client) lockName() string {
	if c.Group == DefaultGroup {
		return ""
	}
	return c.Group
}

// refusal is an answer that is no.
type refusal struct {
	status int
	Kind   string `json:"kind"`
	Value  string `json:"value"`
}

func refuse(status int, kind, format string, args ...any) *refusal {
	return &refusal{status, kind, fmt.Sprintf(format, args...)}
}

func (no *refusal) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	if no.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	w.WriteHeader(no.status)
	json.NewEncoder(w).Encode(no) // the connection may be gone
}

// readRequest reads who asks, and says what is wrong with the request.
func readRequest(w http.ResponseWriter, r *http.Request) (client, *refusal) {
	if r.Method != http.MethodPost {
		return client{}, refuse(http.StatusMethodNotAllowed, KindMethod, "%s: the protocol has POST alone", r.Method)
	}
	if r.Header.Get("fleet-lock-protocol") != "true" {
		return client{}, refuse(http.StatusBadRequest, KindProtocol, "the header \"fleet-lock-protocol: true\" is missing")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return client{}, refuse(http.StatusRequestEntityTooLarge, KindTooLarge, "the body is larger than %d bytes", maxBody)
	}
	if err != nil {
		return client{}, refuse(http.StatusBadRequest, KindIdentity, "read the body: %v", err)
	}
	c, err := parse(body)
	if err != nil {
		return client{}, refuse(http.StatusBadRequest, KindIdentity, "%v", err)
	}
	return c, nil
}

// parse reads the body of a request.
func parse(body []byte) (client, error) {
	var in struct {
		Params client `json:"client_params"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return client{}, fmt.Errorf("the body is not {\"client_params\":{\"id\":\"...\",\"group\":\"...\"}}: %w", err)
	}
	c := in.Params
	switch {
	case c.ID == "":
		return client{}, errors.New("client_params.id is empty")
	case len(c.ID) > maxName || strings.ContainsFunc(c.ID, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }):
		return client{}, fmt.Errorf("client_params.id %.64q: want at most %d bytes that can be printed", c.ID, maxName)
	case c.Group == "":
		return client{}, errors.New("client_params.group is empty")
	case len(c.Group) > maxName || !groupName.MatchString(c.Group) || c.Group == "." || c.Group == "..":
		return client{}, fmt.Errorf("client_params.group %.64q: want letters, digits, dots and dashes", c.Group)
	}
	return c, nil
}

// change changes the lock of the client's group. A group has to have a lock, else
// anybody could fill the store with keys; the default group always has one.
func (h *Handler) change(ctx context.Context, c client, f func(sema.Semaphore) (sema.Semaphore, error)) *refusal {
	l, err := h.cfg.Open(c.lockName())
	if err != nil {
		return refuse(http.StatusBadRequest, KindGroup, "%v", err)
	}
	s, err := l.Read(ctx)
	if err != nil {
		return refuse(http.StatusInternalServerError, KindSema, "%v", err)
	}
	if s.Index == 0 && c.lockName() != "" {
		return refuse(http.StatusBadRequest, KindGroup, "no lock for group %q: 'locksmithctl -group %s set-max 1' makes one", c.Group, c.Group)
	}
	s, err = l.Change(ctx, f)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sema.ErrLost):
		return refuse(http.StatusConflict, KindLock, "%s has been given up: a client asks steady-state after its start", c.ID)
	case errors.Is(err, sema.ErrFull):
		return refuse(http.StatusConflict, KindLock, "%v: max is %d, %s", err, s.Max, s.HeldBy())
	case errors.Is(err, sema.ErrStopped), errors.Is(err, sema.ErrHolderExists), errors.Is(err, errNotOurs):
		return refuse(http.StatusConflict, KindLock, "%v", err)
	}
	return refuse(http.StatusInternalServerError, KindLock, "%v", err)
}

// errNotOurs is a slot that its machine has taken itself, and tells of itself: the
// protocol's clients are other machines.
var errNotOurs = errors.New("the machine's own locksmithd holds the slot")

// ours refuses a slot that has not been taken by the protocol, by a classic client or by
// a person.
func ours(s sema.Semaphore, id string) error {
	if s.Details[id].Boot != "" && s.Details[id].Phase != sema.ByHand {
		return errNotOurs
	}
	return nil
}

// take gives the client a slot, or lets it keep its own. From now on the machine may
// be down at any time: the protocol has no sign of life, and no word of the reboot
// itself.
func (h *Handler) take(c client) func(sema.Semaphore) (sema.Semaphore, error) {
	d := sema.Detail{
		Since: h.cfg.Now().UTC().Truncate(time.Microsecond), Why: "asked by FleetLock", Phase: sema.Rebooting,
		Timeout: int(h.cfg.Timeout / time.Second),
	}
	return func(s sema.Semaphore) (sema.Semaphore, error) {
		if err := ours(s, c.ID); err != nil {
			return s, err
		}
		return s.Acquire(c.ID, d)
	}
}

// giveBack takes the client off.
func giveBack(c client) func(sema.Semaphore) (sema.Semaphore, error) {
	return func(s sema.Semaphore) (sema.Semaphore, error) {
		if err := ours(s, c.ID); err != nil {
			return s, err
		}
		return s.GiveBack(c.ID)
	}
}
