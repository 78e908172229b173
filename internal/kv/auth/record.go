package auth

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// The v3 keys of the records: all that begins with RecordsStart, which is the range
// up to RecordsEnd.
const (
	RecordsStart = ".v2/auth/"
	RecordsEnd   = ".v2/auth0" // '0' is the byte after '/'

	// RevisionKey is put with every change; its revision is the state's version.
	RevisionKey = RecordsStart + "revision"

	// SwitchKey is there while authentication is on.
	SwitchKey = RecordsStart + "enabled"

	userPrefix = RecordsStart + "users/"
	rolePrefix = RecordsStart + "roles/"
)

// Records is the range of the records.
var Records = Range{RecordsStart, RecordsEnd}

// Record is one of the store's keys.
type Record struct {
	Key, Value string
	Revision   int64 // of its last change
}

// Write is one key to be put or deleted.
type Write struct {
	Key, Value string
	Delete     bool
}

// The records' values. Roles may be null or empty, which answers tell apart.
type (
	switchRecord struct {
		Secret string `json:"secret"` // base64; what tokens are signed with
	}
	userRecord struct {
		Password string   `json:"password"` // bcrypt
		Roles    []string `json:"roles"`
	}
)

// State is everything there is to know about users, roles and the switch at one
// moment. It is never changed: another state takes its place. The zero value has
// nobody in it and is off.
type State struct {
	enabled bool
	secret  []byte
	version int64
	users   map[string]userRecord
	roles   map[string]Permissions
}

// Load makes the state that the records say. A switch that cannot be read counts as
// on; a user that cannot be read has no password and no roles, a role no patterns.
func Load(records []Record) *State {
	s := &State{users: map[string]userRecord{}, roles: map[string]Permissions{}}
	for _, r := range records {
		switch {
		case r.Key == RevisionKey:
			s.version = r.Revision
		case r.Key == SwitchKey:
			s.enabled = true
			s.secret = decodeSecret(r.Value)
		case strings.HasPrefix(r.Key, userPrefix):
			s.users[r.Key[len(userPrefix):]] = decode[userRecord](r.Value)
		case strings.HasPrefix(r.Key, rolePrefix):
			s.roles[r.Key[len(rolePrefix):]] = decode[Permissions](r.Value)
		}
	}
	return s
}

// Enabled reports whether anybody is asked who they are.
func (s *State) Enabled() bool { return s.enabled }

// Version is the revision of the last change, 0 before the first: a change that was
// decided on this state holds as long as RevisionKey has this revision.
func (s *State) Version() int64 { return s.version }

func decode[T any](value string) T {
	var out, none T
	if json.Unmarshal([]byte(value), &out) != nil {
		return none
	}
	return out
}

// decodeSecret is nil for a secret too short to be one of ours; then no token is
// worth anything.
func decodeSecret(value string) []byte {
	secret, err := base64.StdEncoding.DecodeString(decode[switchRecord](value).Secret)
	if err != nil || len(secret) < SecretSize {
		return nil
	}
	return secret
}

func put(key string, v any) Write {
	b, err := json.Marshal(v)
	if err != nil {
		panic("auth: encode record: " + err.Error()) // strings and lists of them
	}
	return Write{Key: key, Value: string(b)}
}

func putSwitch(secret []byte) Write {
	return put(SwitchKey, switchRecord{base64.StdEncoding.EncodeToString(secret)})
}
