package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
)

// jobPoll is the time between looks at a job.
const jobPoll = 250 * time.Millisecond

// namespaceView is a namespace with -o json.
type namespaceView struct {
	Name        string `json:"name"`
	ID          uint32 `json:"id"`
	State       string `json:"state"`
	CreatedAt   string `json:"created_at,omitempty"`
	DeletionJob string `json:"deletion_job,omitempty"`
}

// jobView is a job with -o json.
type jobView struct {
	ID         string `json:"id"`
	Kind       string `json:"kind"`
	State      string `json:"state"`
	Done       uint64 `json:"done"`
	Total      uint64 `json:"total"`
	Message    string `json:"message,omitempty"`
	StartedAt  string `json:"started_at,omitempty"`
	FinishedAt string `json:"finished_at,omitempty"`
}

func (a *app) namespaceCmd() *cobra.Command {
	one := usageArgs(cobra.ExactArgs(1))
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List namespaces", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			all, err := c.ListNamespaces(ctx)
			if err != nil {
				return err
			}
			return a.showNamespaces(all...)
		})}
	create := &cobra.Command{Use: "create NAME", Short: "Create a namespace", Args: one,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			ns, err := c.CreateNamespace(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showNamespaces(ns)
		})}
	describe := &cobra.Command{Use: "describe NAME", Short: "Show a namespace", Args: one,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			ns, err := c.DescribeNamespace(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showNamespaces(ns)
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
			return a.showJob(job)
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

// waitJob asks until a job has ended.
func (a *app) waitJob(ctx context.Context, c *client.Client, job *api.Job) (*api.Job, error) {
	p := a.progress(job.GetKind())
	p.Start()
	defer p.Stop()
	t := time.NewTimer(0)
	defer t.Stop()
	said := ""
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		now, err := c.DescribeJob(ctx, job.GetId())
		if err != nil {
			return nil, err
		}
		p.Phase(now.GetKind(), int64(now.GetTotal()), 0)
		p.Add(int64(now.GetDone()), 0)
		if m := now.GetMessage(); m != "" && m != said && now.GetState() == "running" {
			p.Print(m)
			said = m
		}
		switch now.GetState() {
		case "done":
			return now, nil
		case "failed":
			return nil, fmt.Errorf("job %s failed: %s", now.GetId(), now.GetMessage())
		}
		t.Reset(jobPoll)
	}
}

func (a *app) showNamespaces(all ...*api.Namespace) error {
	rows := make([][]string, 0, len(all))
	for _, n := range all {
		v := namespaceView{n.GetName(), n.GetId(), n.GetState(), milli(n.GetCreatedAtMs()), n.GetDeletionJob()}
		switch a.format(formatTable) {
		case formatJSON:
			if err := a.json(v); err != nil {
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
	if a.format(formatTable) != formatTable {
		return nil
	}
	return a.table("NAME ID STATE CREATED JOB", rows)
}

func (a *app) showJob(j *api.Job) error {
	v := jobView{
		j.GetId(), j.GetKind(), j.GetState(), j.GetDone(), j.GetTotal(), j.GetMessage(),
		milli(j.GetStartedAtMs()), milli(j.GetFinishedAtMs()),
	}
	switch a.format(formatTable) {
	case formatJSON:
		return a.json(v)
	case formatRaw:
		_, err := fmt.Fprintln(a.Out, v.ID)
		return err
	}
	return a.table("JOB KIND STATE DONE TOTAL MESSAGE", [][]string{{v.ID, v.Kind, v.State, number(v.Done), number(v.Total), v.Message}})
}
