package ctl

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
)

// namespaceView is a namespace with -o json.
type namespaceView struct {
	Name        string `json:"name"`
	ID          uint32 `json:"id"`
	State       string `json:"state"`
	CreatedAt   string `json:"created_at,omitempty"`
	DeletionJob string `json:"deletion_job,omitempty"`
}

func (a *app) namespaceCmd() *cobra.Command {
	one := usageArgs(cobra.ExactArgs(1))
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List namespaces", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			all, err := c.ListNamespaces(ctx)
			if err != nil {
				return err
			}
			return a.showNamespaces(a.items(a.Out), all...)
		})}
	create := &cobra.Command{Use: "create NAME", Short: "Create a namespace", Args: one,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			ns, err := c.CreateNamespace(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showNamespaces(a.one(), ns)
		})}
	describe := &cobra.Command{Use: "describe NAME", Short: "Show a namespace", Args: one,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			ns, err := c.DescribeNamespace(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showNamespaces(a.one(), ns)
		})}
	var wait bool
	remove := &cobra.Command{Use: "delete NAME", Aliases: []string{"rm"}, Short: "Start the job that deletes a namespace and all its keys", Args: one,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			job, err := c.DeleteNamespace(ctx, args[0])
			if err == nil && wait {
				job, err = a.waitJob(ctx, c, job)
			}
			if err != nil {
				return err
			}
			return a.showJobs(a.one(), job)
		})}
	remove.Flags().BoolVar(&wait, "wait", false, "wait until the job is done")
	cmd := group("namespace", "Create, list, describe and delete namespaces", create, list, describe, remove)
	cmd.Aliases = []string{"ns"}
	return cmd
}

// with connects before a command runs.
func (a *app) with(run func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.client(cmd.Context())
		if err != nil {
			return err
		}
		return run(cmd.Context(), c, args)
	}
}

func (a *app) showNamespaces(views *items, all ...*api.Namespace) error {
	rows := make([][]string, 0, len(all))
	for _, n := range all {
		v := namespaceView{n.GetName(), n.GetId(), n.GetState(), milli(n.GetCreatedAtMs()), n.GetDeletionJob()}
		switch a.format(formatTable) {
		case formatJSON:
			if err := views.add(v); err != nil {
				return err
			}
		case formatRaw:
			if _, err := fmt.Fprintln(a.Out, v.Name); err != nil {
				return err
			}
		default:
			rows = append(rows, []string{v.Name, number(v.ID), v.State, v.CreatedAt, v.DeletionJob})
		}
	}
	switch a.format(formatTable) {
	case formatJSON:
		return views.end()
	case formatRaw:
		return nil
	}
	return a.table("NAME ID STATE CREATED JOB", rows)
}
