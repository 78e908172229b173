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
	back := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "endpoint" // rt puts its own
		},
		Transport:     rt,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug), // clients that went away
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				log.Debug("no member has answered", "method", r.Method, "path", r.URL.Path, "err", errors.Unwrap(err))
			}
			unanswered(w, err)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			message(w, http.StatusBadRequest, err.Error())
			return
		}
		r = r.Clone(r.Context())
		r.ContentLength, r.TransferEncoding = int64(len(body)), nil
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body, _ = r.GetBody() // it cannot fail
		if len(body) == 0 {
			r.Body, r.GetBody = http.NoBody, nil
		}
		back.ServeHTTP(w, r)
	})
}

// unanswered is the answer where there is none.
func unanswered(w http.ResponseWriter, err error) {
	var failed *FailedError
	switch {
	case errors.Is(err, ErrNoEndpoints):
		message(w, http.StatusServiceUnavailable, ErrNoEndpoints.Error())
	case errors.As(err, &failed):
		message(w, http.StatusBadGateway, failed.Error())
	default:
		message(w, http.StatusBadGateway, err.Error())
	}
}

// message is how the API tells of an error outside the key space.
func message(w http.ResponseWriter, status int, text string) {
	body, _ := json.Marshal(map[string]string{"message": text}) // a string always marshals
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}
