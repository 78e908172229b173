package unitshttp

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"net/http"
)

// token names a page of a collection: URL-safe base64 of two little-endian
// numbers of 16 bits. Clients must take it for opaque.
type token struct {
	Limit uint16
	Page  uint16 // from 1
}

func (t token) String() string {
	b := make([]byte, 4)
	binary.LittleEndian.PutUint16(b, t.Limit)
	binary.LittleEndian.PutUint16(b[2:], t.Page)
	return base64.URLEncoding.EncodeToString(b)
}

func parseToken(s string) (t token, err error) {
	b, err := base64.URLEncoding.DecodeString(s)
	if err != nil {
		return t, err
	}
	err = binary.Read(bytes.NewReader(b), binary.LittleEndian, &t)
	return t, err
}

// pageOf reads which page a request asks for.
func (s *Server) pageOf(r *http.Request) (token, error) {
	first := token{Limit: uint16(s.cfg.TokenLimit), Page: 1}
	values := r.URL.Query()["nextPageToken"]
	switch {
	case len(values) > 1:
		return first, refuse(http.StatusBadRequest, "too many values for page token")
	case len(values) == 0 || values[0] == "":
		return first, nil
	}
	t, err := parseToken(values[0])
	switch {
	case err != nil:
		return first, refuse(http.StatusBadRequest, "%v", err)
	case t.Limit != first.Limit:
		return first, refuse(http.StatusBadRequest, "token limit must be %d", first.Limit)
	case t.Page == 0:
		return first, refuse(http.StatusBadRequest, "token page must be greater than zero")
	}
	return t, nil
}

// cut returns the page's items, and the token of the next page; "" for none. A
// page that is just full has a next one, which may be empty.
func cut[T any](items []T, t token) ([]T, string) {
	from := int(t.Limit) * int(t.Page-1)
	to := from + int(t.Limit)
	if len(items) < to {
		return items[min(from, len(items)):], ""
	}
	return items[from:to], token{Limit: t.Limit, Page: t.Page + 1}.String()
}
