package v2http

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"flotilla/api/keys"
	"flotilla/internal/kv/v2"
)

func (h *Handler) keys(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Etcd-Cluster-Id", strconv.FormatUint(h.Info.ClusterID(), 16))
	req, err := parse(r)
	if err != nil {
		h.send(w, r, h.failed(r.Context(), r.Method, r.URL.Path, err))
		return
	}
	if req.Wait {
		h.watch(w, r, req)
		return
	}
	files, err := h.admit(r, req)
	if err != nil {
		h.send(w, r, h.failed(r.Context(), r.Method, r.URL.Path, err))
		return
	}
	h.send(w, r, h.carryOut(r.Context(), r.Method, r.URL.Path, req, files))
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

// reply is the answer to a request that has one.
type reply struct {
	status int
	index  uint64
	event  *keys.Event // nil: err
	err    *keys.Error
}

// carryOut does what a request asks for that is no watch and is admitted. files tells
// whether the answer may be about a file.
func (h *Handler) carryOut(ctx context.Context, method, path string, req v2.Request, files bool) reply {
	do := h.Store.Write
	if req.Op == v2.Get {
		do = h.Store.Read
	}
	a, err := do(ctx, req)
	if err == nil && !files && showsFile(a.Event, req.Path) {
		err = errUnauthorized()
	}
	h.stats.answered(req, err)
	if err != nil {
		return h.failed(ctx, method, path, err)
	}
	out := reply{status: status(a.Event), index: a.Index, event: a.Event}
	if req.NoValueOnSuccess && shortens(out.event.Action) {
		out.event = &keys.Event{Action: out.event.Action}
	}
	return out
}

// failed answers with an error of the API; any other error is one of the store.
func (h *Handler) failed(ctx context.Context, method, path string, err error) reply {
	kerr, ok := errors.AsType[*keys.Error](err)
	if !ok {
		kerr = keys.NewError(keys.CodeRaftInternal, err.Error(), 0)
	}
	if kerr.ErrorCode == keys.CodeRaftInternal && ctx.Err() == nil {
		h.Log.Warn("request failed in the store", "method", method, "path", path, "cause", kerr.Cause)
	}
	return reply{status: kerr.Status(), index: kerr.Index, err: kerr}
}

// appendBody appends what the reply says, as a line of JSON.
func (r reply) appendBody(b []byte) []byte {
	if r.event != nil {
		return appendEvent(b, r.event)
	}
	return append(appendAny(b, r.err), '\n')
}

func (h *Handler) send(w http.ResponseWriter, r *http.Request, answer reply) {
	if answer.event != nil {
		h.indexes(w, answer.index)
	} else {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Etcd-Index", strconv.FormatUint(answer.index, 10))
	}
	w.WriteHeader(answer.status)
	h.deliver(w, r, answer.appendBody(nil))
}

// write sends v as a line of JSON.
func (h *Handler) write(w http.ResponseWriter, r *http.Request, v any) {
	h.deliver(w, r, append(appendAny(nil, v), '\n'))
}

// deliver sends bytes. That the client has gone is not worth more than a debug line.
func (h *Handler) deliver(w http.ResponseWriter, r *http.Request, body []byte) {
	if _, err := w.Write(body); err != nil {
		h.Log.Debug("answer not delivered", "path", r.URL.Path, "err", err)
	}
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

// stuckAfter is how long a client may leave an event of its watch unread when its
// connection can hold no more: then the connection is closed.
const stuckAfter = 30 * time.Second

// watch sends the headers at once, then one event, or each in a line of its own
// with stream=true. A watch that cannot go on, or no longer may, ends the response:
// the client watches again from the index after the last event.
func (h *Handler) watch(w http.ResponseWriter, r *http.Request, req v2.Request) {
	ctx, cancel, files, err := h.admitWatch(r, req)
	defer cancel()
	if err != nil {
		h.send(w, r, h.failed(r.Context(), r.Method, r.URL.Path, err))
		return
	}
	watcher, err := h.Store.Watch(ctx, req)
	if err != nil {
		h.send(w, r, h.failed(r.Context(), r.Method, r.URL.Path, err))
		return
	}
	defer watcher.Close()
	defer h.stats.watching()()
	h.indexes(w, watcher.Index())
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	if err := control.Flush(); err != nil {
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
		// A writer that knows no deadlines, as one in a test, cannot get stuck either.
		_ = control.SetWriteDeadline(time.Now().Add(h.stuck))
		h.deliver(w, r, h.lines.of(event))
		if !req.Stream {
			return // the end of the response is sent within the deadline, too
		}
		if err := control.Flush(); err != nil {
			return
		}
	}
}

// indexes sets the headers of an answer that succeeded.
func (h *Handler) indexes(w http.ResponseWriter, index uint64) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Etcd-Index", strconv.FormatUint(index, 10))
	w.Header().Set("X-Raft-Index", strconv.FormatUint(h.Info.RaftIndex(), 10))
	w.Header().Set("X-Raft-Term", strconv.FormatUint(h.Info.RaftTerm(), 10))
}
