package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"flotilla/internal/fault"
)

// A Fetcher reads documents by HTTP. The zero value fetches as coreos-cloudinit did.
// What is sent compressed stays compressed.
type Fetcher struct {
	Try     time.Duration // for one try, body included; 0 is 10 s
	Tries   int           // 0 is 15
	Pause   time.Duration // after the first try, then doubling; 0 is 50 ms
	Longest time.Duration // pause between two tries; 0 is 5 s
	Limit   int64         // bytes of a body; 0 is MaxSize

	// Proxied asks for $http_proxy and its like. Metadata services are always asked
	// directly: their answers hold secrets, and their addresses mean something on
	// this machine's own link alone.
	Proxied bool

	dial func(ctx context.Context, network, address string) (net.Conn, error) // nil but in tests
}

// maxRedirects is how often a server may send us elsewhere for one document.
const maxRedirects = 10

func (f Fetcher) withDefaults() Fetcher {
	if f.Try <= 0 {
		f.Try = 10 * time.Second
	}
	if f.Tries <= 0 {
		f.Tries = 15
	}
	if f.Pause <= 0 {
		f.Pause = 50 * time.Millisecond
	}
	if f.Longest <= 0 {
		f.Longest = 5 * time.Second
	}
	if f.Limit <= 0 {
		f.Limit = MaxSize
	}
	return f
}

// errFinal is an answer that another try would not change.
type errFinal struct{ error }

func (e errFinal) Unwrap() error { return e.error }

// errStatus is an answer other than 200.
type errStatus struct {
	method, url string
	code        int
}

func (e errStatus) Error() string {
	return fmt.Sprintf("%s %s: the server answers %d %s", e.method, e.url, e.code, http.StatusText(e.code))
}

// final says whether another try is of no use: the server has understood and refuses.
// A server that is asked too often, or that did not get the whole question, may answer
// next time.
func (e errStatus) final() bool {
	return e.code < 500 && e.code != http.StatusTooManyRequests && e.code != http.StatusRequestTimeout
}

// missing says whether err is a server's answer that there is nothing of that name. A
// refusal (401, 403) is none: there may well be something.
func missing(err error) bool {
	var s errStatus
	return errors.As(err, &s) && s.final() && s.code >= 400 && s.code != http.StatusUnauthorized && s.code != http.StatusForbidden
}

// Get fetches a document and tries again after network errors and answers of 5xx.
func (f Fetcher) Get(ctx context.Context, from string, header http.Header) ([]byte, error) {
	f = f.withDefaults()
	pause := f.Pause
	for n := 1; ; n++ {
		body, err := f.once(ctx, http.MethodGet, from, header)
		switch {
		case err == nil:
			return body, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("fetch %s: %w", shown(from), context.Cause(ctx))
		case isFinal(err):
			return nil, err
		case n == f.Tries:
			return nil, fault.Hint(fmt.Errorf("after %d tries: %w", n, err), "is the server up, and is the network configured by now?")
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("fetch %s: %w: the last try: %w", shown(from), context.Cause(ctx), err)
		}
		pause = min(2*pause, f.Longest)
	}
}

func isFinal(err error) bool {
	var final errFinal
	var status errStatus
	return errors.As(err, &final) || errors.As(err, &status) && status.final()
}

// Once fetches a document with a single try.
func (f Fetcher) Once(ctx context.Context, from string, header http.Header) ([]byte, error) {
	return f.withDefaults().once(ctx, http.MethodGet, from, header)
}

// once is one try of any method; f has its defaults.
func (f Fetcher) once(ctx context.Context, method, from string, header http.Header) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.Try, fmt.Errorf("not answered in full within %v", f.Try))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, from, nil)
	if err != nil {
		return nil, errFinal{fmt.Errorf("fetch %s: %w", shown(from), err)}
	}
	if header != nil {
		req.Header = header.Clone()
	}
	req.Header.Set("User-Agent", "coreos-cloudinit/1.14 flotilla")
	resp, err := f.client(header).Do(req)
	if err != nil {
		return nil, explain(ctx, method, from, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errStatus{method, shown(from), resp.StatusCode}
	}
	body, err := readAtMost(resp.Body, f.Limit)
	if err != nil {
		return nil, explain(ctx, method, from, err)
	}
	return body, nil
}

// client makes an http.Client for one try: nothing is worth being kept open.
func (f Fetcher) client(header http.Header) *http.Client {
	t := &http.Transport{DisableCompression: true, DisableKeepAlives: true, DialContext: f.dial}
	if f.Proxied {
		t.Proxy = http.ProxyFromEnvironment
	}
	return &http.Client{Transport: t, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		switch {
		case len(via) > maxRedirects:
			return errFinal{fmt.Errorf("more than %d redirects", maxRedirects)}
		case next.URL.Scheme != "http" && next.URL.Scheme != "https":
			return errFinal{fault.Hint(fmt.Errorf("a redirect to %s is refused: only http and https are followed", next.URL.Redacted()),
				"if the document is a file of this machine, name the file")}
		case next.URL.Host != via[0].URL.Host: // what vendors want in headers is not for others
			for name := range header {
				next.Header.Del(name)
			}
		}
		return nil
	}}
}

// explain says what was being fetched, and that a try timed out where "context
// deadline exceeded" would.
func explain(ctx context.Context, method, from string, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // it names method and URL once more
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s %s: %w", method, shown(from), err)
}

// shown is a URL without its password.
func shown(from string) string {
	u, err := url.Parse(from)
	if err != nil {
		return fmt.Sprintf("%q", from)
	}
	return u.Redacted()
}

// readAtMost reads r to its end, and fails as soon as there are more bytes than limit.
func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, errFinal{fault.Hint(fmt.Errorf("more than %d bytes", limit), "a document is at most %d MiB: let it fetch what is bigger", MaxSize>>20)}
	}
	return data, nil
}
