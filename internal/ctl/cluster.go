package ctl

import (
	"context"

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
		Use: "status", Short: "Show nodes with what they hold, groups with how many slots they own, what moves, and how fast", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			v, err := shape(ctx, c, a.opts.Timeout)
			if err != nil {
				return err
			}
			if err := a.showShape(v); err != nil {
				return err
			}
			return a.showGroups(v)
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
	var factor, groups uint32
	var split string
	var wait bool
	cmd := &cobra.Command{
		Use: "set", Short: "Change how many copies of every key there are, and how many groups share the keys", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			req, done := &api.ConfigureRequest{Split: split}, atRest
			if groups > 0 {
				req.Groups, done = &groups, grown(groups)
			}
			if factor > 0 {
				req.ReplicationFactor, done = &factor, copied(factor, done)
			}
			if factor == 0 && groups == 0 && split == "" {
				return usagef("nothing to set: want --replication-factor, --groups or --split")
			}
			if _, err := c.Configure(ctx, req); err != nil {
				return err
			}
			return a.showOrWait(ctx, c, wait, done)
		}),
	}
	cmd.Flags().Uint32Var(&factor, "replication-factor", 0, "copies of every key: 1, 3 or 5")
	cmd.Flags().Uint32Var(&groups, "groups", 0, "groups that share the keys, at least; their number only grows, to 1024")
	cmd.Flags().StringVar(&split, "split", "", "auto: one group for each node at least; off: only what --groups says")
	_ = cmd.RegisterFlagCompletionFunc("split", cobra.FixedCompletions([]string{"auto", "off"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	waitFlag(cmd, &wait)
	return cmd
}

func waitFlag(cmd *cobra.Command, wait *bool) {
	cmd.Flags().BoolVar(wait, "wait", false, "show the moves until they are done")
}

func viewMembers(m *api.MembersResponse) membersView {
	v := membersView{CurrentConfig: []memberView{}, PendingConfig: []pendingView{}}
	for _, n := range m.GetNodes() {
		role := "voter"
		if n.GetInfo().GetRole() == "witness" {
			role = "witness"
		}
		v.CurrentConfig = append(v.CurrentConfig, memberView{n.GetInfo().GetName(), n.GetInfo().GetPeer(), role})
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
