package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
)

// maxBody is the largest body that is passed on: what a member takes itself.
const maxBody = 12 << 20

// Forward passes requests on through rt and the answers back, whatever they are;
// answers are passed on as they come, so that a watch streams. A body is read
// completely first, so that a client that stops half-way does not hold a member
// up. Where rt has no answer it is 503 (ErrNoEndpoints) or 502, with the error's
// text as JSON.
func Forward(rt http.RoundTripper, log *slog.Logger) http.Handler {
	return &forwarder{rt: rt, log: log}
}

// forwarder is a Forward that somebody may follow.
type forwarder struct {
	rt  http.RoundTripper
	log *slog.Logger
	// answered is shown each answer before it is passed on; may be nil.
	answered func(*http.Response)
	// instead answers where rt could not, if it can; may be nil.
	instead func(http.ResponseWriter, *http.Request) bool
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		message(w, http.StatusBadRequest, err.Error())
		return
	}
	out := r.Clone(r.Context())
	out.ContentLength, out.TransferEncoding = int64(len(body)), nil
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	out.Body, _ = out.GetBody() // it cannot fail
	if len(body) == 0 {
		out.Body, out.GetBody = http.NoBody, nil
	}
	back := &httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     f.rt,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(f.log.Handler(), slog.LevelDebug), // clients that went away
		ModifyResponse: func(resp *http.Response) error {
			if f.answered != nil {
				f.answered(resp)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { f.unanswered(w, r, err) },
	}
	back.ServeHTTP(w, out)
}

func rewrite(r *httputil.ProxyRequest) {
	r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
	r.SetXForwarded()
	r.Out.URL.Scheme, r.Out.URL.Host = "http", "endpoint" // the transport puts its own
}

// unanswered is the answer where there is none.
func (f *forwarder) unanswered(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody is there to read it
	}
	f.log.Debug("no member has answered", "method", r.Method, "path", r.URL.Path, "err", err, "cause", errors.Unwrap(err))
	if f.instead != nil && f.instead(w, r) {
		return
	}
	if errors.Is(err, ErrNoEndpoints) {
		message(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	message(w, http.StatusBadGateway, err.Error())
}

// message is how the API tells of an error outside the key space.
func message(w http.ResponseWriter, status int, text string) {
	body, _ := json.Marshal(map[string]string{"message": text}) // a string always marshals
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}
