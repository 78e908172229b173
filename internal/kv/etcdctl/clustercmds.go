package etcdctl

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"time"

	"flotilla/client/keys"
	"flotilla/internal/fault"
)

// healthEvery is the pause of "cluster-health --forever".
const healthEvery = 10 * time.Second

func clusterHealthCommand() command {
	var forever bool
	return command{
		name: "cluster-health", summary: "ask every member whether it is healthy", offline: true,
		flags: func(fs *flag.FlagSet) { both(fs, &forever, "forever", "f", "again every 10 s, until interrupted") },
		run: func(ctx context.Context, s *session, _ []string) error {
			for {
				err := s.clusterHealth(ctx)
				if !forever {
					return err
				}
				s.report(err)
				fmt.Fprintf(s.env.Stdout, "\nnext check after %d second...\n\n", int(healthEvery.Seconds()))
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(healthEvery):
				}
			}
		},
	}
}

func (s *session) clusterHealth(ctx context.Context) error {
	members, err := s.client.Members(ctx)
	if err != nil {
		fmt.Fprintln(s.env.Stdout, "cluster may be unhealthy: failed to list members")
		return fromStore(err)
	}
	healthy := 0
	for _, m := range members {
		if s.memberHealth(ctx, m) {
			healthy++
		}
	}
	switch healthy {
	case len(members):
		fmt.Fprintln(s.env.Stdout, "cluster is healthy")
		return nil
	case 0:
		fmt.Fprintln(s.env.Stdout, "cluster is unavailable")
	default:
		fmt.Fprintln(s.env.Stdout, "cluster is degraded")
	}
	if s.untrusted {
		fmt.Fprintln(s.env.Stderr, "hint: the members want certificates: ask as root, or give --ca-file, --cert-file and --key-file")
	}
	return fault.Code(exitUnhealthy, fault.ErrSilent)
}

// isUntrusted says whether an endpoint failed for want of certificates on this side.
func isUntrusted(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// memberHealth asks a member at one of its addresses after the other, and prints
// what the first that answers says.
func (s *session) memberHealth(ctx context.Context, m keys.Member) bool {
	w := s.env.Stdout
	if len(m.ClientURLs) == 0 {
		fmt.Fprintf(w, "member %s is unreachable: no available published client urls\n", m.ID)
		return false
	}
	for _, u := range m.ClientURLs {
		ok, err := s.client.Healthy(ctx, u)
		if err != nil {
			fmt.Fprintf(w, "failed to check the health of member %s on %s: %v\n", m.ID, u, whyNot(u, err))
			s.untrusted = s.untrusted || isUntrusted(err)
			continue
		}
		if ok {
			fmt.Fprintf(w, "member %s is healthy: got healthy result from %s\n", m.ID, u)
		} else {
			fmt.Fprintf(w, "member %s is unhealthy: got unhealthy result from %s\n", m.ID, u)
		}
		return ok
	}
	fmt.Fprintf(w, "member %s is unreachable: %v are all unreachable\n", m.ID, m.ClientURLs)
	return false
}

// whyNot is why a member's address did not answer, in the classic words.
func whyNot(url string, err error) string {
	var away *keys.UnreachableError
	if errors.As(err, &away) && len(away.Tries) == 1 {
		return fmt.Sprintf("Get %q: %v", url+"/health", away.Tries[0].Err)
	}
	return err.Error()
}
