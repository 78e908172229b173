package member

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/pkg/v3/httputil"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"flotilla/internal/kv/gate"
	"flotilla/internal/kv/mvcc"
	"flotilla/internal/kv/v2http"
)

// handler is all that the member says over HTTP/1: the v2 API, and beside it what
// the engine offers to monitoring. Only the latter goes through a multiplexer: v2
// paths have to arrive as they were sent.
func (m *Member) handler(s *etcdserver.EtcdServer, cfg *embed.Config, keys http.Handler, guard *gate.Gate, json *jsonGateway, stopping context.Context) http.Handler {
	v2 := endWatches(keys, stopping)
	beside := embed.WrapCORS(cfg.CORS, besideV2(s, cfg, guard, json))
	return allowHosts(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isBeside(r.URL.Path) {
			beside.ServeHTTP(w, r)
			return
		}
		v2.ServeHTTP(w, r)
	}))
}

func (m *Member) v2Config(s *etcdserver.EtcdServer, cfg *embed.Config, store *mvcc.Store, guard *gate.Gate) v2http.Config {
	return v2http.Config{
		Store:   store,
		Info:    info{s, m.scout},
		Log:     m.log,
		Gate:    guard,
		Origins: slices.Sorted(maps.Keys(cfg.CORS)),
	}
}

// isBeside tells the engine's paths from those of the v2 API.
func isBeside(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "metrics", "livez", "readyz", "debug", "v3":
		return true
	}
	return false
}

func besideV2(s *etcdserver.EtcdServer, cfg *embed.Config, guard *gate.Gate, json *jsonGateway) http.Handler {
	mux := http.NewServeMux()
	etcdhttp.HandleMetrics(mux)
	etcdhttp.HandleHealth(s.Logger(), mux, s)
	etcdhttp.HandleDebug(mux)
	if cfg.EnablePprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	if json != nil {
		mux.Handle("/v3/", guard.Gateway(json))
	}
	return mux
}

// allowHosts refuses plain requests whose Host is not on the list that
// --host-whitelist gives: a web page must not reach a store on loopback by a name
// that it points there (DNS rebinding).
func allowHosts(s *etcdserver.EtcdServer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil && !allowedHost(s, r.Host) {
			http.Error(w, fmt.Sprintf("host %q is not served here: use https, or add it to --host-whitelist", httputil.GetHostname(r)), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// allowedHost takes a Host header.
func allowedHost(s *etcdserver.EtcdServer, host string) bool {
	return s.AccessController.IsHostWhitelisted(httputil.GetHostname(&http.Request{Host: host}))
}

// info tells the v2 API about the member.
type info struct {
	s     *etcdserver.EtcdServer
	scout *scout // for Unhealthy
}

var _ v2http.Info = info{}

func (i info) ClusterID() uint64 { return uint64(i.s.Cluster().ID()) }
func (i info) RaftIndex() uint64 { return i.s.CommittedIndex() }
func (i info) RaftTerm() uint64  { return i.s.Term() }

func (i info) Members() []v2http.Member {
	members := i.s.Cluster().Members()
	out := make([]v2http.Member, len(members))
	for n, m := range members {
		out[n] = v2Member(m)
	}
	return out
}

func (i info) Leader() (v2http.Member, bool) {
	id := i.s.Leader()
	if id == types.ID(0) {
		return v2http.Member{}, false
	}
	m := i.s.Cluster().Member(id)
	if m == nil {
		return v2http.Member{}, false
	}
	return v2Member(m), true
}

// healthTimeout is how long a read that asks the other members may take.
const healthTimeout = 3 * time.Second

// Unhealthy asks the cluster for a read that a majority has to confirm, and says why
// there is none: who of the members answers, and since when nobody leads.
func (i info) Unhealthy() (reason string) {
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	if alarms := i.s.Alarms(); len(alarms) > 0 {
		return alarmed(alarms)
	}
	if i.s.Leader() == types.ID(0) {
		return fmt.Sprintf("no leader%s; %s", i.scout.leaderlessFor(), i.scout.present(ctx))
	}
	err := i.s.LinearizableReadNotify(ctx)
	if err == nil {
		return ""
	}
	ctx, cancel = context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	return fmt.Sprintf("no majority of the members has confirmed a read (%v); %s", err, i.scout.present(ctx))
}

// alarmed names the alarms and the members that raised them.
func alarmed(alarms []*pb.AlarmMember) string {
	var all []string
	for _, a := range alarms {
		all = append(all, fmt.Sprintf("%s at member %s", a.Alarm, types.ID(a.MemberID)))
	}
	return "alarm: " + strings.Join(all, ", ")
}

func (i info) Versions() (server, cluster string) {
	if v := i.s.ClusterVersion(); v != nil {
		cluster = v.String()
	}
	return version.Version, cluster
}

func v2Member(m *membership.Member) v2http.Member {
	return v2http.Member{
		ID:         m.ID.String(),
		Name:       m.Name,
		PeerURLs:   notNil(m.PeerURLs),
		ClientURLs: notNil(m.ClientURLs),
	}
}

// notNil keeps an empty list from becoming null.
func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
