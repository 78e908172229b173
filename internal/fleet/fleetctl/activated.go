package fleetctl

import (
	"context"
	"slices"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// activated says which of the units are there for another to start, and by which: a
// service beside its timer, say. The other is one of them, or one that the cluster has
// loaded already.
func activated(units []local, cluster []api.Unit) map[string]string {
	asked, starters := map[string]bool{}, map[string]unitfile.Bundle{}
	for _, u := range cluster {
		if u.DesiredState != inactive && model.IsTrigger(u.Name) {
			starters[u.Name] = bundleOf(u)
		}
	}
	for _, u := range units {
		asked[u.name], starters[u.name] = true, u.text
	}
	by := map[string]string{}
	for _, name := range sortedKeys(starters) {
		if started := model.Triggered(name, starters[name].Effective()); asked[started] {
			by[started] = name
		}
	}
	return by
}

// clusterUnits is what the cluster has, if the units may be started by one of them.
func clusterUnits(ctx context.Context, c *fleet.Client, units []local) ([]api.Unit, error) {
	if !slices.ContainsFunc(units, func(u local) bool { return !unitfile.IsTemplate(u.name) }) {
		return nil, nil
	}
	return c.Units(ctx)
}

// loadActivated has units that others start be loaded and no more, unless the cluster
// is to run them already. It reports whether that changes the request.
func (p *applyPlan) loadActivated(req *api.ApplyRequest, changes []api.UnitChange) (changed bool) {
	idle := map[string]bool{}
	for _, c := range changes {
		idle[c.Name] = c.DesiredState == inactive
	}
	for i, u := range req.Units {
		if p.StartedBy[u.Name] != "" && u.DesiredState == "" && idle[u.Name] {
			req.Units[i].DesiredState = loaded
			changed = true
		}
	}
	return changed
}
