package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
)

// Each method is one request: its line and body, and what is made of the answer.
func TestRequests(t *testing.T) {
	var asked, answer string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = strings.TrimSpace(r.Method + " " + strings.TrimPrefix(r.URL.RequestURI(), api.Prefix) + " " + string(body))
		fmt.Fprint(w, answer)
	})
	five, three := 5, 3
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, one := range []struct {
		do     func(ctx context.Context) (any, error)
		asked  string
		answer string
		want   any
	}{
		{func(ctx context.Context) (any, error) {
			return c.Apply(ctx, api.ApplyRequest{DryRun: true, Units: []api.Unit{{Name: "a.service"}}})
		}, `POST /apply {"dryRun":true,"units":[{"name":"a.service"}]}`,
			`{"changes":[{"action":"create","name":"a.service","toHash":"1"}]}`,
			api.ApplyReport{Changes: []api.UnitChange{{Action: api.ActionCreate, Name: "a.service", ToHash: "1"}}}},
		{func(ctx context.Context) (any, error) { return c.Rolls(ctx) },
			`GET /rolls`, `{"rolls":[{"group":"a@.service","state":"done"}]}`, []api.Roll{{Group: "a@.service", State: "done"}}},
		{func(ctx context.Context) (any, error) { return c.Roll(ctx, "a@.service") },
			`GET /rolls/a@.service`, `{"group":"a@.service","state":"rolling"}`, api.Roll{Group: "a@.service", State: "rolling"}},
		{func(ctx context.Context) (any, error) { return nil, c.AskRoll(ctx, "a.service", "pause") },
			`POST /rolls/a.service {"action":"pause"}`, ``, nil},
		{func(ctx context.Context) (any, error) { return c.History(ctx, "a.service") },
			`GET /units/a.service/history`, `{"versions":[{"seq":2,"hash":"1","text":"x"}]}`, []api.Version{{Seq: 2, Hash: "1", Text: "x"}}},
		{func(ctx context.Context) (any, error) {
			return c.Rollback(ctx, "a.service", api.RollbackRequest{Seq: 3})
		},
			`POST /units/a.service/rollback {"seq":3}`, `{}`, api.ApplyReport{}},
		{func(ctx context.Context) (any, error) { return nil, c.Cordon(ctx, "1234", true, "new disk") },
			`PUT /machines/1234/cordon {"drain":true,"why":"new disk"}`, ``, nil},
		{func(ctx context.Context) (any, error) { return nil, c.Uncordon(ctx, "1234") }, `DELETE /machines/1234/cordon`, ``, nil},
		{func(ctx context.Context) (any, error) { return c.Why(ctx, "a.service") },
			`GET /units/a.service/why`, `{"unit":"a.service","placed":["1"],"verdicts":[{"machine":"1","ok":true}]}`,
			api.Why{Unit: "a.service", Placed: []string{"1"}, Verdicts: []api.Verdict{{Machine: "1", OK: true}}}},
		{func(ctx context.Context) (any, error) { return c.WhatIf(ctx, []string{"1"}, []string{"2", "3"}) },
			`GET /what-if?drain=1&lose=2&lose=3`, `{"held":"no"}`, api.WhatIf{Held: "no"}},
		{func(ctx context.Context) (any, error) { return c.Rebalance(ctx, api.RebalanceRequest{Max: 2}) },
			`POST /rebalance {"max":2}`, `{}`, api.WhatIf{}},
		{func(ctx context.Context) (any, error) { return nil, c.Adopt(ctx, "a.service", "1234") },
			`POST /adopt {"machine":"1234","unit":"a.service"}`, ``, nil},
		{func(ctx context.Context) (any, error) { return nil, c.Eject(ctx, "a.service") }, `POST /eject {"unit":"a.service"}`, ``, nil},
		{func(ctx context.Context) (any, error) { return c.WhoAmI(ctx) },
			`GET /whoami`, `{"name":"root","role":"admin"}`, api.WhoAmI{Name: "root", Role: "admin"}},
		{func(ctx context.Context) (any, error) { return nil, c.SetMetadata(ctx, "1", "disk", "ssd") },
			`PATCH /machines [{"op":"replace","path":"/1/metadata/disk","value":{"value":"ssd"}}]`, ``, nil},
		{func(ctx context.Context) (any, error) { return nil, c.SetMetadata(ctx, "1", "disk", "") },
			`PATCH /machines [{"op":"remove","path":"/1/metadata/disk"}]`, ``, nil},
		{func(ctx context.Context) (any, error) {
			return collect(c.Events(ctx, fleet.EventQuery{Unit: "a.service", Since: since, Follow: true}))
		}, `GET /events?follow=true&since=2026-01-02T03%3A04%3A05Z&unit=a.service`,
			`{"kind":"roll","what":"x"}` + "\n" + `{"kind":"roll","what":"y"}`,
			[]api.Event{{Kind: "roll", What: "x"}, {Kind: "roll", What: "y"}}},
		{func(ctx context.Context) (any, error) {
			return collect(c.Logs(ctx, fleet.LogQuery{Units: []string{"web@*"}, Lines: &five, Priority: &three, Grep: "a b"}))
		}, `GET /logs?grep=a+b&lines=5&priority=3&unit=web%40%2A`,
			`{"notice":"m2 is away"}`, []fleet.LogEntry{{Notice: "m2 is away"}}},
	} {
		answer = one.answer
		got, err := one.do(t.Context())
		if err != nil {
			t.Errorf("%s: %v", one.asked, err)
		}
		if asked != one.asked {
			t.Errorf("asked %s\nwant  %s", asked, one.asked)
		}
		if diff := cmp.Diff(one.want, got); diff != "" {
			t.Errorf("%s: %s", one.asked, diff)
		}
	}
}

func collect[T any](seq func(func(T, error) bool)) (out []T, err error) {
	for item, e := range seq {
		if e != nil {
			return out, e
		}
		out = append(out, item)
	}
	return out, nil
}

// A request that is refused tells every problem; what the caller may not do is told
// from what is not there.
func TestProblemsAndForbidden(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error":{"code":403,"message":"two problems","problems":[{"unit":"a.service","message":"x"},{"message":"y"}]}}`)
	})
	_, err := c.Apply(t.Context(), api.ApplyRequest{})
	var e *fleet.Error
	if !errors.As(err, &e) || len(e.Problems) != 2 || e.Problems[0].Unit != "a.service" || !errors.Is(err, fleet.ErrForbidden) {
		t.Errorf("got %+v", err)
	}
	if errors.Is(err, fleet.ErrNotExist) || errors.Is(err, fleet.ErrUnavailable) {
		t.Error("it is of other kinds, too")
	}
}
