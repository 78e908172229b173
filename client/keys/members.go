package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Member is a member of the cluster.
type Member struct {
	ID         string   `json:"id"`   // hexadecimal
	Name       string   `json:"name"` // "" until it has started once
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
}

// Members lists the cluster's members.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	var list struct {
		Members []Member `json:"members"`
	}
	err := c.members(ctx, request{method: http.MethodGet, path: "/v2/members", again: true}, &list)
	return list.Members, err
}

// Leader is the member that leads now.
func (c *Client) Leader(ctx context.Context) (Member, error) {
	var m Member
	err := c.members(ctx, request{method: http.MethodGet, path: "/v2/members/leader", again: true}, &m)
	return m, err
}

// AddMember makes place in the cluster for a member that will be reached by the
// others at these URLs. It is not asked twice: after an *UnreachableError look
// whether it is in the list.
func (c *Client) AddMember(ctx context.Context, peerURLs []string) (Member, error) {
	var m Member
	err := c.members(ctx, request{method: http.MethodPost, path: "/v2/members", json: toPeerURLs(peerURLs)}, &m)
	return m, err
}

// UpdateMember changes the URLs at which a member is reached by the others.
func (c *Client) UpdateMember(ctx context.Context, id string, peerURLs []string) error {
	return c.members(ctx, request{method: http.MethodPut, path: "/v2/members/" + id, json: toPeerURLs(peerURLs), again: true}, nil)
}

// RemoveMember ends a membership; the member stops by itself. It is not asked
// twice, as AddMember.
func (c *Client) RemoveMember(ctx context.Context, id string) error {
	return c.members(ctx, request{method: http.MethodDelete, path: "/v2/members/" + id}, nil)
}

func toPeerURLs(urls []string) []byte {
	raw, _ := json.Marshal(map[string][]string{"peerURLs": urls}) // strings always marshal
	return raw
}

// members makes a request of the members API; into is nil where success has no
// body.
func (c *Client) members(ctx context.Context, r request, into any) error {
	a, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	if a.status >= 300 {
		return failure(a)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return fmt.Errorf("answer of the store: %w", err)
	}
	return nil
}

// Healthy asks one endpoint whether its member is healthy. An error means that it
// did not say within the total timeout: a member that looks for the others in vain
// takes a while to say so.
func (c *Client) Healthy(ctx context.Context, endpoint string) (bool, error) {
	one, err := New(Config{
		Endpoints: []string{endpoint}, HTTPClient: c.http, OnRequest: c.cfg.OnRequest,
		Timeout: c.cfg.TotalTimeout, TotalTimeout: c.cfg.TotalTimeout,
	})
	if err != nil {
		return false, err
	}
	a, err := one.ask(ctx, request{method: http.MethodGet, path: "/health", again: true})
	if err != nil {
		return false, err
	}
	// The value was a string most of the time, and a boolean once.
	var h struct {
		Health any `json:"health"`
	}
	if err := json.Unmarshal(a.body, &h); err != nil {
		return false, fmt.Errorf("answer of the store: %w", err)
	}
	return a.status == http.StatusOK && (h.Health == "true" || h.Health == true), nil
}

// ask is do for answers in which a status of 500 and above is an answer too.
func (c *Client) ask(ctx context.Context, r request) (answer, error) {
	a, err := c.do(ctx, r)
	var status *StatusError
	if err != nil && a.body != nil && errors.As(err, &status) {
		err = nil
	}
	return a, err
}
