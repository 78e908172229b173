package gate

import (
	"container/list"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/semaphore"

	"flotilla/internal/kv/auth"
)

const (
	// maxPassword is what bcrypt takes notice of. A longer password would be as
	// good as its first 72 bytes, so there is none.
	maxPassword = 72
	// maxWaiting bounds the requests that wait for a password to be verified.
	maxWaiting = 64
	// maxRemembered bounds the logins that are known to be right.
	maxRemembered = 1024
)

// logins verifies passwords. bcrypt is slow by intent: few run at a time, and what
// was right is remembered, so that a client pays once and not per request.
type logins struct {
	cost    int
	running *semaphore.Weighted
	waiting *semaphore.Weighted
	key     []byte // of the fingerprints; dies with the process
	nobody  func() string

	mu     sync.Mutex
	recent *list.List // of fingerprints, the latest used first
	known  map[fingerprint]*list.Element
}

// fingerprint stands for a password that fits a hash.
type fingerprint [sha256.Size]byte

func newLogins(cost int) *logins {
	l := &logins{
		cost:    cost,
		running: semaphore.NewWeighted(int64(max(1, runtime.GOMAXPROCS(0)/2))),
		waiting: semaphore.NewWeighted(maxWaiting),
		key:     make([]byte, 32),
		recent:  list.New(),
		known:   map[fingerprint]*list.Element{},
	}
	rand.Read(l.key) // never fails: it would end the process
	l.nobody = sync.OnceValue(func() string {
		h, _ := bcrypt.GenerateFromPassword([]byte(rand.Text()), cost) // a fit length and a valid cost
		return string(h)
	})
	return l
}

// verify reports whether the password fits the hash. The hash "" fits none, but
// takes as long, so that nobody learns which users there are.
func (l *logins) verify(ctx context.Context, hash, password string) (bool, error) {
	if len(password) > maxPassword {
		return false, nil
	}
	f := l.fingerprint(hash, password)
	if hash != "" && l.remembers(f) {
		return true, nil
	}
	right := false
	err := l.alone(ctx, func() {
		against := hash
		if against == "" {
			against = l.nobody()
		}
		right = bcrypt.CompareHashAndPassword([]byte(against), []byte(password)) == nil && hash != ""
	})
	if right {
		l.remember(f)
	}
	return right, err
}

// hash makes the hash of a new password.
func (l *logins) hash(ctx context.Context, password string) (hash string, err error) {
	lerr := l.alone(ctx, func() {
		var h []byte
		h, err = bcrypt.GenerateFromPassword([]byte(password), l.cost)
		hash = string(h)
	})
	if err = firstOf(lerr, err); err != nil {
		return "", fmt.Errorf("hash the password: %w", err)
	}
	return hash, nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// alone runs do with few others beside it.
func (l *logins) alone(ctx context.Context, do func()) error {
	if !l.waiting.TryAcquire(1) {
		return ErrBusy
	}
	defer l.waiting.Release(1)
	if err := l.running.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait for a password to be verified: %w", err)
	}
	defer l.running.Release(1)
	do()
	return nil
}

// fingerprint binds the password to the hash, so that a changed password forgets
// itself. The hash has a fixed length: no two pairs read the same.
func (l *logins) fingerprint(hash, password string) (f fingerprint) {
	mac := hmac.New(sha256.New, l.key)
	sum := sha256.Sum256([]byte(password))
	mac.Write(sum[:])
	mac.Write([]byte(hash))
	mac.Sum(f[:0])
	return f
}

func (l *logins) remembers(f fingerprint) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.known[f]
	if ok {
		l.recent.MoveToFront(e)
	}
	return ok
}

func (l *logins) remember(f fingerprint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.known[f]; ok {
		return
	}
	l.known[f] = l.recent.PushFront(f)
	if l.recent.Len() > maxRemembered {
		oldest := l.recent.Remove(l.recent.Back())
		delete(l.known, oldest.(fingerprint))
	}
}

// identify finds out who the credentials belong to. Not ok: they are wrong.
func (g *Gate) identify(ctx context.Context, st *auth.State, c auth.Credentials) (w auth.Who, ok bool, err error) {
	switch {
	case !st.Enabled():
		return auth.Guest(), true, nil
	case c.Sent:
		hash, who, _ := st.PasswordHash(c.User)
		ok, err := g.logins.verify(ctx, hash, c.Password)
		if !ok {
			who = auth.Guest()
		}
		return who, ok, err
	case c.Certificate != "":
		return st.ByCertificate(c.Certificate), true, nil
	}
	return auth.Guest(), true, nil
}
