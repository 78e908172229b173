package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	wire "flotilla/api/keys"
	"flotilla/client/keys"
	"flotilla/internal/kv/proxy"
)

// defaultSize is how many members a cluster is to have where nobody says.
const defaultSize = 3

const (
	// maxForm is the largest body of a request, maxValue the largest entry: a name
	// and a few URLs.
	maxForm  = 8 << 10
	maxValue = 1 << 10
	// spareEntries is how many members beyond Limits.MaxSize a token takes: some
	// register at the same time and are told only then that it is full.
	spareEntries = 10
	// Writes per second to entries, and how many at once: the store keeps an hour
	// of history. Who comes too fast waits, at most writeWait.
	writeRate, writeBurst = 20, 200
	writeWait             = 5 * time.Second
	// storeTimeout is how long the store may take to answer the service itself.
	storeTimeout = 10 * time.Second
	// healthFor is how long the answer to /health holds, which costs writes.
	healthFor = time.Second
)

// Limits keep a stranger who may make tokens from filling the disk.
type Limits struct {
	MaxSize   int           // of a token's cluster, members
	MaxTokens int           // kept at one time
	PerMinute int           // tokens made in a minute; a third of it at once
	Unused    time.Duration // after which a token goes that nobody registered with
	Used      time.Duration // after which a token goes that nobody has registered with again
}

// DefaultLimits are at most 2,000 tokens, for clusters of at most 50: about 120 MB
// if strangers fill each to its brim, 1 MB with clusters of three.
func DefaultLimits() Limits {
	return Limits{MaxSize: 50, MaxTokens: 2000, PerMinute: 60, Unused: 7 * 24 * time.Hour, Used: 365 * 24 * time.Hour}
}

// Config is what a service needs. Store and Log are required.
type Config struct {
	// Store carries requests to the store that holds the tokens: paths below
	// /v2/keys, any host.
	Store http.RoundTripper
	// StoreAt is what people know the store by: its endpoints, or a directory. It is
	// in what they are told when the store does not answer.
	StoreAt string
	// BaseURL is what the URLs of new tokens begin with; "" is the address that the
	// request was sent to.
	BaseURL string
	Limits  Limits
	Log     *slog.Logger
}

// service answers requests.
type service struct {
	Config
	keys   *keys.Client
	pass   http.Handler
	tokens *rate.Limiter
	writes *rate.Limiter

	mu       sync.Mutex
	healthAt time.Time // of the last test
	sick     error     // its outcome
}

// New makes the handler of the service.
func New(cfg Config) (http.Handler, error) {
	client, err := keys.New(keys.Config{
		Endpoints:  []string{"http://store"},
		HTTPClient: &http.Client{Transport: cfg.Store},
		Timeout:    storeTimeout, TotalTimeout: storeTimeout,
	})
	if err != nil {
		return nil, err
	}
	l := cfg.Limits
	return &service{
		Config: cfg, keys: client, pass: proxy.Forward(cfg.Store, cfg.Log),
		tokens: rate.NewLimiter(rate.Limit(float64(l.PerMinute)/60), max(1, l.PerMinute/3)),
		writes: rate.NewLimiter(writeRate, writeBurst),
	}, nil
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/new", "/new/":
		s.create(w, r)
		return
	case "/health", "/health/":
		s.health(w, r)
		return
	}
	t, ok := parsePath(r.URL.Path)
	switch {
	case !ok:
		http.NotFound(w, r)
	case !slices.Contains(methods[t.part], r.Method):
		w.Header().Set("Allow", strings.Join(methods[t.part], ","))
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		s.forward(w, r, t)
	case !s.slowDown(r.Context()):
		tooMany(w, "too many writes")
	case r.Method == http.MethodPut:
		s.put(w, r, t)
	default:
		s.forward(w, r, t)
	}
}

// slowDown waits until another write is due; false if that takes too long.
func (s *service) slowDown(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, writeWait)
	defer cancel()
	return s.writes.Wait(ctx) == nil
}

func tooMany(w http.ResponseWriter, text string) {
	w.Header().Set("Retry-After", "60")
	http.Error(w, text, http.StatusTooManyRequests)
}

