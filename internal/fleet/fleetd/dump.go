package fleetd

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"flotilla/internal/applet"
	"flotilla/internal/fleet/registry"
)

// dumpEntry is one unit that the machine is given.
type dumpEntry struct {
	Unit    string `json:"unit"`
	Desired string `json:"desired"`
	Hash    string `json:"hash"`
	Leaving bool   `json:"leaving,omitempty"`
}

// dumpRecord is what the daemon knows, for whoever looks for a fault.
type dumpRecord struct {
	At             time.Time         `json:"at"`
	Version        string            `json:"version"`
	Machine        string            `json:"machine"`
	Hostname       string            `json:"hostname"`
	Address        string            `json:"address,omitempty"`
	Metadata       map[string]string `json:"metadata,omitempty"`
	LeaderSince    time.Time         `json:"leaderSince,omitzero"`
	StoreAwaySince time.Time         `json:"storeAwaySince,omitzero"`
	Problem        string            `json:"problem,omitempty"` // why the machine takes no part
	Schedule       []dumpEntry       `json:"schedule,omitempty"`
	ScheduleError  string            `json:"scheduleError,omitempty"`
	EventsWaiting  int               `json:"eventsWaiting,omitempty"`
}

// dump writes what the daemon knows as one line of JSON.
func (p *parts) dump(ctx context.Context, w io.Writer) {
	d := dumpRecord{
		At: time.Now().UTC(), Version: applet.Version,
		Machine: p.presence.ID, Hostname: p.presence.Hostname, Address: p.presence.IP, Metadata: p.presence.Metadata,
		LeaderSince: p.engine.Stats().LeaderSince(), EventsWaiting: len(p.notes.queue),
	}
	if err := p.agent.Problem(); err != nil {
		d.Problem = err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	v, err := p.registry.Read(ctx, registry.ScheduleOf(p.presence.ID))
	if err != nil {
		d.ScheduleError = err.Error()
	} else {
		for _, e := range v.Placements() {
			d.Schedule = append(d.Schedule, dumpEntry{Unit: e.Unit, Desired: e.Desired.String(), Hash: e.Hash, Leaving: e.Leaving})
		}
	}
	d.StoreAwaySince = p.registry.Away() // known now
	if err := json.NewEncoder(w).Encode(d); err != nil {
		p.log.Warn("state not dumped", "err", err)
	}
}
