package bootstrap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fault"
)

// Between two attempts to reach a discovery service: etcd's figures.
const (
	firstPause = 2 * time.Second
	maxPause   = 256 * time.Second
)

// Config says who wants to join what. URL and Log are required; a member needs
// Name, PeerURLs and Dir, a proxy has none of them.
type Config struct {
	URL   string // of the token, as every member has it: the cluster's id is made of its text
	Proxy string // an HTTP proxy on the way to it; "" for none
	TLS   *tls.Config

	Name     string
	PeerURLs []string // advertised
	Dir      string   // data directory

	Log *slog.Logger
	// Pause waits between two attempts; nil waits for the time or the context.
	Pause func(context.Context, time.Duration) error
}

// Cluster is what a token says.
type Cluster struct {
	Initial string // as --initial-cluster
	Token   string // as --initial-cluster-token
}

// MemberID is the id that a new member will have in the engine, in hexadecimal.
func MemberID(name string, peerURLs []string, token string) (string, error) {
	urls, err := types.NewURLs(peerURLs)
	if err != nil {
		return "", fmt.Errorf("peer addresses: %w", err)
	}
	return membership.NewMember(name, urls, token, nil).ID.String(), nil
}

// Join registers a new member and waits until its cluster is complete. The error
// is ErrFull for a member too many, else one whose text and hints say what is
// wrong. While the service cannot be reached it is tried again, without end.
//
// Before it registers, Join leaves a note in the data directory, so that a member
// that is started again while it waits goes on waiting. Without the note an entry
// with its own id means that there was such a member once and that its data is
// lost. Forget removes the note.
func Join(ctx context.Context, cfg Config) (Cluster, error) {
	id, err := MemberID(cfg.Name, cfg.PeerURLs, cfg.URL)
	if err != nil {
		return Cluster{}, err
	}
	registered, err := hasNote(cfg.Dir, cfg.URL, id)
	if err != nil {
		return Cluster{}, err
	}
	cluster, err := lead(ctx, cfg, Self{ID: id, Registered: registered})
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrFull) {
		return cluster, err
	}
	return cluster, explain(err, cfg)
}

// Find waits until the token's cluster is complete, for one that is no member.
func Find(ctx context.Context, cfg Config) (Cluster, error) {
	cluster, err := lead(ctx, cfg, Self{})
	if err == nil || ctx.Err() != nil {
		return cluster, err
	}
	return cluster, explain(err, cfg)
}

// lead carries decisions out until the cluster is known.
func lead(ctx context.Context, cfg Config, self Self) (Cluster, error) {
	t, err := Open(cfg.URL, cfg.Proxy, cfg.TLS)
	if err != nil {
		return Cluster{}, fault.Code(fault.ExitUsage, err)
	}
	defer t.Close()
	j := joiner{cfg: cfg, token: t, self: self}
	for {
		cluster, err := j.step(ctx)
		if ctx.Err() != nil {
			return Cluster{}, ctx.Err()
		}
		var away unreachable
		if errors.As(err, &away) {
			err = j.pause(ctx, away)
		} else {
			j.tries = 0
		}
		if err != nil || cluster != "" {
			return Cluster{Initial: cluster, Token: cfg.URL}, err
		}
	}
}

// joiner is one way through a token.
type joiner struct {
	cfg   Config
	token *Token
	self  Self
	tries int    // in vain, since something worked
	said  string // the last reason that was logged
}

// step looks at the token and takes one step; it returns the initial cluster at
// the last.
func (j *joiner) step(ctx context.Context) (cluster string, err error) {
	view, index, err := j.token.view(ctx)
	if err != nil {
		return "", err
	}
	d, err := Decide(view, j.self)
	if err != nil {
		return "", err
	}
	if d.Why != j.said {
		j.said = d.Why
		j.cfg.Log.Info("discovery: "+d.Why, "at", j.cfg.URL)
	}
	switch d.Step {
	case Register:
		return "", j.register(ctx)
	case Wait:
		j.tries = 0
		return "", j.token.changed(ctx, index)
	}
	return d.Cluster, nil
}

// register leaves the note and writes the entry. An attempt that broke off may
// have written it: with the note, that entry is ours.
func (j *joiner) register(ctx context.Context) error {
	if err := leaveNote(j.cfg.Dir, j.cfg.URL, j.self.ID); err != nil {
		return err
	}
	err := j.token.register(ctx, j.self.ID, j.cfg.Name, j.cfg.PeerURLs)
	if j.self.Registered && errors.Is(err, ErrDuplicateID) {
		err = nil
	}
	var away unreachable
	if err == nil || errors.As(err, &away) {
		j.self.Registered = true
	}
	return err
}

// pause waits before the next attempt, longer each time.
func (j *joiner) pause(ctx context.Context, why error) error {
	d := backoff(j.tries)
	j.tries++
	j.cfg.Log.Warn("discovery: cannot reach the service; trying again", "at", j.cfg.URL, "err", why, "in", d)
	if j.cfg.Pause != nil {
		return j.cfg.Pause(ctx, d)
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// backoff is the pause after so many failures before this one.
func backoff(before int) time.Duration {
	return min(firstPause<<min(before, 10), maxPause)
}

// explain is what went wrong, in etcd's words, and what to do.
func explain(err error, cfg Config) error {
	const fresh = "make a new token with 'flotilla discovery new' and give it to all members"
	switch {
	case errors.Is(err, ErrDuplicateID):
		text := fmt.Sprintf("member %q has previously registered with discovery service token (%s).\n"+
			"But etcd could not find valid cluster configuration in the given data dir (%s).", cfg.Name, cfg.URL, cfg.Dir)
		return fault.Hint(fault.Hint(errors.New(text), "if the previous bootstrap failed, %s", fresh), "if it succeeded, check the data dir path")
	case errors.Is(err, ErrDuplicateName):
		text := fmt.Sprintf("member with duplicated name has registered with discovery service token(%s).", cfg.URL)
		return fault.Hint(fault.Hint(errors.New(text), "%s", fresh), "give each member a --name of its own; 'curl %s' shows who has registered", cfg.URL)
	}
	err = fault.Hint(fmt.Errorf("failed to join discovery cluster (%w)", err), "%s", fresh)
	if bad := CheckSpelling(cfg.URL); bad != nil {
		err = fault.Hint(err, "%v", bad)
	}
	return err
}

// noteFile says in a data directory that its member has registered and waits.
const noteFile = "discovery"

func note(url, id string) string { return url + "\n" + id + "\n" }

func hasNote(dir, url, id string) (bool, error) {
	text, err := os.ReadFile(filepath.Join(dir, noteFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("see whether the member has registered: %w", err)
	}
	return string(text) == note(url, id), nil
}

func leaveNote(dir, url, id string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return atomicfile.Write(filepath.Join(dir, noteFile), []byte(note(url, id)), 0o600)
}

// Forget removes the note that Join has left: the member has data of its own now,
// or it will never have.
func Forget(dir string) error {
	err := os.Remove(filepath.Join(dir, noteFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
