// Package v2http serves the etcd v2 API over HTTP.
//
// A path that is not clean is redirected, OPTIONS is answered before anything
// else, and what is not known is 404: all of it here and not by a ServeMux,
// whose own ideas of these three have changed from one Go version to the next.
package v2http

import (
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"flotilla/internal/kv/mvcc"
	"flotilla/internal/kv/v2"
)

// Member is a member of the cluster as /v2/members shows it.
type Member struct {
	ID         string   `json:"id"` // lower case hex, no padding
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
}

// Info is what the handler asks about the member that it runs in.
type Info interface {
	ClusterID() uint64
	RaftIndex() uint64 // committed
	RaftTerm() uint64
	Members() []Member                  // ordered by id
	Leader() (Member, bool)             // false: there is none now
	Unhealthy() (reason string)         // "": there is a leader and a quorum
	Versions() (server, cluster string) // cluster is "" while it is not decided
	Reconfigurer
	Statistics
}

// Config is what a handler needs. Store, Info and Log are required.
type Config struct {
	Store *mvcc.Store
	Info  Info
	Log   *slog.Logger
	// Gate says who may do what; nil: everybody may do everything, and there is no
	// /v2/auth.
	Gate Gate
	// Origins are the web pages whose scripts may use the API, as
	// http://host:port; "*" is all. None: no CORS headers are sent.
	Origins []string
}

// New makes the handler for all of the v2 API's paths.
func New(cfg Config) *Handler {
	h := &Handler{Config: cfg, stats: newStoreStats(cfg.Store), stuck: stuckAfter, anyOrigin: slices.Contains(cfg.Origins, "*")}
	h.exact = map[string]route{
		"/v2/members":      {h.members, memberMethods},
		"/v2/machines":     {h.machines, []string{http.MethodGet, http.MethodHead}},
		"/v2/stats/self":   {h.selfStats, []string{http.MethodGet}},
		"/v2/stats/leader": {h.leaderStats, []string{http.MethodGet}},
		"/v2/stats/store":  {h.storeStats, []string{http.MethodGet}},
		"/version":         {h.version, []string{http.MethodGet}},
		"/health":          {h.health, []string{http.MethodGet}},
	}
	return h
}

// Handler answers the v2 API.
type Handler struct {
	Config
	exact map[string]route
	stats *storeStats
	lines lastLine
	stuck time.Duration // stuckAfter; tests have less time

	anyOrigin bool
}

// route is a handler and the methods it has, in the order of the Allow header; nil:
// any method is answered.
type route struct {
	serve   http.HandlerFunc
	methods []string
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.cors(w, r)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return
	}
	if clean := v2.CleanURL(r.URL.Path); clean != r.URL.Path {
		redirect(w, r, clean)
		return
	}
	rt, ok := h.find(r.URL.Path)
	switch {
	case !ok:
		http.NotFound(w, r)
	case rt.methods != nil && !slices.Contains(rt.methods, r.Method):
		w.Header().Set("Allow", strings.Join(rt.methods, ","))
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	case rootOnly(r):
		h.asRoot(w, r, rt.serve)
	default:
		rt.serve(w, r)
	}
}

var keyMethods = []string{http.MethodHead, http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete}

func (h *Handler) find(path string) (route, bool) {
	if rt, ok := h.exact[path]; ok {
		return rt, true
	}
	if path == "/v2/keys" || strings.HasPrefix(path, "/v2/keys/") {
		return route{h.keys, keyMethods}, true
	}
	if strings.HasPrefix(path, "/v2/members/") {
		return route{h.members, memberMethods}, true
	}
	if rest, ok := strings.CutPrefix(path, "/v2/auth"); ok {
		return h.admin(rest)
	}
	return route{}, false
}

// redirect sends the client to the clean path. A write is told to keep its method
// and body.
func redirect(w http.ResponseWriter, r *http.Request, clean string) {
	status := http.StatusTemporaryRedirect
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		status = http.StatusMovedPermanently
	}
	to := url.URL{Path: clean, RawQuery: r.URL.RawQuery}
	http.Redirect(w, r, to.String(), status)
}

func (h *Handler) cors(w http.ResponseWriter, r *http.Request) {
	allowed := ""
	if origin := r.Header.Get("Origin"); slices.Contains(h.Origins, "*") {
		allowed = "*"
	} else if slices.Contains(h.Origins, origin) {
		allowed = origin
	}
	if allowed == "" {
		return
	}
	w.Header().Set("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
	w.Header().Set("Access-Control-Allow-Origin", allowed)
	w.Header().Set("Access-Control-Allow-Headers", "accept, content-type, authorization")
}
