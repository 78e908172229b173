package discovery

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/transport"
)

// A store that cannot be spoken to is called what the operator has called it.
func TestStoreIsNamed(t *testing.T) {
	silent := http.HandlerFunc(http.NotFound)
	plain, secure := httptest.NewServer(silent), httptest.NewUnstartedServer(silent)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	closed := httptest.NewServer(silent)
	closed.Close()
	for _, test := range []struct{ name, at, want string }{
		{"https, and it is http", strings.Replace(plain.URL, "http", "https", 1), "does not answer: tls: first record does not look like a TLS handshake (is it http:// or https:// there?)"},
		{"http, and it is https", strings.Replace(secure.URL, "https", "http", 1), "Client sent an HTTP request to an HTTPS server."},
		{"nobody", closed.URL, "connection refused"},
		{"no store", plain.URL, "gives no answer of a key space: 404"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := settings{Endpoints: []string{test.at}}
			store, err := otherStore(cfg.Endpoints, transport.TLSInfo{})
			if err != nil {
				t.Fatal(err)
			}
			base := start(t, store, func(c *Config) { c.StoreAt = cfg.storeAt() })
			status, body := say(t, "GET", base+"/new", nil)
			if status != http.StatusServiceUnavailable || !strings.HasPrefix(body, "the store at "+test.at+" ") || !strings.Contains(body, test.want) {
				t.Errorf("%d %s\nwant %s", status, body, test.want)
			}
			if strings.Contains(body, "there?") != (test.name == "https, and it is http") || strings.Contains(body, "http://store") {
				t.Error(body)
			}
		})
	}
}
