package unitshttp

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/model"
)

func TestCheckWhy(t *testing.T) {
	for why, ok := range map[string]bool{
		"": true, "the disk is full,\n\tsays grüßgott": true, strings.Repeat("w", maxWhy): true,
		strings.Repeat("w", maxWhy+1): false, "\x1b[31mred": false, "\u202eback": false, "\xff": true, // U+FFFD to people
	} {
		if err := checkWhy(why); (err == nil) != ok {
			t.Errorf("%.40q: %v", why, err)
		}
	}
}

// Whoever may do nothing fills the store with events neither: what is refused is noted
// in a few words, however long the request.
func TestRefusedRequestsAreNotedInShort(t *testing.T) {
	var noted model.Event
	s := New(Config{}, Deps{
		Who: func(r *http.Request) (access.Who, error) {
			return access.Who{Name: "grafana", Role: access.Viewer}, nil
		},
		Events: func(e model.Event) { noted = e },
		Log:    slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	long := strings.Repeat("a", 1<<20)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("DELETE", "/fleet/v1/units/"+long, nil))
	if n := len(noted.Unit) + len(noted.What) + len(noted.Why) + len(noted.By); w.Code != 403 || noted.What == "" || n > 5*maxNoted {
		t.Errorf("%d, an event of %d bytes", w.Code, n)
	}
}
