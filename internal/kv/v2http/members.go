package v2http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// What a Reconfigurer refuses with. Any other error of its methods is answered as
// an internal one.
var (
	ErrNoMember      = errors.New("membership: ID not found")
	ErrMemberRemoved = errors.New("membership: ID removed")
	ErrMemberExists  = errors.New("membership: ID exists")
	ErrPeerURLExists = errors.New("membership: peerURL exists")
)

// Refused is an error of a Reconfigurer that says for people why there is no change of
// the members now, and what to do.
type Refused struct {
	Err    error
	Reason string
}

// Error is that of Err.
func (e *Refused) Error() string { return e.Err.Error() }

// Unwrap is Err.
func (e *Refused) Unwrap() error { return e.Err }

// Reconfigurer changes who the cluster's members are. Its methods return when the
// cluster has agreed.
type Reconfigurer interface {
	// AddMember makes place for a member that has yet to start.
	// Errors: ErrMemberExists, ErrPeerURLExists.
	AddMember(ctx context.Context, peerURLs []string) (Member, error)
	// UpdateMember changes the addresses that a member is reached at by the others.
	// Errors: ErrNoMember, ErrPeerURLExists.
	UpdateMember(ctx context.Context, id uint64, peerURLs []string) error
	// RemoveMember ends a membership for good.
	// Errors: ErrNoMember, ErrMemberRemoved.
	RemoveMember(ctx context.Context, id uint64) error
}

// agreeWithin is how long the cluster may take to agree on a change of its members:
// as etcd has it, 5 s and two elections.
const agreeWithin = 7 * time.Second

var memberMethods = []string{http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodPut}

// members serves /v2/members and what is below it.
func (h *Handler) members(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Etcd-Cluster-Id", strconv.FormatUint(h.Info.ClusterID(), 16))
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/v2/members"), "/")
	ctx, cancel := context.WithTimeout(r.Context(), agreeWithin)
	defer cancel()
	switch r = r.WithContext(ctx); r.Method {
	case http.MethodGet:
		h.showMember(w, r, name)
	case http.MethodPost:
		h.addMember(w, r)
	case http.MethodPut:
		h.updateMember(w, r, name)
	case http.MethodDelete:
		h.removeMember(w, r, name)
	}
}

// showMember lists all members, or shows the one that leads. No other has an
// address of its own.
func (h *Handler) showMember(w http.ResponseWriter, r *http.Request, name string) {
	switch name {
	case "":
		h.json(w, r, struct {
			Members []Member `json:"members"`
		}{h.Info.Members()})
	case "leader":
		m, ok := h.Info.Leader()
		if !ok {
			message(w, http.StatusServiceUnavailable, "During election")
			return
		}
		h.json(w, r, m)
	default:
		message(w, http.StatusNotFound, "Not found")
	}
}

func (h *Handler) addMember(w http.ResponseWriter, r *http.Request) {
	urls, ok := peerURLs(w, r)
	if !ok {
		return
	}
	m, err := h.Info.AddMember(r.Context(), urls)
	if err != nil {
		h.refuse(w, r, err, refusals{
			ErrMemberExists:  {http.StatusConflict, err.Error()},
			ErrPeerURLExists: {http.StatusConflict, err.Error()},
		})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	h.write(w, r, m)
}

func (h *Handler) updateMember(w http.ResponseWriter, r *http.Request, name string) {
	id, ok := memberID(w, name)
	if !ok {
		return
	}
	urls, ok := peerURLs(w, r)
	if !ok {
		return
	}
	if err := h.Info.UpdateMember(r.Context(), id, urls); err != nil {
		h.refuse(w, r, err, refusals{
			ErrNoMember:      {http.StatusNotFound, noSuchMember(id)},
			ErrPeerURLExists: {http.StatusConflict, err.Error()},
		})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *Handler) removeMember(w http.ResponseWriter, r *http.Request, name string) {
	id, ok := memberID(w, name)
	if !ok {
		return
	}
	if err := h.Info.RemoveMember(r.Context(), id); err != nil {
		h.refuse(w, r, err, refusals{
			ErrNoMember:      {http.StatusNotFound, noSuchMember(id)},
			ErrMemberRemoved: {http.StatusGone, fmt.Sprintf("Member permanently removed: %x", id)},
		})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func noSuchMember(id uint64) string { return fmt.Sprintf("No such member: %x", id) }

// refusals are the answers to errors that have one of their own.
type refusals map[error]struct {
	status int
	text   string
}

// refuse answers a change that was not made. etcd's message for what the cluster could
// not do is three words, whatever it was; where there is a reason to be told, it goes
// along.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error, known refusals) {
	for is, a := range known {
		if errors.Is(err, is) {
			message(w, a.status, a.text)
			return
		}
	}
	h.Log.Warn("members not changed", "method", r.Method, "path", r.URL.Path, "err", err)
	reason := ""
	if why, ok := errors.AsType[*Refused](err); ok {
		reason = why.Reason
	}
	explained(w, http.StatusInternalServerError, "Internal Server Error", reason)
}

// memberID reads the id in the path, or answers why there is none.
func memberID(w http.ResponseWriter, name string) (uint64, bool) {
	if name == "" {
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return 0, false
	}
	id, err := types.IDFromString(name)
	if err != nil {
		message(w, http.StatusNotFound, "No such member: "+name)
		return 0, false
	}
	return uint64(id), true
}

// peerURLs reads the body of a request that names a member's addresses, or answers
// what is wrong with it.
func peerURLs(w http.ResponseWriter, r *http.Request) ([]string, bool) {
	kind, _, parameters := strings.Cut(r.Header.Get("Content-Type"), ";")
	if parameters {
		kind = strings.TrimSpace(strings.ToLower(kind))
	}
	if kind != "application/json" {
		message(w, http.StatusUnsupportedMediaType, fmt.Sprintf("Bad Content-Type %s, accept application/json", kind))
		return nil, false
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMembersBody))
	if err != nil {
		message(w, http.StatusBadRequest, err.Error())
		return nil, false
	}
	urls, err := parsePeerURLs(raw)
	if err != nil {
		message(w, http.StatusBadRequest, err.Error())
		return nil, false
	}
	return urls, true
}

// maxMembersBody is more than any list of addresses needs.
const maxMembersBody = 1 << 20

// parsePeerURLs reads {"peerURLs":[...]}; the result is sorted.
func parsePeerURLs(raw []byte) ([]string, error) {
	var body struct {
		PeerURLs []string `json:"peerURLs"`
	}
	if err := json.Unmarshal(raw, &body); err != nil {
		return nil, err
	}
	if len(body.PeerURLs) == 0 {
		return nil, errors.New("no valid URLs given")
	}
	urls, err := types.NewURLs(body.PeerURLs)
	if err != nil {
		return nil, err
	}
	return urls.StringSlice(), nil
}

// json answers with v.
func (h *Handler) json(w http.ResponseWriter, r *http.Request, v any) {
	w.Header().Set("Content-Type", "application/json")
	h.write(w, r, v)
}
