package v2http

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// message is how all but the key space tell of an error: without a newline.
func message(w http.ResponseWriter, status int, text string) { explained(w, status, text, "") }

// explained is message with a reason, "" for none.
func explained(w http.ResponseWriter, status int, text, reason string) {
	body, _ := json.Marshal(struct { // strings always marshal
		Message string `json:"message"`
		Reason  string `json:"reason,omitempty"`
	}{text, reason})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}

// machines lists the client URLs of all members, for clients of before 2.0.
func (h *Handler) machines(w http.ResponseWriter, _ *http.Request) {
	var all []string
	for _, m := range h.Info.Members() {
		all = append(all, m.ClientURLs...)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, strings.Join(all, ", "))
}

func (h *Handler) version(w http.ResponseWriter, _ *http.Request) {
	server, cluster := h.Info.Versions()
	if cluster == "" {
		cluster = "not_decided"
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"etcdserver":%q,"etcdcluster":%q}`, server, cluster)
}

func (h *Handler) health(w http.ResponseWriter, _ *http.Request) {
	if reason := h.Info.Unhealthy(); reason != "" {
		body, _ := json.Marshal(struct { // strings always marshal
			Health string `json:"health"`
			Reason string `json:"reason"`
		}{"false", reason})
		http.Error(w, string(body), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, `{"health":"true"}`)
}
