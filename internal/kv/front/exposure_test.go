package front

import (
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"

	"flotilla/internal/fault"
)

func TestExposure(t *testing.T) {
	for _, test := range []struct {
		name           string
		client, peer   string
		clientCert     bool
		peerCert       bool
		plain, anyone  bool
		want, wantHint string // "": permitted
	}{
		{name: "loopback", client: "http://127.0.0.1:1,http://localhost:2,http://[::1]:3", peer: "http://127.0.0.1:4"},
		{name: "unix socket", client: "unix://localhost:1", peer: "http://127.0.0.1:4"},
		{name: "plain client", client: "http://10.0.0.1:1", peer: "http://127.0.0.1:4", want: "http://10.0.0.1:1 (client)", wantHint: "--allow-plain-http"},
		{name: "plain on all", client: "http://0.0.0.0:1", peer: "http://127.0.0.1:4", want: "http://0.0.0.0:1 (client)", wantHint: "--allow-plain-http"},
		{name: "plain peer", client: "http://127.0.0.1:1", peer: "http://10.0.0.1:4", want: "http://10.0.0.1:4 (peer)", wantHint: "--allow-plain-http"},
		{name: "plain permitted", client: "http://10.0.0.1:1", peer: "http://10.0.0.1:4", plain: true},
		{name: "https without client certificates", client: "https://10.0.0.1:1", peer: "http://127.0.0.1:4", want: "--client-cert-auth", wantHint: "--allow-anonymous-https"},
		{name: "https permitted", client: "https://10.0.0.1:1", peer: "https://10.0.0.1:4", anyone: true},
		{name: "https with client certificates", client: "https://10.0.0.1:1", peer: "https://10.0.0.1:4", clientCert: true, peerCert: true},
		{name: "peers without", client: "https://10.0.0.1:1", peer: "https://10.0.0.1:4", clientCert: true, want: "--peer-client-cert-auth", wantHint: "--allow-anonymous-https"},
		{name: "one permission is not the other", client: "https://10.0.0.1:1", peer: "http://127.0.0.1:4", plain: true, want: "https://10.0.0.1:1", wantHint: "--allow-anonymous-https"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := embed.NewConfig()
			cfg.ListenClientUrls = types.MustNewURLs(strings.Split(test.client, ","))
			cfg.ListenPeerUrls = types.MustNewURLs(strings.Split(test.peer, ","))
			cfg.ClientTLSInfo.ClientCertAuth, cfg.PeerTLSInfo.ClientCertAuth = test.clientCert, test.peerCert
			err := CheckExposure(Audiences(cfg), Allowed{PlainHTTP: test.plain, AnonymousTLS: test.anyone})
			if test.want == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("permitted")
			}
			text := err.Error() + strings.Join(fault.Hints(err), " ")
			for _, want := range []string{test.want, test.wantHint} {
				if !strings.Contains(text, want) {
					t.Errorf("error does not contain %q:\n%s", want, text)
				}
			}
		})
	}
}
