package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"
	"time"
)

// SecretSize is how many random bytes the switch is turned on with.
const SecretSize = 32

// Token is a proof, for v3 clients, that the user was identified: it is worth
// something at every member until the given time, as long as the user's password
// and the switch stay as they are. "" if who is a guest or tokens cannot be signed.
func (s *State) Token(w Who, until time.Time) string {
	if w.user == "" || s.secret == nil || !s.Knows(w) {
		return ""
	}
	expires := until.Unix()
	return strings.Join([]string{
		base64.RawURLEncoding.EncodeToString([]byte(w.user)),
		strconv.FormatInt(expires, 36),
		base64.RawURLEncoding.EncodeToString(s.sign(w.user, expires)),
	}, ".")
}

// ByToken is the user that a token was made for; not ok if it is none of ours, or
// no longer.
func (s *State) ByToken(token string, now time.Time) (w Who, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || s.secret == nil {
		return Who{}, false
	}
	name, err1 := base64.RawURLEncoding.DecodeString(parts[0])
	expires, err2 := strconv.ParseInt(parts[1], 36, 64)
	mac, err3 := base64.RawURLEncoding.DecodeString(parts[2])
	if err1 != nil || err2 != nil || err3 != nil || now.Unix() >= expires {
		return Who{}, false
	}
	u, known := s.users[string(name)]
	if !known || !hmac.Equal(mac, s.sign(string(name), expires)) {
		return Who{}, false
	}
	return Who{string(name), u.Password}, true
}

// sign binds the name, the end and the password as it is now. Each part has its
// length before it, so that no two triples read the same.
func (s *State) sign(user string, expires int64) []byte {
	mac := hmac.New(sha256.New, s.secret)
	for _, part := range []string{user, strconv.FormatInt(expires, 36), s.users[user].Password} {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		mac.Write([]byte(part))
	}
	return mac.Sum(nil)
}
