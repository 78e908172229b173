package discovery

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
)

// registry is the hidden directory that holds the tokens.
const registry = "/_etcd/registry"

// tokenBytes makes a token that nobody guesses.
const tokenBytes = 16

// maxID is the length of a member's id: 16 hexadecimal digits since etcd 2.0, a
// name before that.
const maxID = 64

// part is what of a token a path names.
type part int

const (
	whole part = iota // the directory
	entry             // of one member
	size
)

// methods of each part.
var methods = [...][]string{
	whole: {http.MethodGet, http.MethodHead, http.MethodPut},
	entry: {http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete},
	size:  {http.MethodGet, http.MethodHead},
}

// target is a path of the service below a token.
type target struct {
	token string
	part  part
	id    string // of an entry
}

// key is where the target lies in the key space.
func (t target) key() string {
	switch t.part {
	case entry:
		return tokenKey(t.token) + "/" + t.id
	case size:
		return sizeKey(t.token)
	}
	return tokenKey(t.token)
}

func tokenKey(token string) string { return registry + "/" + token }
func sizeKey(token string) string  { return tokenKey(token) + "/_config/size" }

// parsePath reads the path of a request, decoded.
func parsePath(path string) (target, bool) {
	token, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !isToken(token) {
		return target{}, false
	}
	switch {
	case rest == "":
		return target{token: token}, true
	case rest == "_config/size":
		return target{token: token, part: size}, true
	case isID(rest):
		return target{token: token, part: entry, id: rest}, true
	}
	return target{}, false
}

func isToken(s string) bool {
	return len(s) == 2*tokenBytes && strings.Trim(s, "0123456789abcdef") == ""
}

// isID leaves out hidden names and what would be another path.
func isID(s string) bool {
	ok := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_'
	}
	return s != "" && len(s) <= maxID && s[0] != '_' && strings.Trim(s, ".") != "" &&
		!slices.ContainsFunc([]byte(s), func(c byte) bool { return !ok(c) })
}

// newToken makes a token's name.
func newToken() string {
	b := make([]byte, tokenBytes)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
