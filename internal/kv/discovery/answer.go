package discovery

import (
	"encoding/json"
	"errors"
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
		s.Log.Warn("the store does not answer", "err", err)
	}
	http.Error(w, err.Error(), status)
}
