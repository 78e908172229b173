package v2http

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"

	"flotilla/api/keys"
	"flotilla/internal/kv/auth"
	"flotilla/internal/kv/v2"
)

// Gate says who may do what. An error says that it cannot tell: nothing is allowed
// then.
type Gate interface {
	// Keys decides on a request to the key space.
	Keys(context.Context, auth.Credentials, auth.Need) (auth.Verdict, error)
	// Hold is Keys for a watch: the context it returns ends when the right does.
	Hold(context.Context, auth.Credentials, auth.Need) (lasting context.Context, cancel func(), v auth.Verdict, err error)
	// Root reports whether a request may do everything.
	Root(context.Context, auth.Credentials) (bool, error)
	// Administer answers a request to /v2/auth.
	Administer(context.Context, auth.Credentials, auth.Request) (auth.Answer, error)
}

// maxAdminBody is far more than the longest list of roles that anybody has.
const maxAdminBody = 1 << 20

// credentials is what a request says about who makes it. A header that is there and
// is not Basic authentication is credentials that are wrong.
func credentials(r *http.Request) auth.Credentials {
	c := auth.Credentials{Sent: r.Header.Get("Authorization") != ""}
	c.User, c.Password, _ = r.BasicAuth()
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		c.Certificate = r.TLS.VerifiedChains[0][0].Subject.CommonName
	}
	return c
}

// need is what a request of the key space needs.
func need(r v2.Request) auth.Need {
	return auth.Need{Path: r.Path, Write: r.Op != v2.Get, Recursive: r.Recursive, Inside: r.Op == v2.Post}
}

// errUnauthorized is the key space's refusal.
func errUnauthorized() *keys.Error {
	return keys.NewError(keys.CodeUnauthorized, "Insufficient credentials", 0)
}

// errGate is the key space's answer where the gate cannot tell.
func errGate(err error) *keys.Error { return keys.NewError(keys.CodeRaftInternal, err.Error(), 0) }

// admit asks whether the request may be carried out. files tells whether its answer may
// be about a file.
func (h *Handler) admit(r *http.Request, req v2.Request) (files bool, err error) {
	if h.Gate == nil {
		return true, nil
	}
	v, err := h.Gate.Keys(r.Context(), credentials(r), need(req))
	switch {
	case err != nil:
		return false, errGate(err)
	case v == auth.Refused:
		return false, errUnauthorized()
	case mayEndDirectory(req):
		return true, h.admitEnd(r, req)
	}
	return v == auth.Granted, nil
}

// mayEndDirectory reports whether the request could put a TTL on a directory that is
// there. Whatever is in it then goes with it.
func mayEndDirectory(r v2.Request) bool {
	return r.Op != v2.Get && r.Op != v2.Post && r.TTL != nil && r.Value == "" && !r.Recursive
}

// admitEnd asks for the right to delete a directory with all in it, where the request
// is about a directory.
func (h *Handler) admitEnd(r *http.Request, req v2.Request) error {
	all := need(req)
	all.Recursive = true
	v, err := h.Gate.Keys(r.Context(), credentials(r), all)
	switch {
	case err != nil:
		return errGate(err)
	case v == auth.Granted:
		return nil
	}
	if a, err := h.Store.Read(r.Context(), v2.Request{Path: req.Path}); err == nil && a.Event.Node.Dir {
		return errUnauthorized()
	}
	return nil
}

// admitWatch is admit for a watch, which lasts as long as the context and the
// right do.
func (h *Handler) admitWatch(r *http.Request, req v2.Request) (ctx context.Context, cancel func(), files bool, err error) {
	if h.Gate == nil {
		return r.Context(), func() {}, true, nil
	}
	ctx, cancel, v, err := h.Gate.Hold(r.Context(), credentials(r), need(req))
	switch {
	case err != nil:
		err = errGate(err)
	case v == auth.Refused:
		err = errUnauthorized()
	}
	return ctx, cancel, v == auth.Granted, err
}

// showsFile reports whether the event tells of a file at the path itself, which may be
// the root's: that has no key.
func showsFile(e *keys.Event, path string) bool {
	at := func(n *keys.Node) bool { return n != nil && n.Key == path && !n.Dir }
	return at(e.Node) || at(e.PrevNode)
}

// rootOnly reports whether a request to the members API is for the role root alone.
func rootOnly(r *http.Request) bool {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	return !read && (r.URL.Path == "/v2/members" || strings.HasPrefix(r.URL.Path, "/v2/members/"))
}

// asRoot serves a request if it may do everything.
func (h *Handler) asRoot(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	if h.Gate == nil {
		serve(w, r)
		return
	}
	ok, err := h.Gate.Root(r.Context(), credentials(r))
	switch {
	case err != nil:
		h.cannotTell(w, r, err)
	case !ok:
		h.say(w, auth.Unauthorized())
	default:
		serve(w, r)
	}
}

// admin is the route to what a path below /v2/auth names.
func (h *Handler) admin(rest string) (route, bool) {
	target, ok := auth.ParseTarget(rest)
	if !ok || h.Gate == nil {
		return route{}, false
	}
	return route{func(w http.ResponseWriter, r *http.Request) { h.administer(w, r, target) }, target.Methods()}, true
}

func (h *Handler) administer(w http.ResponseWriter, r *http.Request, target auth.Target) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAdminBody))
	if err != nil {
		message(w, http.StatusBadRequest, "Invalid JSON in request body.")
		return
	}
	answer, err := h.Gate.Administer(r.Context(), credentials(r), auth.Request{Method: r.Method, Target: target, Body: body})
	switch {
	case err != nil:
		h.cannotTell(w, r, err)
		return
	case answer.Status != http.StatusUnauthorized && target.Kind != auth.Deeper:
		w.Header().Set("X-Etcd-Cluster-Id", strconv.FormatUint(h.Info.ClusterID(), 16))
	}
	h.say(w, answer)
}

// say sends an answer of the auth API.
func (h *Handler) say(w http.ResponseWriter, a auth.Answer) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.Status)
	io.WriteString(w, a.Body)
}

// cannotTell answers where the gate cannot tell who may do what.
func (h *Handler) cannotTell(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		h.Log.Warn("request refused: it cannot be told who may do what", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	message(w, http.StatusServiceUnavailable, err.Error())
}
