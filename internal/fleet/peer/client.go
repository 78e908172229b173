package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unit"
)

// Client asks peers. Make it with NewClient.
type Client struct{ identity Identity }

// NewClient makes a client that shows the identity's key.
func NewClient(id Identity) *Client { return &Client{identity: id} }

// How long a machine may take to answer at all. What follows has no limit but the
// caller's.
const answerLimit = 5 * time.Second

// maxLine bounds one log entry.
const maxLine = 4 << 20

// get asks a machine for something. The connection is for this one answer: questions are rare,
// and a key that has changed meanwhile counts at once.
func (c *Client) get(ctx context.Context, m model.Machine, path string, q url.Values) (*http.Response, error) {
	return c.ask(ctx, m, http.MethodGet, path, q, answerLimit)
}

func (c *Client) ask(ctx context.Context, m model.Machine, method, path string, q url.Values, limit time.Duration) (*http.Response, error) {
	config := c.identity.config(func(key string) error {
		if key != m.PeerKey {
			return errors.New("it shows another key than its record in the store")
		}
		return nil
	})
	transport := &http.Transport{
		TLSClientConfig:       config,
		DisableKeepAlives:     true,
		TLSHandshakeTimeout:   answerLimit,
		ResponseHeaderTimeout: limit,
		DialContext:           (&net.Dialer{Timeout: answerLimit}).DialContext,
	}
	u := url.URL{Scheme: "https", Host: m.PeerAddr, Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", name(m), err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s at %s: %w", name(m), m.PeerAddr, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, fmt.Errorf("ask %s: %s", name(m), strings.TrimSpace(string(why)))
	}
	return resp, nil
}

func name(m model.Machine) string {
	if m.Hostname != "" {
		return m.Hostname
	}
	return "machine " + m.ID
}

// Show writes what "systemctl status" says on that machine and returns its exit
// code.
func (c *Client) Show(ctx context.Context, m model.Machine, w io.Writer, unitName string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*answerLimit)
	defer cancel()
	resp, err := c.get(ctx, m, "/status", url.Values{"unit": {unitName}})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	code, err := strconv.Atoi(resp.Header.Get(exitCodeHeader))
	if err != nil {
		return 0, fmt.Errorf("ask %s: exit code: %w", name(m), err)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return 0, fmt.Errorf("ask %s: %w", name(m), err)
	}
	return code, nil
}

// workLimit is how long a machine may take to do something: daemon-reload of a machine
// with thousands of units takes seconds.
const workLimit = 30 * time.Second

// maxText bounds what a unit's text is read of.
const maxText = 4 << 20

// Adopt is Local's, on that machine.
func (c *Client) Adopt(ctx context.Context, m model.Machine, unitName string) (string, error) {
	resp, err := c.ask(ctx, m, http.MethodPost, "/adopt", url.Values{"unit": {unitName}}, workLimit)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", name(m), err)
	}
	return string(text), nil
}

// Eject is Local's, on that machine.
func (c *Client) Eject(ctx context.Context, m model.Machine, unitName string) error {
	resp, err := c.ask(ctx, m, http.MethodPost, "/eject", url.Values{"unit": {unitName}}, workLimit)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// ReadLog is Read, on that machine.
func (c *Client) ReadLog(ctx context.Context, m model.Machine, q Query, emit func(unit.LogEntry) error) error {
	resp, err := c.get(ctx, m, "/journal", encodeQuery(q))
	if err != nil {
		return ended(ctx, q, err)
	}
	defer resp.Body.Close()
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(nil, maxLine)
	for scan.Scan() {
		var e unit.LogEntry
		if err := json.Unmarshal(scan.Bytes(), &e); err != nil {
			return fmt.Errorf("log of %s: %w", name(m), err)
		}
		if !q.Wants(e) {
			continue // that machine's fleetd is an older one
		}
		if err := emit(e); err != nil {
			return err
		}
	}
	if err := scan.Err(); err != nil {
		return ended(ctx, q, fmt.Errorf("log of %s: %w", name(m), err))
	}
	if why := resp.Trailer.Get(errorTrailer); why != "" {
		return fmt.Errorf("log of %s: %s", name(m), why)
	}
	return nil
}

// ended is nil for a log that was followed until the caller had enough.
func ended(ctx context.Context, q Query, err error) error {
	if q.Follow && ctx.Err() != nil {
		return nil
	}
	return err
}
