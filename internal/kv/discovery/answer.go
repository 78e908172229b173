package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	wire "flotilla/api/keys"
	"flotilla/client/keys"
	"flotilla/internal/kv/proxy"
)

// writeEvent answers as the key space does.
func writeEvent(w http.ResponseWriter, resp *keys.Response) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Etcd-Index", strconv.FormatUint(resp.Index, 10))
	json.NewEncoder(w).Encode(resp.Event) // it fails only if the client has gone
}

// fail answers with an error of the key space as it came, else says what it is.
func (s *service) fail(w http.ResponseWriter, err error) {
	if kerr, ok := errors.AsType[*wire.Error](err); ok {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Etcd-Index", strconv.FormatUint(kerr.Index, 10))
		w.WriteHeader(kerr.Status())
		json.NewEncoder(w).Encode(kerr)
		return
	}
	status := http.StatusBadGateway
	switch {
	case errors.Is(err, errFull):
		status = http.StatusForbidden
	case errors.Is(err, proxy.ErrNoEndpoints):
		status = http.StatusServiceUnavailable
	default:
		s.Log.Warn("cannot ask the store", "err", s.named(err))
	}
	http.Error(w, s.named(err).Error(), status)
}

// named is err with the store's own place in it if the store did not answer, or
// somebody else in its stead. The client knows the store by another name.
func (s *service) named(err error) error {
	if status, ok := errors.AsType[*keys.StatusError](err); ok {
		return fmt.Errorf("the store %s gives no answer of a key space: %w", s.StoreAt, status)
	}
	away, ok := errors.AsType[*keys.UnreachableError](err)
	if !ok {
		return err
	}
	cause := away.Tries[len(away.Tries)-1].Err
	if failed, ok := errors.AsType[*proxy.FailedError](cause); ok {
		cause = failed.Last
	}
	return fmt.Errorf("the store %s does not answer: %w%s", s.StoreAt, cause, askScheme(cause))
}

// askScheme is a question where somebody was reached and would not speak.
func askScheme(cause error) string {
	if op, ok := errors.AsType[*net.OpError](cause); ok && op.Op == "dial" || errors.Is(cause, proxy.ErrNoEndpoints) {
		return ""
	}
	return " (is it http:// or https:// there?)"
}
