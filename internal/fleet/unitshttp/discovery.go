package unitshttp

import (
	_ "embed"
	"net/http"
)

// The Google discovery document of the API, as the original served it: clients
// were generated from it.
//
//go:embed discovery.json
var discoveryDocument []byte

func (s *Server) discovery(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	w.Write(discoveryDocument) // an error is the client's going away
	return nil
}
