package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Member is what one member of the store says of itself, or why it says nothing.
type Member struct {
	Name    string // or its id, of one that has not been started yet
	URL     string // where it was asked; empty: it has told nobody an address
	Learner bool   // it has no vote
	Answers bool   // it was reached
	Healthy bool   // it answers, and a majority confirms what it reads
	Leads   bool
	Why     string   // why it is not healthy
	Alarms  []string // that it has raised: NOSPACE, CORRUPT
}

// memberLimit bounds how long one member is asked.
const memberLimit = 3 * time.Second

// Members asks every member of the store how it is, by the addresses that they have for
// their clients, in order of name. It works without a leader as long as one member that
// is among the registry's endpoints answers. A store that is reached through something
// that does not tell its members is an error.
func (r *Registry) Members(ctx context.Context) ([]Member, error) {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	list, err := r.client.MemberList(limited, clientv3.WithSerializable())
	if err != nil {
		return nil, r.failed(ctx, "list the members of the store", start, err)
	}
	members := make([]Member, len(list.Members))
	alarms := make([][]*pb.AlarmMember, len(list.Members))
	var wg sync.WaitGroup
	for i, m := range list.Members {
		wg.Go(func() { members[i], alarms[i] = r.askMember(ctx, m) })
	}
	wg.Wait()
	for i, m := range list.Members {
		members[i].Alarms = alarmsOf(m.ID, slices.Concat(alarms...))
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return members, nil
}

// alarmsOf is the kinds of alarm that a member has raised. Each member tells them all.
func alarmsOf(id uint64, all []*pb.AlarmMember) (kinds []string) {
	for _, a := range all {
		if kind := a.GetAlarm().String(); a.GetMemberID() == id && !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// askMember asks one member: its /health, which every release has and which needs no
// rights, and its status for the rest.
func (r *Registry) askMember(ctx context.Context, m *pb.Member) (Member, []*pb.AlarmMember) {
	out := Member{Name: cmp.Or(m.Name, fmt.Sprintf("%x", m.ID)), Learner: m.IsLearner}
	if len(m.ClientURLs) == 0 {
		out.Why = "it has not been started yet, or tells no address for clients"
		return out, nil
	}
	out.URL = m.ClientURLs[0]
	ctx, cancel := context.WithTimeout(ctx, memberLimit)
	defer cancel()
	var status *clientv3.StatusResponse
	var alarms []*pb.AlarmMember
	var wg sync.WaitGroup
	wg.Go(func() { status, alarms = r.statusOf(ctx, out.URL) })
	out.Answers, out.Why = r.healthOf(ctx, out.URL)
	if !out.Answers {
		cancel() // a status would be waited for in vain
	}
	wg.Wait()
	switch {
	case status != nil && status.Leader == 0:
		out.Answers, out.Why = true, cmp.Or(out.Why, "no leader")
	case status != nil:
		out.Answers, out.Leads = true, status.Leader == m.ID
	}
	out.Healthy = out.Answers && out.Why == ""
	return out, alarms
}

// healthOf asks for /health, and returns whether there was an answer, and why it was no
// good one.
func (r *Registry) healthOf(ctx context.Context, at string) (answers bool, why string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(at, "/")+"/health", nil)
	if err != nil {
		return false, err.Error()
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: r.tls.Clone(), DisableKeepAlives: true}}
	resp, err := client.Do(req)
	var failed *url.Error
	switch {
	case errors.As(err, &failed) && failed.Timeout():
		return false, "no answer in " + memberLimit.String()
	case errors.As(err, &failed):
		return false, failed.Err.Error()
	case err != nil:
		return false, err.Error()
	}
	defer resp.Body.Close()
	return true, healthText(resp.Status, resp.StatusCode, io.LimitReader(resp.Body, 1<<16))
}

// healthText is why the answer to /health is no good one; "" if it is. Stock releases
// answer 503 or 200, the older ones with the boolean as a word.
func healthText(status string, code int, body io.Reader) string {
	var told struct {
		Health any    `json:"health"`
		Reason string `json:"reason"`
	}
	err := json.NewDecoder(body).Decode(&told)
	if health := fmt.Sprint(told.Health); code == http.StatusOK && err == nil && health == "true" {
		return ""
	}
	if told.Reason != "" {
		return told.Reason
	}
	return "/health is not true: " + status
}

// statusOf is what a member tells of the cluster, nil if it does not, and the alarms
// that it knows. It is asked through a connection of its own.
func (r *Registry) statusOf(ctx context.Context, at string) (*clientv3.StatusResponse, []*pb.AlarmMember) {
	cfg := clientv3.Config{Endpoints: []string{at}, TLS: r.tls, Context: ctx, DialTimeout: memberLimit, Logger: zap.NewNop()}
	if r.client.Password != "" {
		cfg.Username, cfg.Password = r.client.Username, r.client.Password
	}
	if u, err := url.Parse(at); err != nil || u.Scheme != "https" {
		cfg.TLS = nil
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, nil
	}
	defer c.Close()
	status, err := c.Status(ctx, at)
	if err != nil {
		return nil, nil
	}
	var alarms []*pb.AlarmMember
	for _, text := range status.Errors {
		if a, ok := readAlarm(text); ok {
			alarms = append(alarms, a)
		}
	}
	return status, alarms
}

// readAlarm reads an alarm as a status words it: "memberID:1234 alarm:NOSPACE".
func readAlarm(text string) (*pb.AlarmMember, bool) {
	a := &pb.AlarmMember{}
	for _, word := range strings.Fields(text) {
		switch key, value, _ := strings.Cut(word, ":"); key {
		case "memberID":
			if _, err := fmt.Sscan(value, &a.MemberID); err != nil {
				return nil, false
			}
		case "alarm":
			kind, ok := pb.AlarmType_value[value]
			if !ok {
				return nil, false
			}
			a.Alarm = pb.AlarmType(kind)
		}
	}
	return a, a.MemberID != 0 && a.Alarm != pb.AlarmType_NONE
}
