package v2

import (
	"iter"
	"path"
	"strings"
)

// The keys of the records. All keys of interest are in one range, [RangeStart,
// RangeEnd), so that one watch sees them in one order: '.' is the byte before '/'.
const (
	RangeStart = ".v2/"
	RangeEnd   = "0" // the byte after '/'

	eventKey   = ".v2/e"
	nodePrefix = ".v2/n"
)

// What a write may name. Every directory on the way that is not there yet adds its
// whole path, three times, to the one transaction: within these bounds that stays
// below 7 MB. The original had no bound but that of its transport: etcd 3.4 takes
// 4,096 bytes with all headers as the first request of a connection, in which there
// is room for 2,000 levels.
const (
	MaxPath   = 4096 // bytes, percent-decoded, without /v2/keys
	MaxLevels = 1024 // components
)

// ParsePath makes a node's path of what follows /v2/keys in a percent-decoded URL
// path. A trailing slash is ignored; nothing at all is the root. It is not ok
// for a path with empty, "." or ".." components: those are answered with a
// redirect to [CleanURL].
func ParsePath(raw string) (p string, ok bool) {
	p = strings.TrimSuffix(raw, "/")
	switch {
	case p == "":
		return "/", true
	case p == "/", p[0] != '/', path.Clean(p) != p:
		return "", false
	}
	return p, true
}

// CleanURL resolves empty, "." and ".." components of a whole URL path. A
// trailing slash stays.
func CleanURL(p string) string {
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// components yields those of a v3 key or of a path other than "/". A v3 client
// may have put empty ones in; they are names like any other.
func components(key string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for rest, more := key[1:], true; more; {
			var name string
			name, rest, more = strings.Cut(rest, "/")
			if !yield(name) {
				return
			}
		}
	}
}

// segments is components as a list.
func segments(key string) []string {
	return strings.Split(key[1:], "/")
}

// recordKey is the v3 key of the node record that belongs to the node at p.
func recordKey(p string) string { return nodePrefix + p }

// below returns the range of the keys below key, a directory.
func below(key string) (start, end string) { return key + "/", key + "0" }

// isBelow reports whether p is somewhere below the directory dir.
func isBelow(p, dir string) bool {
	if dir == "/" {
		return p != "/"
	}
	return len(p) > len(dir) && p[len(dir)] == '/' && strings.HasPrefix(p, dir)
}

// hidden reports whether listings and recursive watches leave the name out.
func hidden(name string) bool { return strings.HasPrefix(name, "_") }