// create makes a token and answers with its URL.
func (s *service) create(w http.ResponseWriter, r *http.Request) {
	n, err := parseSize(r.URL.Query().Get("size"), s.Limits.MaxSize)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !s.tokens.Allow() {
		tooMany(w, fmt.Sprintf("too many tokens are being made: at most %d a minute", s.Limits.PerMinute))
		return
	}
	if err := s.named(s.room(r.Context())); err != nil {
		s.Log.Warn("cannot make a token", "err", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	token, err := s.makeToken(r.Context(), n)
	if err != nil {
		s.Log.Warn("cannot make a token", "err", s.named(err))
		http.Error(w, "Unable to generate token", http.StatusBadRequest)
		return
	}
	s.Log.Info("new token", "size", n, "for", r.RemoteAddr)
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, s.base(r)+"/"+token)
}

// parseSize reads how many members a cluster is to have.
func parseSize(text string, most int) (int, error) {
	if text == "" {
		return min(defaultSize, most), nil
	}
	n, err := strconv.Atoi(text)
	if err == nil && (n < 1 || n > most) {
		err = fmt.Errorf("size %d: must be from 1 to %d", n, most)
	}
	return n, err
}

// room fails when there are as many tokens as may be.
func (s *service) room(ctx context.Context) error {
	all, err := s.keys.Get(ctx, registry, keys.GetOptions{})
	if isCode(err, wire.CodeKeyNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if n := len(all.Node.Nodes); n >= s.Limits.MaxTokens {
		return fmt.Errorf("there are %d tokens already: some have to expire first", n)
	}
	return nil
}

// makeToken makes a token. Half made, it goes as an unused one does.
func (s *service) makeToken(ctx context.Context, n int) (string, error) {
	token := newToken()
	_, err := s.keys.Set(ctx, tokenKey(token), "", keys.SetOptions{Dir: true, TTL: s.Limits.Unused, PrevExist: keys.MustNotExist})
	if err == nil {
		_, err = s.keys.Create(ctx, sizeKey(token), strconv.Itoa(n), 0)
	}
	return token, err
}

// base is what the URL of a token begins with.
func (s *service) base(r *http.Request) string {
	switch {
	case s.BaseURL != "":
		return strings.TrimRight(s.BaseURL, "/")
	case r.TLS != nil:
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// put lets a member write its entry, which keeps the token alive, or anybody renew
// the token itself.
func (s *service) put(w http.ResponseWriter, r *http.Request, t target) {
	body, form, err := readForm(w, r)
	if err == nil && t.part == entry {
		err = checkEntry(form)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if t.part == entry {
		if err := s.admit(r.Context(), t); err != nil {
			s.fail(w, err)
			return
		}
	}
	// The TTL alone, which no watch sees: members that wait for others count each
	// event as one. It fails for a token that does not exist: /new makes them.
	renewed, err := s.keys.Set(r.Context(), tokenKey(t.token), "",
		keys.SetOptions{Dir: true, TTL: s.Limits.Used, PrevExist: keys.MustExist, Refresh: true})
	if err != nil {
		s.fail(w, err)
		return
	}
	if t.part == whole {
		writeEvent(w, renewed)
		return
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	s.forward(w, r, t)
}

// readForm reads the body and gives it back beside what query and body say.
func readForm(w http.ResponseWriter, r *http.Request) (body []byte, form url.Values, err error) {
	conn := http.NewResponseController(w)
	conn.SetReadDeadline(time.Now().Add(headerTimeout)) // unsupported by recorders of tests only
	if body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm)); err != nil {
		return nil, nil, err
	}
	conn.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err := r.ParseForm(); err != nil {
		return nil, nil, err
	}
	return body, r.Form, nil
}

// checkEntry refuses what is no entry of a member.
func checkEntry(form url.Values) error {
	for _, v := range form["value"] {
		if len(v) > maxValue {
			return fmt.Errorf("value of %d bytes: an entry has at most %d", len(v), maxValue)
		}
	}
	if dir := form.Get("dir"); dir != "" && dir != "false" {
		return errors.New("an entry is no directory")
	}
	return nil
}

// errFull is the answer to a new entry where there are enough.
var errFull = errors.New("the token has no room for another entry")

// admit says whether the entry may be written: one that exists, or one more.
func (s *service) admit(ctx context.Context, t target) error {
	all, err := s.keys.Get(ctx, tokenKey(t.token), keys.GetOptions{})
	if err != nil {
		return err
	}
	for _, n := range all.Node.Nodes {
		if strings.HasSuffix(n.Key, "/"+t.id) {
			return nil
		}
	}
	if len(all.Node.Nodes) >= s.Limits.MaxSize+spareEntries {
		return errFull
	}
	return nil
}

// forward passes the request on to the key space.
func (s *service) forward(w http.ResponseWriter, r *http.Request, t target) {
	r = r.Clone(r.Context())
	r.URL.Path, r.URL.RawPath = "/v2/keys"+t.key(), ""
	if r.Method != http.MethodPut {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	s.pass.ServeHTTP(w, r)
}

// health makes a token and removes it.
func (s *service) health(w http.ResponseWriter, r *http.Request) {
	if err := s.named(s.test(r.Context())); err != nil {
		s.Log.Warn("not healthy", "err", err)
		http.Error(w, "not healthy: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, "OK")
}

func (s *service) test(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.healthAt) < healthFor {
		return s.sick
	}
	token, err := s.makeToken(ctx, 1)
	if err == nil {
		_, err = s.keys.Delete(ctx, tokenKey(token), keys.DeleteOptions{Recursive: true})
	}
	if ctx.Err() == nil {
		s.healthAt, s.sick = time.Now(), err
	}
	return err
}

func isCode(err error, code int) bool {
	kerr, ok := errors.AsType[*wire.Error](err)
	return ok && kerr.ErrorCode == code
}
