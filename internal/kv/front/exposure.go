package front

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"go.etcd.io/etcd/server/v3/embed"

	"flotilla/internal/fault"
)

// Audience is one group of listening addresses and who may come in there.
type Audience struct {
	Who        string // "client", "peer", "metrics"
	URLs       []url.URL
	ClientCert bool   // a certificate of the other side is asked for
	CertFlags  string // the flags that ask for it
}

// Allowed is what a flag has permitted by name. The zero value permits nothing.
type Allowed struct {
	PlainHTTP    bool // http:// beyond loopback: whoever reaches the port may read and write everything
	AnonymousTLS bool // https:// beyond loopback without client certificates
}

// Audiences is who comes in at the addresses that the engine's flags name.
func Audiences(e *embed.Config) []Audience {
	const clientFlags = "--client-cert-auth --trusted-ca-file"
	client := e.ClientTLSInfo.ClientCertAuth
	return []Audience{
		{"client", e.ListenClientUrls, client, clientFlags},
		{"client", e.ListenClientHttpUrls, client, clientFlags},
		{"metrics", e.ListenMetricsUrls, client, clientFlags},
		{"peer", e.ListenPeerUrls, e.PeerTLSInfo.ClientCertAuth, "--peer-client-cert-auth --peer-trusted-ca-file"},
	}
}

// CheckExposure refuses addresses beyond loopback on which anybody who reaches
// the port would be let in, unless a flag says that this is meant. It reports all
// of them at once.
func CheckExposure(audiences []Audience, allowed Allowed) error {
	var errs []error
	plain, anonymous := false, false
	for _, a := range audiences {
		for _, u := range a.URLs {
			switch {
			case local(u):
			case !secure(u) && !allowed.PlainHTTP:
				plain = true
				errs = append(errs, fmt.Errorf("refuse to listen on %s (%s): plain http beyond loopback lets anybody who reaches it read and write everything", u.String(), a.Who))
			case secure(u) && !a.ClientCert && !allowed.AnonymousTLS:
				anonymous = true
				errs = append(errs, fmt.Errorf("refuse to listen on %s (%s): https beyond loopback without client certificates (%s)", u.String(), a.Who, a.CertFlags))
			}
		}
	}
	err := errors.Join(errs...)
	if anonymous {
		err = fault.Hint(err, "ask for client certificates, or say --allow-anonymous-https if the network in between is all yours")
	}
	if plain {
		err = fault.Hint(err, "use https:// with certificates, listen on 127.0.0.1, or say --allow-plain-http if the network in between is all yours")
	}
	return err
}

func secure(u url.URL) bool { return u.Scheme == "https" || u.Scheme == "unixs" }

// local tells whether only this machine can reach the address.
func local(u url.URL) bool {
	if strings.HasPrefix(u.Scheme, "unix") || u.Hostname() == "localhost" {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return ip != nil && ip.IsLoopback()
}
