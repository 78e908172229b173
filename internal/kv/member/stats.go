package member

import (
	"encoding/json"
	"reflect"

	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2stats"

	"flotilla/internal/kv/v2http"
)

// The engine goes on counting what /v2/stats tells of, in types that it exports,
// but has dropped the methods that gave them out. Nothing else counts append
// requests, so the counters are reached by the names of their fields; the types are
// checked, and TestEngineCounts fails should an update of the engine rename them.

// counters is the engine's field of that name; nil if there is none of type T.
func counters[T any](s *etcdserver.EtcdServer, name string) *T {
	f := reflect.ValueOf(s).Elem().FieldByName(name)
	if !f.IsValid() || f.Type() != reflect.TypeFor[*T]() {
		return nil
	}
	return (*T)(f.UnsafePointer())
}

// selfStats is this member's part in the traffic. The engine takes the id of its
// counters from the wrong place, so that is put right here.
func selfStats(s *etcdserver.EtcdServer) v2http.SelfStats {
	var out v2http.SelfStats
	if c := counters[v2stats.ServerStats](s, "stats"); c != nil {
		json.Unmarshal(c.JSON(), &out) // of the same form, so it cannot fail
	}
	own := s.MemberID().String()
	if out.LeaderInfo.Leader == out.ID {
		out.LeaderInfo.Leader = own
	}
	out.ID = own
	return out
}

// leaderStats is how the followers are reached. The engine's own JSON reads the
// map of followers without its lock.
func leaderStats(s *etcdserver.EtcdServer) v2http.LeaderStats {
	out := v2http.LeaderStats{Leader: s.MemberID().String(), Followers: map[string]v2http.FollowerStats{}}
	c := counters[v2stats.LeaderStats](s, "lstats")
	if c == nil {
		return out
	}
	c.Lock()
	defer c.Unlock()
	for id, f := range c.Followers {
		out.Followers[id] = followerStats(f)
	}
	return out
}

func followerStats(f *v2stats.FollowerStats) v2http.FollowerStats {
	f.Lock()
	defer f.Unlock()
	var out v2http.FollowerStats
	out.Counts.Fail, out.Counts.Success = f.Counts.Fail, f.Counts.Success
	if out.Counts.Success == 0 {
		return out // the engine's minimum of nothing is a huge number
	}
	out.Latency = v2http.Latency{
		Current: f.Latency.Current, Average: f.Latency.Average, StandardDeviation: f.Latency.StandardDeviation,
		Minimum: f.Latency.Minimum, Maximum: f.Latency.Maximum,
	}
	return out
}
