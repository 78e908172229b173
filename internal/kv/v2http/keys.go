package v2http

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"flotilla/api/keys"
	"flotilla/internal/kv/mvcc"
	"flotilla/internal/kv/v2"
)

func (h *handler) keys(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Etcd-Cluster-Id", strconv.FormatUint(h.Info.ClusterID(), 16))
	req, err := parse(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	switch {
	case req.Wait:
		h.watch(w, r, req)
	case req.Op == v2.Get:
		h.answer(w, r, req, h.Store.Read)
	default:
		h.answer(w, r, req, h.Store.Write)
	}
}

// parse reads the request. Only PUT and POST have a body that counts, and only as
// a form.
func parse(r *http.Request) (v2.Request, error) {
	if err := r.ParseForm(); err != nil {
		return v2.Request{}, keys.NewError(keys.CodeInvalidForm, err.Error(), 0)
	}
	path, ok := v2.ParsePath(strings.TrimPrefix(r.URL.Path, "/v2/keys"))
	if !ok { // redirected before it came here
		return v2.Request{}, keys.NewError(keys.CodeInvalidForm, "unclean path", 0)
	}
	req, kerr := v2.Parse(r.Method, path, r.Form)
	if kerr != nil {
		return v2.Request{}, kerr
	}
	return req, nil
}

// doer is a method of the store that answers a request.
type doer func(context.Context, v2.Request) (mvcc.Answer, error)

// answer carries out a request that has one answer.
func (h *handler) answer(w http.ResponseWriter, r *http.Request, req v2.Request, do doer) {
	files, err := h.admit(r, req)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	a, err := do(r.Context(), req)
	if err == nil && !files && showsFile(a.Event, req.Path) {
		err = errUnauthorized()
	}
	h.stats.answered(req, err)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.indexes(w, a.Index)
	w.WriteHeader(status(a.Event))
	event := a.Event
	if req.NoValueOnSuccess && shortens(event.Action) {
		event = &keys.Event{Action: event.Action}
	}
	h.write(w, r, event)
}

// status is 201 when something came into being.
func status(e *keys.Event) int {
	if e.Action == keys.Create || e.Action == keys.Set && e.PrevNode == nil {
		return http.StatusCreated
	}
	return http.StatusOK
}

// shortens reports whether noValueOnSuccess means anything to the action.
func shortens(action string) bool {
	switch action {
	case keys.Set, keys.Create, keys.Update, keys.CompareAndSwap:
		return true
	}
	return false
}

// watch sends the headers at once, then one event, or each in a line of its own
// with stream=true. A watch that cannot go on, or no longer may, ends the response:
// the client watches again from the index after the last event.
func (h *handler) watch(w http.ResponseWriter, r *http.Request, req v2.Request) {
	ctx, cancel, files, err := h.admitWatch(r, req)
	defer cancel()
	if err != nil {
		h.fail(w, r, err)
		return
	}
	watcher, err := h.Store.Watch(ctx, req)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	defer watcher.Close()
	defer h.stats.watching()()
	h.indexes(w, watcher.Index())
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w).Flush
	if err := flush(); err != nil {
		return
	}
	for {
		event, err := watcher.Next(ctx)
		if err == nil {
			err = ctx.Err() // what was pending is no longer for everybody
		}
		if err == nil && !files && showsFile(event, req.Path) {
			err = errUnauthorized()
		}
		if err != nil {
			h.Log.Debug("watch ended", "key", req.Path, "err", err)
			return
		}
		h.write(w, r, event)
		if err := flush(); err != nil || !req.Stream {
			return
		}
	}
}

// indexes sets the headers of an answer that succeeded.
func (h *handler) indexes(w http.ResponseWriter, index uint64) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Etcd-Index", strconv.FormatUint(index, 10))
	w.Header().Set("X-Raft-Index", strconv.FormatUint(h.Info.RaftIndex(), 10))
	w.Header().Set("X-Raft-Term", strconv.FormatUint(h.Info.RaftTerm(), 10))
}

// fail answers with an error of the API; any other error is one of the store.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	kerr, ok := errors.AsType[*keys.Error](err)
	if !ok {
		kerr = keys.NewError(keys.CodeRaftInternal, err.Error(), 0)
	}
	if kerr.ErrorCode == keys.CodeRaftInternal && r.Context().Err() == nil {
		h.Log.Warn("request failed in the store", "method", r.Method, "path", r.URL.Path, "cause", kerr.Cause)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Etcd-Index", strconv.FormatUint(kerr.Index, 10))
	w.WriteHeader(kerr.Status())
	h.write(w, r, kerr)
}

// write sends v as a line of JSON. That the client has gone is not worth more
// than a debug line.
func (h *handler) write(w http.ResponseWriter, r *http.Request, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		h.Log.Debug("answer not delivered", "path", r.URL.Path, "err", err)
	}
}
