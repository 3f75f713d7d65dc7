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

// jobView is a job with -o json.
type jobView struct {
	ID         string            `json:"id"`
	Kind       string            `json:"kind"`
	State      string            `json:"state"`
	Done       uint64            `json:"done"`
	Total      uint64            `json:"total"`
	Message    string            `json:"message,omitempty"`
	StartedAt  string            `json:"started_at,omitempty"`
	FinishedAt string            `json:"finished_at,omitempty"`
	Namespace  string            `json:"namespace,omitempty"`
	Prefix     string            `json:"prefix,omitempty"`
	Start      string            `json:"start,omitempty"`
	End        string            `json:"end,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Revision   uint64            `json:"revision,omitempty,string"`
}

func viewJob(j *api.Job) jobView {
	return jobView{
		ID: j.GetId(), Kind: j.GetKind(), State: j.GetState(), Done: j.GetDone(), Total: j.GetTotal(), Message: j.GetMessage(),
		StartedAt: milli(j.GetStartedAtMs()), FinishedAt: milli(j.GetFinishedAtMs()), Namespace: j.GetNamespace(),
		Prefix: j.GetPrefix(), Start: j.GetStart(), End: j.GetEnd(), Tags: j.GetTags(), Revision: j.GetRevision(),
	}
}

// about is what a job works on, in a line.
func (v jobView) about() string {
	text := v.Namespace
	for _, part := range []struct{ name, value string }{{"prefix", v.Prefix}, {"start", v.Start}, {"end", v.End}, {"tags", labels(v.Tags)}} {
		if part.value != "" {
			text += " " + part.name + "=" + part.value
		}
	}
	return text
}

func (a *app) jobCmd() *cobra.Command {
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List jobs: those that have not ended, then the last that have", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			all, err := c.ListJobs(ctx)
			if err != nil {
				return err
			}
			return a.showJobs(a.items(a.Out), all...)
		})}
	var wait bool
	show := &cobra.Command{Use: "show ID", Aliases: []string{"describe"}, Short: "Show a job", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			job, err := c.DescribeJob(ctx, args[0])
			if err == nil && wait {
				job, err = a.waitJob(ctx, c, job)
			}
			if err != nil {
				return err
			}
			return a.showJobs(a.one(), job)
		})}
	show.Flags().BoolVar(&wait, "wait", false, "show progress until the job has ended")
	cancel := &cobra.Command{Use: "cancel ID", Short: "End a job where it is; what it has done stays done", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			job, err := c.CancelJob(ctx, args[0])
			if err == nil {
				job, err = a.followJob(ctx, c, job)
			}
			if err != nil {
				return err
			}
			return a.showJobs(a.one(), job)
		})}
	return group("job", "List, show and cancel long tasks of the cluster", list, show, cancel)
}

// waitJob shows progress until a job has ended, and fails unless it is done. An
// interrupt ends the waiting, not the job.
func (a *app) waitJob(ctx context.Context, c *client.Client, job *api.Job) (*api.Job, error) {
	job, err := a.followJob(ctx, c, job)
	switch {
	case err != nil:
		return nil, err
	case job.GetState() == "failed":
		return nil, fmt.Errorf("job %s failed: %s", job.GetId(), job.GetMessage())
	case job.GetState() == "cancelled":
		return nil, codeError{error: fmt.Errorf("job %s was cancelled after %d of %d", job.GetId(), job.GetDone(), job.GetTotal()), code: exitPartial}
	}
	return job, nil
}

// followJob shows progress until a job has ended, in whatever way.
func (a *app) followJob(ctx context.Context, c *client.Client, job *api.Job) (*api.Job, error) {
	p := a.progress(job.GetKind())
	p.Start()
	defer p.Stop()
	p.Watch(int64(job.GetDone()))
	t := time.NewTimer(0)
	defer t.Stop()
	said := ""
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			p.Print(fmt.Sprintf("job %s goes on; kvctl job show %s --wait shows it, kvctl job cancel %s ends it", job.GetId(), job.GetId(), job.GetId()))
			return nil, codeError{error: ctx.Err(), code: exitInterrupted, silent: true}
		}
		now, err := c.DescribeJob(ctx, job.GetId())
		if err != nil {
			if ctx.Err() != nil {
				continue
			}
			return nil, err
		}
		p.Total(int64(now.GetTotal()), 0)
		p.Reached(int64(now.GetDone()))
		switch m := now.GetMessage(); {
		case now.GetState() != "running" && now.GetState() != "cancelling":
			return now, nil
		case m != "" && m != said:
			p.Print(m)
			said = m
		}
		t.Reset(jobPoll)
	}
}

func (a *app) showJobs(views *items, jobs ...*api.Job) error {
	var rows [][]string
	for _, j := range jobs {
		v := viewJob(j)
		switch a.format(formatTable) {
		case formatJSON:
			if err := views.add(v); err != nil {
				return err
			}
		case formatRaw:
			if _, err := fmt.Fprintln(a.Out, v.ID); err != nil {
				return err
			}
		default:
			rows = append(rows, []string{v.ID, v.Kind, v.State, number(v.Done), number(v.Total), v.about(), v.Message})
		}
	}
	switch a.format(formatTable) {
	case formatJSON:
		return views.end()
	case formatRaw:
		return nil
	}
	return a.table("JOB KIND STATE DONE TOTAL ABOUT MESSAGE", rows)
}
