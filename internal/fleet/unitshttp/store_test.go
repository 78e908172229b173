package unitshttp

import (
	"encoding/json"
	"net/http/httptest"
	"testing"

	"flotilla/api/fleet"
	"flotilla/internal/kv/member/membertest"
)

// The members of the store are told as they are.
func TestStore(t *testing.T) {
	a := newAPI(t, membertest.Start(t), "/store/")
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest("GET", "/fleet/v1/store", nil))
	var got fleet.Store
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || got.Why != "" || len(got.Members) != 1 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if m := got.Members[0]; m.Name == "" || m.URL == "" || !m.Answers || !m.Healthy || !m.Leader || m.Why != "" {
		t.Errorf("got %+v", m)
	}
}
