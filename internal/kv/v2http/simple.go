package v2http

import (
	"bytes"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"flotilla/internal/kv/v2"
)

// simple is a request for the lane.
type simple struct {
	method, path string
	host         []byte // the Host header
	request      v2.Request
}

const formType = "application/x-www-form-urlencoded"

// parseSimple reads the request that in begins with. size is how many bytes it
// has; 0: more have to come; -1: it is not one for the lane, which says nothing
// about whether it is a good one.
//
// What it takes, net/http takes too, and understands in the same way: whatever could
// be read in two ways is not taken.
func parseSimple(in []byte) (r simple, size int) {
	end := bytes.Index(in, []byte("\r\n\r\n"))
	if end < 0 {
		return r, 0
	}
	line, headers, _ := bytes.Cut(in[:end], []byte("\r\n"))
	h, ok := parseHeaders(headers)
	if !ok {
		return r, -1
	}
	r.host = h.host
	target, ok := r.parseLine(line)
	form := r.method == http.MethodPut || r.method == http.MethodPost
	if !ok || form != (h.length >= 0) || form != h.form {
		return r, -1
	}
	size = end + len("\r\n\r\n") + max(h.length, 0)
	if size > laneRequest {
		return r, -1
	}
	if size > len(in) {
		return r, 0
	}
	if !r.parseTarget(target, in[size-max(h.length, 0):size]) {
		return r, -1
	}
	return r, size
}

// parseLine reads the method and returns the target.
func (r *simple) parseLine(line []byte) (target []byte, ok bool) {
	target, ok = bytes.CutSuffix(line, []byte(" HTTP/1.1"))
	if !ok {
		return nil, false
	}
	for _, method := range [...]string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
		if n := len(method); len(target) > n && string(target[:n]) == method && target[n] == ' ' {
			r.method = method
			return target[n+1:], true
		}
	}
	return nil, false
}

// headers is what of a request's headers counts.
type headers struct {
	host   []byte
	length int  // -1: none given
	form   bool // the content is a form
}

// parseHeaders takes headers that are known and stand there once.
func parseHeaders(lines []byte) (h headers, ok bool) {
	h.length = -1
	for more := true; more; {
		var line []byte
		line, lines, more = bytes.Cut(lines, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(": "))
		if !ok || !printable(value) {
			return h, false
		}
		switch {
		case is(name, "Host") && h.host == nil && len(value) > 0 && plainText(value):
			h.host = value
		case is(name, "Content-Length") && h.length < 0 && len(value) > 0 && len(value) <= 4:
			n, err := strconv.ParseUint(string(value), 10, 16)
			if err != nil {
				return h, false
			}
			h.length = int(n)
		case is(name, "Content-Type") && !h.form && string(value) == formType:
			h.form = true
		case is(name, "User-Agent"), is(name, "Accept"), is(name, "Accept-Encoding"):
		default:
			return h, false
		}
	}
	return h, h.host != nil
}

// is compares header names; case does not count.
func is(name []byte, want string) bool {
	return len(name) == len(want) && (string(name) == want || bytes.EqualFold(name, []byte(want)))
}

// printable reports that there is nothing but printable ASCII and blanks within.
func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// plainText reports that the bytes mean themselves in a host, a path or a query.
func plainText(b []byte) bool {
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.~/:@,=&", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// parseTarget reads path, query and form. A mistake in the parameters is left to
// the handler.
func (r *simple) parseTarget(target, body []byte) bool {
	path, query, _ := bytes.Cut(target, []byte("?"))
	if !plainText(path) || !plainText(query) {
		return false
	}
	r.path = string(path)
	key, ok := strings.CutPrefix(r.path, "/v2/keys")
	if !ok || key != "" && key[0] != '/' {
		return false
	}
	if key, ok = v2.ParsePath(key); !ok {
		return false
	}
	form, ok := parseForm(string(body), string(query))
	if !ok {
		return false
	}
	request, kerr := v2.Parse(r.method, key, form)
	r.request = request
	return kerr == nil && !request.Wait
}

// parseForm reads the parameters of body and query, the body's first.
func parseForm(body, query string) (form url.Values, ok bool) {
	if body == "" && query == "" {
		return nil, true
	}
	form, err := url.ParseQuery(body)
	if err != nil {
		return nil, false
	}
	if query == "" {
		return form, true
	}
	second, err := url.ParseQuery(query)
	for name, values := range second {
		form[name] = append(form[name], values...)
	}
	return form, err == nil
}
