package ctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
)

// A drain leaves groups alone that an operator holds: both are orders, and the
// one that keeps data where it is wins until somebody releases it. Waiting for
// such a drain would have no end, so it ends with an error that names the
// groups once all others have moved, as kubectl drain refuses pods that nothing
// would bring back; --release-held is the way to mean it.

// holdBack notes a held group on the drained nodes that have a replica of it.
func (v *shapeView) holdBack(g *api.GroupPlacement) {
	if !g.GetHeld() {
		return
	}
	for i, n := range v.Nodes {
		if n.State == "draining" && holds(g, n.ID) {
			v.Nodes[i].Held = append(v.Nodes[i].Held, g.GetGroup())
		}
	}
}

func holds(g *api.GroupPlacement, id string) bool {
	return slices.ContainsFunc(g.GetReplicas(), func(r *api.ReplicaInfo) bool { return r.GetNodeId() == id })
}

func releaseOf(group uint32) string { return fmt.Sprintf("kvctl balance release %d", group) }

func heldRows(nodes []shapeNodeView) (rows [][]string) {
	for _, n := range nodes {
		for _, g := range n.Held {
			rows = append(rows, []string{n.Name, number(g), releaseOf(g)})
		}
	}
	return rows
}

// heldBack is the error of a node that has nothing left but held groups.
func heldBack(v shapeView, node string) error {
	for _, n := range v.Nodes {
		if n.Name != node && n.ID != node || len(n.Held) == 0 || int(n.Replicas) > len(n.Held) {
			continue
		}
		var release []string
		for _, g := range n.Held {
			release = append(release, releaseOf(g))
		}
		return &client.Error{Code: client.CodeFailedPrecondition,
			Message: fmt.Sprintf("held groups keep %s from being drained; release them (--release-held, or %s)", n.Name, strings.Join(release, ", "))}
	}
	return nil
}

// releaseHeld releases the groups that are held on a node.
func releaseHeld(ctx context.Context, c *client.Client, node string) error {
	m, err := c.Members(ctx)
	if err != nil {
		return err
	}
	id := node
	for _, n := range m.GetNodes() {
		if n.GetInfo().GetName() == node {
			id = n.GetInfo().GetId()
		}
	}
	for _, g := range m.GetGroups() {
		if !g.GetHeld() || !holds(g, id) {
			continue
		}
		if _, err := c.HoldGroup(ctx, &api.HoldGroupRequest{Group: g.GetGroup(), Release: true}); err != nil {
			return err
		}
	}
	return nil
}

// drained follows a node until it holds nothing, or nothing that may move.
func drained(node string) func(shapeView) (bool, error) {
	return func(v shapeView) (bool, error) { return holdsNothing(v, node), heldBack(v, node) }
}
