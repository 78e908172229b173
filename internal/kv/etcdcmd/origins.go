package etcdcmd

import (
	"flag"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// allOrigins stands for every origin.
const allOrigins = "*"

// origins is the value of --cors: the web pages whose scripts may ask, as etcd 2 took
// them (any origin, with or without a port) and as etcd 3 takes them (with one).
type origins struct {
	given []string
	to    *map[string]struct{} // what is compared with the header Origin
}

var _ flag.Value = (*origins)(nil)

// Set takes a list of origins with commas in between.
func (o *origins) Set(s string) error {
	var given []string
	all := map[string]struct{}{}
	for text := range strings.SplitSeq(s, ",") {
		text = strings.TrimSuffix(strings.TrimSpace(text), "/")
		sent, err := asSent(text)
		if err != nil {
			return err
		}
		given = append(given, text)
		all[text], all[sent] = struct{}{}, struct{}{}
	}
	slices.Sort(given)
	o.given, *o.to = slices.Compact(given), all
	return nil
}

// String is the list; the flag package also asks one that it has made itself.
func (o *origins) String() string { return strings.Join(o.given, ",") }

// asSent is an origin as browsers send it: in lower case, without the port that its scheme
// has anyway (RFC 6454, section 6.2).
func asSent(origin string) (string, error) {
	if origin == allOrigins {
		return origin, nil
	}
	u, err := url.Parse(origin)
	if err != nil {
		return "", err
	}
	if bare := (url.URL{Scheme: u.Scheme, Host: u.Host}); u.Scheme == "" || u.Hostname() == "" || bare.String() != u.String() {
		return "", fmt.Errorf("%q is no origin: want %s, or SCHEME://HOST or SCHEME://HOST:PORT, with commas in between", origin, allOrigins)
	}
	host := strings.ToLower(u.Host)
	if ports := map[string]string{"http": "80", "https": "443"}; u.Port() != "" && u.Port() == ports[u.Scheme] {
		host = strings.TrimSuffix(host, ":"+u.Port())
	}
	return u.Scheme + "://" + host, nil
}
