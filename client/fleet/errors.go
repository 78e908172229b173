package fleet

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	api "flotilla/api/fleet"
)

// What an *Error can be matched against with errors.Is.
var (
	// ErrNotExist: the server answered 404. The unit does not exist, or the server
	// does not have the resource at all.
	ErrNotExist = errors.New("does not exist")
	// ErrUnavailable: nobody answered, or the server cannot reach its store. The
	// same request may succeed later.
	ErrUnavailable = errors.New("fleet API not available")
	// ErrForbidden: the server knows the caller and does not let it do this.
	ErrForbidden = errors.New("not allowed")
)

// Error is a request that failed.
type Error struct {
	Endpoint string        // what was dialled, as configured
	Request  string        // method and path: "PUT /fleet/v1/units/hello.service"
	Code     int           // HTTP status of the answer; 0: there was none
	Message  string        // the server's words; may be empty
	Hint     string        // what to try; may be empty
	Problems []api.Problem // every single thing wrong with the request; may be empty
	Waited   time.Duration // from the request to the failure
	Err      error         // why there was no (readable) answer; nil if there was one
}

var _ error = (*Error)(nil)

// say takes over what the server said.
func (e *Error) say(words api.Error) {
	e.Message, e.Hint, e.Problems = words.Message, words.Hint, words.Problems
}

// Error says the server's words, or why there are none.
func (e *Error) Error() string {
	switch {
	case e.Err != nil && e.Code == 0:
		return fmt.Sprintf("no answer from the fleet API at %s: %v (waited %s)", e.Endpoint, e.Err, e.Waited.Round(100*time.Millisecond))
	case e.Err != nil:
		return fmt.Sprintf("%s: unusable answer from %s: %v", e.Request, e.Endpoint, e.Err)
	case e.Message != "":
		return fmt.Sprintf("Error %d: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("Error %d: %s: %s", e.Code, e.Request, http.StatusText(e.Code))
}

// Unwrap returns why there was no answer.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether the failure is of the kind that target names.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrNotExist:
		return e.Code == http.StatusNotFound
	case ErrForbidden:
		return e.Code == http.StatusForbidden
	case ErrUnavailable:
		return e.Code == 0 && e.Err != nil && !errors.Is(e.Err, context.Canceled) ||
			e.Code == http.StatusServiceUnavailable
	}
	return false
}

// plainCause removes what net/http wraps around an error: method and URL are in
// Error already.
func plainCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// hint says what to try about a connection that was not made, "" if nothing is known
// to help. What a server says of a certificate comes as an alert of TLS, which has no
// type.
func hint(err error, now time.Time) string {
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch text := err.Error(); {
	case errors.As(err, &authority):
		return "the server's certificate was made by another authority than the one of --ca-file: is this the right cluster?"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the server's certificate is valid from %s to %s, and the clock of this machine says %s",
			stamp(invalid.Cert.NotBefore), stamp(invalid.Cert.NotAfter), stamp(now))
	case strings.Contains(text, "remote error: tls: certificate required"):
		return "the server wants a certificate: --cert-file and --key-file"
	case strings.Contains(text, "remote error: tls: expired certificate"):
		return "the certificate of --cert-file has expired or is not valid yet, by the server's clock: see its dates ('openssl x509 -dates -noout -in FILE') and the clocks of both machines"
	case strings.Contains(text, "remote error: tls: unknown certificate authority"), strings.Contains(text, "remote error: tls: bad certificate"):
		return "the server does not accept the certificate of --cert-file: it was made by another authority than the cluster's, or not for clients"
	}
	return ""
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
