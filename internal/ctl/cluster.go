package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
)

// membersView is S3.12: who belongs to the cluster, and what is changing.
type membersView struct {
	CurrentConfig []memberView  `json:"current_config"`
	PendingConfig []pendingView `json:"pending_config"`
}

type memberView struct {
	NodeID  string `json:"node_id"`
	Address string `json:"address"`
	Role    string `json:"role"`
}

type pendingView struct {
	Operation string     `json:"operation"`
	Target    memberView `json:"target"`
}

func (a *app) clusterCmd() *cobra.Command {
	status := &cobra.Command{
		Use: "status", Short: "Show nodes with what they hold, groups that move, and how fast", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			v, err := shape(ctx, c, a.opts.Timeout)
			if err != nil {
				return err
			}
			return a.showShape(v)
		}),
	}
	members := &cobra.Command{
		Use: "members", Short: "Show current_config and pending_config", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			m, err := c.Members(ctx)
			if err != nil {
				return err
			}
			return a.showMembers(viewMembers(m))
		}),
	}
	return group("cluster", "The whole cluster: status, members, set, recover", status, members, a.clusterSetCmd(), a.recoverCmd())
}

func (a *app) clusterSetCmd() *cobra.Command {
	var factor uint32
	var wait bool
	cmd := &cobra.Command{
		Use: "set --replication-factor N", Short: "Change how many copies of every key there are: 1, 3 or 5", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			if factor == 0 {
				return usagef("nothing to set: want --replication-factor")
			}
			if _, err := c.Configure(ctx, &api.ConfigureRequest{ReplicationFactor: &factor}); err != nil {
				return err
			}
			return a.showOrWait(ctx, c, wait, atRest)
		}),
	}
	cmd.Flags().Uint32Var(&factor, "replication-factor", 0, "copies of every key: 1, 3 or 5")
	waitFlag(cmd, &wait)
	return cmd
}

func waitFlag(cmd *cobra.Command, wait *bool) {
	cmd.Flags().BoolVar(wait, "wait", false, "show the moves until they are done")
}

func viewMembers(m *api.MembersResponse) membersView {
	v := membersView{CurrentConfig: []memberView{}, PendingConfig: []pendingView{}}
	for _, n := range m.GetNodes() {
		v.CurrentConfig = append(v.CurrentConfig, memberView{n.GetInfo().GetName(), n.GetInfo().GetPeer(), "voter"})
	}
	for _, p := range m.GetPending() {
		v.PendingConfig = append(v.PendingConfig, pendingView{p.GetOperation(), memberView{p.GetNodeId(), p.GetAddress(), p.GetRole()}})
	}
	return v
}

func (a *app) showMembers(v membersView) error {
	if a.format(formatTable) == formatJSON {
		return a.json(v)
	}
	rows := make([][]string, 0, len(v.CurrentConfig)+len(v.PendingConfig))
	for _, m := range v.CurrentConfig {
		rows = append(rows, []string{m.NodeID, m.Address, m.Role, ""})
	}
	for _, p := range v.PendingConfig {
		rows = append(rows, []string{p.Target.NodeID, p.Target.Address, p.Target.Role, p.Operation})
	}
	return a.table("NODE ADDRESS ROLE PENDING", rows)
}

// movePoll is the time between looks at moves.
const movePoll = 500 * time.Millisecond

// showOrWait shows the shape once, or how it changes until done says so.
func (a *app) showOrWait(ctx context.Context, c *client.Client, wait bool, done func(shapeView) bool) error {
	v, err := shape(ctx, c, a.opts.Timeout)
	if err != nil || !wait {
		if err == nil {
			err = a.showShape(v)
		}
		return err
	}
	t := time.NewTicker(movePoll)
	defer t.Stop()
	said := map[uint32]string{}
	for good := 0; good < settleLooks; {
		if good++; !done(v) {
			good = 0
		}
		for _, m := range v.Moves {
			if line := m.line(); said[m.Group] != line {
				said[m.Group] = line
				if _, err := fmt.Fprintln(a.Err, line); err != nil {
					return err
				}
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if next, err := shape(ctx, c, a.opts.Timeout); err == nil { // an election may be under way
			v = next
		}
	}
	return a.showShape(v)
}

// settleLooks in a row must find a change done: it shows in the plan one round
// of the balancer later.
const settleLooks = 4

// atRest: nothing moves.
func atRest(v shapeView) bool { return len(v.Moves) == 0 }
