package v2http

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"flotilla/api/keys"
	"flotilla/internal/kv/mvcc"
	"flotilla/internal/kv/v2"
)

// Statistics tells of the traffic among the members.
type Statistics interface {
	SelfStats() SelfStats
	// LeaderStats is false on a member that does not lead.
	LeaderStats() (LeaderStats, bool)
}

// SelfStats is this member's part in the traffic. Rates are those of the last
// second, and left out when it was quiet.
type SelfStats struct {
	Name       string     `json:"name"`
	ID         string     `json:"id"`
	State      string     `json:"state"` // StateLeader or StateFollower
	StartTime  time.Time  `json:"startTime"`
	LeaderInfo LeaderInfo `json:"leaderInfo"`

	RecvAppendRequestCnt uint64  `json:"recvAppendRequestCnt"`
	RecvPkgRate          float64 `json:"recvPkgRate,omitempty"`       // requests a second
	RecvBandwidthRate    float64 `json:"recvBandwidthRate,omitempty"` // bytes a second
	SendAppendRequestCnt uint64  `json:"sendAppendRequestCnt"`
	SendPkgRate          float64 `json:"sendPkgRate,omitempty"`
	SendBandwidthRate    float64 `json:"sendBandwidthRate,omitempty"`
}

// LeaderInfo is the leader as the member has known it since StartTime.
type LeaderInfo struct {
	Leader    string    `json:"leader"` // an id; "" before the first was heard of
	Uptime    string    `json:"uptime"` // a Go duration
	StartTime time.Time `json:"startTime"`
}

// LeaderStats is how the leader reaches its followers, by their ids.
type LeaderStats struct {
	Leader    string                   `json:"leader"`
	Followers map[string]FollowerStats `json:"followers"`
}

// FollowerStats is how long a follower took to take over what it was sent, in
// milliseconds, and how often that worked.
type FollowerStats struct {
	Latency Latency `json:"latency"`
	Counts  struct {
		Fail    uint64 `json:"fail"`
		Success uint64 `json:"success"`
	} `json:"counts"`
}

// Latency is in milliseconds.
type Latency struct {
	Current           float64 `json:"current"`
	Average           float64 `json:"average"`
	StandardDeviation float64 `json:"standardDeviation"`
	Minimum           float64 `json:"minimum"`
	Maximum           float64 `json:"maximum"`
}

func (h *Handler) selfStats(w http.ResponseWriter, r *http.Request) {
	h.statistics(w, h.Info.SelfStats())
}

func (h *Handler) leaderStats(w http.ResponseWriter, r *http.Request) {
	stats, ok := h.Info.LeaderStats()
	if !ok {
		message(w, http.StatusForbidden, "not current leader")
		return
	}
	h.statistics(w, stats)
}

func (h *Handler) storeStats(w http.ResponseWriter, r *http.Request) {
	h.statistics(w, h.stats.counts())
}

// statistics answers without a newline, as it always was.
func (h *Handler) statistics(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		h.Log.Warn("statistics not answered", "err", err)
		message(w, http.StatusInternalServerError, "Internal Server Error")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}

// storeStats counts what became of requests since the process began. Successful
// writes are counted on every member, as they happen in the store; reads, failures
// and watchers where they were asked for.
type storeStats struct {
	mu sync.Mutex
	c  storeCounts
}

// storeCounts is /v2/stats/store.
type storeCounts struct {
	GetsSuccess             uint64 `json:"getsSuccess"`
	GetsFail                uint64 `json:"getsFail"`
	SetsSuccess             uint64 `json:"setsSuccess"`
	SetsFail                uint64 `json:"setsFail"`
	DeleteSuccess           uint64 `json:"deleteSuccess"`
	DeleteFail              uint64 `json:"deleteFail"`
	UpdateSuccess           uint64 `json:"updateSuccess"`
	UpdateFail              uint64 `json:"updateFail"`
	CreateSuccess           uint64 `json:"createSuccess"`
	CreateFail              uint64 `json:"createFail"`
	CompareAndSwapSuccess   uint64 `json:"compareAndSwapSuccess"`
	CompareAndSwapFail      uint64 `json:"compareAndSwapFail"`
	CompareAndDeleteSuccess uint64 `json:"compareAndDeleteSuccess"`
	CompareAndDeleteFail    uint64 `json:"compareAndDeleteFail"`
	ExpireCount             uint64 `json:"expireCount"`
	Watchers                uint64 `json:"watchers"`
}

func newStoreStats(store *mvcc.Store) *storeStats {
	s := &storeStats{}
	if store != nil { // a handler without a key space has none to count
		store.Observe(func(e *keys.Event) { s.add(e.Action, true) })
	}
	return s
}

func (s *storeStats) counts() storeCounts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.c
}

// answered counts what the store itself did not tell of: reads, and what it
// refused. A request that the store could not judge is neither.
func (s *storeStats) answered(r v2.Request, err error) {
	refused, isRefusal := errors.AsType[*keys.Error](err)
	switch {
	case err == nil && r.Op == v2.Get:
		s.add(keys.Get, true)
	case isRefusal && refused.ErrorCode < keys.CodePrevValueRequired:
		s.add(intent[r.Op], false)
	}
}

// intent is the action that a request would have had, had it succeeded.
var intent = map[v2.Op]string{
	v2.Get:              keys.Get,
	v2.Set:              keys.Set,
	v2.Create:           keys.Create,
	v2.Post:             keys.Create,
	v2.Update:           keys.Update,
	v2.CompareAndSwap:   keys.CompareAndSwap,
	v2.Delete:           keys.Delete,
	v2.CompareAndDelete: keys.CompareAndDelete,
}

func (s *storeStats) add(action string, success bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.c.of(action, success); n != nil {
		*n++
	}
}

// of is the count of an action that succeeded or failed; nil if there is none.
func (c *storeCounts) of(action string, success bool) *uint64 {
	both := func(succeeded, failed *uint64) *uint64 {
		if success {
			return succeeded
		}
		return failed
	}
	switch action {
	case keys.Get:
		return both(&c.GetsSuccess, &c.GetsFail)
	case keys.Set:
		return both(&c.SetsSuccess, &c.SetsFail)
	case keys.Delete:
		return both(&c.DeleteSuccess, &c.DeleteFail)
	case keys.Update:
		return both(&c.UpdateSuccess, &c.UpdateFail)
	case keys.Create:
		return both(&c.CreateSuccess, &c.CreateFail)
	case keys.CompareAndSwap:
		return both(&c.CompareAndSwapSuccess, &c.CompareAndSwapFail)
	case keys.CompareAndDelete:
		return both(&c.CompareAndDeleteSuccess, &c.CompareAndDeleteFail)
	case keys.Expire:
		return &c.ExpireCount
	}
	return nil
}

// watching counts a watcher until the function it returns is called.
func (s *storeStats) watching() (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.Watchers++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.c.Watchers--
	}
}
