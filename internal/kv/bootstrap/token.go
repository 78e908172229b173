package bootstrap

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"flotilla/api/keys"
)

const (
	// askTimeout is how long a request may take, watches excepted.
	askTimeout = 10 * time.Second
	// maxAnswer is far more than a directory of entries has.
	maxAnswer = 4 << 20
)

// Token is a token at its URL.
type Token struct {
	url  *url.URL
	http *http.Client
}

// Open makes a token of its URL; it connects with the first request. through is
// the URL of an HTTP proxy, "" for the one that the environment names, if any.
// config is for https; nil means the system's roots and no client certificate.
func Open(rawURL, through string, config *tls.Config) (*Token, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("discovery URL %q: must be of the form http://HOST[:PORT]/TOKEN", rawURL)
	}
	if strings.Trim(u.Path, "/") == "" {
		return nil, fmt.Errorf("discovery URL %q names no token", rawURL)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = config
	if through != "" {
		if !strings.Contains(through, "://") {
			through = "http://" + through
		}
		p, err := url.Parse(through)
		if err != nil || p.Host == "" {
			return nil, fmt.Errorf("HTTP proxy %q: must be of the form http://HOST:PORT", through)
		}
		t.Proxy = http.ProxyURL(p)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return &Token{url: u, http: &http.Client{Transport: t}}, nil
}

// Close drops idle connections.
func (t *Token) Close() { t.http.CloseIdleConnections() }

// Hint is where a member was last known to be.
type Hint struct {
	Name     string
	ID       string // in hexadecimal
	PeerURLs []string
}

// Hints lists the members that have registered, ordered by that. An entry that is
// none is left out.
func (t *Token) Hints(ctx context.Context) ([]Hint, error) {
	entries, _, err := t.entries(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask %s who has registered: %w", t.url, err)
	}
	var hints []Hint
	for _, e := range entries {
		if name, urls, err := parseEntry(e.Value); err == nil {
			hints = append(hints, Hint{name, e.ID, urls})
		}
	}
	return hints, nil
}

// Renew writes a member's entry anew, so that others find it at its present
// addresses. It keeps its place in the order if it is still there.
func (t *Token) Renew(ctx context.Context, id, name string, peerURLs []string) error {
	form := url.Values{"value": {entryOf(name, peerURLs)}}
	_, err := t.ask(ctx, http.MethodPut, "/"+id, url.Values{"prevExist": {"true"}}, form)
	if isCode(err, keys.CodeKeyNotFound) {
		_, err = t.ask(ctx, http.MethodPut, "/"+id, nil, form)
	}
	if err != nil {
		return fmt.Errorf("renew the entry of %s at %s: %w", name, t.url, err)
	}
	return nil
}

// register writes a member's entry, which must not be there.
func (t *Token) register(ctx context.Context, id, name string, peerURLs []string) error {
	_, err := t.ask(ctx, http.MethodPut, "/"+id, url.Values{"prevExist": {"false"}}, url.Values{"value": {entryOf(name, peerURLs)}})
	if isCode(err, keys.CodeNodeExist) {
		return ErrDuplicateID
	}
	return err
}

func isCode(err error, code int) bool {
	kerr, ok := errors.AsType[*keys.Error](err)
	return ok && kerr.ErrorCode == code
}

// view reads the token. index is the store's index of that moment.
func (t *Token) view(ctx context.Context) (v View, index uint64, err error) {
	size, err := t.ask(ctx, http.MethodGet, "/_config/size", nil, nil)
	if err != nil {
		return View{}, 0, err
	}
	if size.Node.Value != nil {
		v.Size = *size.Node.Value
	}
	v.Entries, index, err = t.entries(ctx)
	return v, index, err
}

func (t *Token) entries(ctx context.Context) ([]Entry, uint64, error) {
	dir, err := t.ask(ctx, http.MethodGet, "", nil, nil)
	if err != nil {
		return nil, 0, err
	}
	var out []Entry
	for _, n := range dir.Node.Nodes {
		if id := path.Base(n.Key); id != "_config" && n.Value != nil {
			out = append(out, Entry{ID: id, Value: *n.Value, Created: n.CreatedIndex})
		}
	}
	return out, dir.index, nil
}

// changed waits until something below the token changes after the index. It may
// return without a change; the caller looks again.
func (t *Token) changed(ctx context.Context, after uint64) error {
	_, err := t.ask(ctx, http.MethodGet, "", url.Values{
		"wait": {"true"}, "recursive": {"true"}, "waitIndex": {strconv.FormatUint(after+1, 10)},
	}, nil)
	if _, ok := errors.AsType[*keys.Error](err); ok || errors.Is(err, errEmpty) {
		return nil // cut off, or the history is gone: look again
	}
	return err
}

// answer is an event and the store's index.
type answer struct {
	keys.Event
	index uint64
}

// errEmpty: the answer ended before there was anything in it, as a watch does when
// the server stops.
var errEmpty = errors.New("empty answer")

// unreachable is a failure that another try may mend.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// ask makes one request below the token's URL. An error of the key space comes as
// a *keys.Error; unreachable says that nobody gave a useful answer.
func (t *Token) ask(ctx context.Context, method, below string, query, form url.Values) (answer, error) {
	if query.Get("wait") == "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("no answer within %v", askTimeout))
		defer cancel()
	}
	u := *t.url
	u.Path += below
	u.RawPath = ""
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := t.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return answer{}, unreachable{err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{}, unreachable{err}
	}
	return parseAnswer(resp.StatusCode, resp.Header, body)
}

// parseAnswer reads what a key space, or somebody in front of it, has answered.
func parseAnswer(status int, header http.Header, body []byte) (answer, error) {
	var a answer
	a.index, _ = strconv.ParseUint(header.Get("X-Etcd-Index"), 10, 64)
	if status >= 300 {
		var kerr keys.Error
		if json.Unmarshal(body, &kerr) == nil && kerr.ErrorCode != 0 {
			return a, refusal(status, &kerr)
		}
		return a, refusal(status, fmt.Errorf("%d %s: %s", status, http.StatusText(status), strings.TrimSpace(string(body))))
	}
	if len(strings.TrimSpace(string(body))) == 0 {
		return a, errEmpty
	}
	if err := json.Unmarshal(body, &a.Event); err != nil {
		return a, fmt.Errorf("not the answer of an etcd key space: %w", err)
	}
	if a.Node == nil {
		return a, errors.New("not the answer of an etcd key space: it has no node")
	}
	return a, nil
}

// refusal tells a server that cannot answer now from one that will not.
func refusal(status int, err error) error {
	if status >= 500 || status == http.StatusTooManyRequests {
		return unreachable{err}
	}
	return err
}
