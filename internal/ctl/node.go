package ctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
)

func (a *app) nodeCmd() *cobra.Command {
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List nodes with what they hold", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			v, err := shape(ctx, c, a.opts.Timeout)
			if err != nil {
				return err
			}
			if a.format(formatTable) == formatJSON {
				return a.json(v.Nodes)
			}
			return a.table("NODE ROLE STATE PEER ZONE WEIGHT PRIORITY REPLICAS TARGET LEADS PREFERRED", shapeRows(v.Nodes))
		})}
	return group("node", "The cluster's nodes: list, add, drain, remove, replace",
		list, a.nodeAddCmd(), a.nodeDrainCmd(), a.nodeRemoveCmd(), a.nodeReplaceCmd())
}

func (a *app) nodeAddCmd() *cobra.Command {
	req := &api.ExpectNodeRequest{}
	var wait bool
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Announce a node and print the command that starts it", Args: usageArgs(cobra.ExactArgs(1)),
		Long: "Announces a node: it shows as pending until one of this name joins. The command that\n" +
			"is printed starts it on its machine; with --wait, kvctl follows until the node has its share.",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			req.Name = args[0]
			m, err := c.ExpectNode(ctx, req)
			if err != nil || req.GetCancel() {
				return err
			}
			if _, err := fmt.Fprintln(a.Err, "start it on its machine:\n  "+joinCommand(m, req)); err != nil || !wait {
				return err
			}
			return a.showOrWait(ctx, c, true, func(v shapeView) bool { return hasShare(v, req.GetName()) })
		}),
	}
	cmd.Flags().StringVar(&req.Address, "address", "", "its peer address, host:port, when it is known")
	cmd.Flags().BoolVar(&req.Cancel, "cancel", false, "take the announcement back")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the node joined and nothing moves any more")
	return cmd
}

// joinCommand starts a new node that knows the members that are alive.
func joinCommand(m *api.MembersResponse, req *api.ExpectNodeRequest) string {
	var peers []string
	for _, n := range m.GetNodes() {
		if n.GetInfo().GetHealthy() && n.GetInfo().GetPeer() != "" {
			peers = append(peers, n.GetInfo().GetPeer())
		}
	}
	s := "kvstore server --join " + strings.Join(peers, ",") + " --node.name " + req.GetName()
	if m.GetClusterName() != "kvstore" {
		s += " --cluster.name " + m.GetClusterName()
	}
	if req.GetAddress() != "" {
		s += " --listen.peer " + req.GetAddress()
	}
	return s
}

// hasShare: the node is there and nothing moves any more.
func hasShare(v shapeView, name string) bool {
	for _, n := range v.Nodes {
		if n.Name == name {
			return n.Replicas == n.Target && atRest(v)
		}
	}
	return false
}

// holdsNothing: the node can be switched off.
func holdsNothing(v shapeView, node string) bool {
	for _, n := range v.Nodes {
		if n.Name == node || n.ID == node {
			return n.Replicas == 0 && n.Leads == 0
		}
	}
	return true
}

func (a *app) nodeDrainCmd() *cobra.Command {
	req := &api.DrainNodeRequest{}
	var wait, release bool
	cmd := &cobra.Command{
		Use: "drain NAME", Short: "Move all replicas and leaderships away from a node", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			req.Node = args[0]
			if _, err := c.DrainNode(ctx, req); err != nil {
				return err
			}
			if req.GetUndo() {
				return a.showOrWait(ctx, c, wait, atRest)
			}
			return a.drainOrWait(ctx, c, req.GetNode(), release, wait)
		}),
	}
	releaseFlag(cmd, &release)
	cmd.Flags().BoolVar(&req.Undo, "undo", false, "take it back: the node gets its share again")
	waitFlag(cmd, &wait)
	return cmd
}

func releaseFlag(cmd *cobra.Command, release *bool) {
	cmd.Flags().BoolVar(release, "release-held", false, "release the groups that are held on the node, so that they move too")
}

// drainOrWait goes on once a drain is ordered.
func (a *app) drainOrWait(ctx context.Context, c *client.Client, node string, release, wait bool) error {
	if release {
		if err := releaseHeld(ctx, c, node); err != nil {
			return err
		}
	}
	return a.showOrFollow(ctx, c, wait, drained(node))
}

func (a *app) nodeRemoveCmd() *cobra.Command {
	req := &api.RemoveNodeRequest{}
	cmd := &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "End the membership of a drained or dead node for good", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			req.Node = args[0]
			if _, err := c.RemoveNode(ctx, req); err != nil {
				return err
			}
			return a.showOrWait(ctx, c, false, nil)
		}),
	}
	cmd.Flags().BoolVar(&req.Force, "force", false, "also a dead node that still holds replicas: they are placed on others at once")
	return cmd
}

func (a *app) nodeReplaceCmd() *cobra.Command {
	req := &api.ReplaceNodeRequest{}
	var wait, release bool
	cmd := &cobra.Command{
		Use: "replace OLD --with NEW", Short: "Move all replicas of one node to another and drain it", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if req.Node = args[0]; req.GetWith() == "" {
				return usagef("which node takes its place? want --with NAME")
			}
			if _, err := c.ReplaceNode(ctx, req); err != nil {
				return err
			}
			return a.drainOrWait(ctx, c, req.GetNode(), release, wait)
		}),
	}
	releaseFlag(cmd, &release)
	cmd.Flags().StringVar(&req.With, "with", "", "name of the node that takes its place; it is a member already")
	waitFlag(cmd, &wait)
	return cmd
}
