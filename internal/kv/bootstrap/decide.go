package bootstrap

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// What can be wrong with a token. Their texts are etcd's.
var (
	ErrFull          = errors.New("discovery: cluster is full")
	ErrBadSize       = errors.New("discovery: size key is bad")
	ErrDuplicateID   = errors.New("discovery: found duplicate id")
	ErrDuplicateName = errors.New("discovery: found duplicate name")
)

// Entry is what one member has written into a token's directory.
type Entry struct {
	ID      string // in hexadecimal, as the key has it
	Value   string // NAME=URL[,NAME=URL...]
	Created uint64 // index of the key's creation
}

// View is a token as it is listed.
type View struct {
	Size    string // the text of _config/size
	Entries []Entry
}

// Self is what a member knows about itself. The zero value is nobody: a proxy.
type Self struct {
	ID string // the id that the engine will have; "" for a proxy
	// Registered says that the entry with our ID is our own doing, in this
	// attempt to found the cluster.
	Registered bool
}

// Step is what to do next.
type Step int

// The steps, in the order in which a member takes them.
const (
	Register Step = iota // write our entry
	Wait                 // for further entries
	Form                 // the cluster is known
)

func (s Step) String() string { return [...]string{"register", "wait", "form"}[s] }

// Decision is a step and its reason.
type Decision struct {
	Step    Step
	Missing int    // Wait: how many entries
	Cluster string // Form: the initial cluster
	Why     string
}

// Decide says what to do about a token in this state. It fails with one of the
// errors above, and with another one where the entries are no cluster.
func Decide(v View, self Self) (Decision, error) {
	size, err := strconv.Atoi(v.Size)
	if err != nil || size < 1 {
		return Decision{}, ErrBadSize
	}
	entries := slices.Clone(v.Entries)
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Created, b.Created) })
	own := slices.IndexFunc(entries, func(e Entry) bool { return e.ID == self.ID })
	switch {
	case self.ID != "" && own >= 0 && !self.Registered:
		return Decision{}, ErrDuplicateID
	case self.ID != "" && own >= size, self.ID != "" && own < 0 && len(entries) >= size:
		return Decision{}, ErrFull
	case self.ID != "" && own < 0:
		return Decision{Step: Register, Why: fmt.Sprintf("%d of %d members have registered, we have not", len(entries), size)}, nil
	case len(entries) < size:
		missing := size - len(entries)
		return Decision{Step: Wait, Missing: missing, Why: fmt.Sprintf("waiting for %s", members(missing))}, nil
	}
	cluster, err := clusterOf(entries[:size])
	if err != nil {
		return Decision{}, err
	}
	return Decision{Step: Form, Cluster: cluster, Why: fmt.Sprintf("all %d members have registered", size)}, nil
}

func members(n int) string {
	if n == 1 {
		return "1 more member"
	}
	return fmt.Sprintf("%d more members", n)
}

// clusterOf is the entries as --initial-cluster takes them.
func clusterOf(entries []Entry) (string, error) {
	values := make([]string, len(entries))
	for i, e := range entries {
		values[i] = e.Value
	}
	cluster := strings.Join(values, ",")
	urls, err := types.NewURLsMap(cluster)
	if err != nil {
		return "", fmt.Errorf("discovery: the entries %q are no cluster: %w", cluster, err)
	}
	if len(urls) != len(entries) {
		return "", ErrDuplicateName
	}
	return cluster, nil
}

// parseEntry reads the value of an entry: one name, and its URLs.
func parseEntry(value string) (name string, urls []string, err error) {
	all, err := types.NewURLsMap(value)
	if err != nil {
		return "", nil, err
	}
	if len(all) != 1 {
		return "", nil, fmt.Errorf("%d names in one entry", len(all))
	}
	for n, u := range all {
		name, urls = n, u.StringSlice()
	}
	return name, urls, nil
}

// entryOf is the value of an entry.
func entryOf(name string, urls []string) string {
	parts := make([]string, len(urls))
	for i, u := range urls {
		parts[i] = name + "=" + u
	}
	return strings.Join(parts, ",")
}
