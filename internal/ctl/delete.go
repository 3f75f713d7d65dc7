package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
)

// rangeFlags choose the keys that are deleted together.
type rangeFlags struct {
	prefix, start, end  string
	tags                map[string]string
	all                 bool
	dryRun, yes, noWait bool
}

func (a *app) deleteCmd() *cobra.Command {
	var cond conditionFlags
	var fence fenceFlag
	var r rangeFlags
	cmd := &cobra.Command{
		Use: "delete KEY | delete --prefix PREFIX", Aliases: []string{"del", "rm"},
		Short: "Delete a key, or the keys of a range",
		Long: "delete removes a key; one that is not there is no error unless --if-exists.\n\n" +
			"With --prefix, --start, --end, --tag or --all a job of the cluster deletes all keys that\n" +
			"exist now and match; keys that are written meanwhile are left. They are counted first and\n" +
			"asked for on a terminal, unless --yes. The job goes on when kvctl is interrupted: kvctl job shows and\n" +
			"cancels it.",
		Example: "  kvctl delete greeting\n  kvctl delete --prefix user: --dry-run\n  kvctl delete --prefix user: --yes",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := r.check(cmd); err != nil {
				return err
			}
			switch {
			case r.any() && len(args) > 0:
				return usagef("a key and a range of keys exclude each other")
			case r.any():
				return nil
			}
			return usageArgs(cobra.ExactArgs(1))(cmd, args)
		},
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			want, err := cond.condition(cmd)
			if err != nil {
				return err
			}
			opts := []client.DeleteOption{client.If(want), client.WithRequestID(cond.requestID)}
			fences, err := fence.options()
			for _, o := range fences {
				opts = append(opts, o)
			}
			if err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			if r.any() {
				return a.deleteRange(cmd.Context(), c, &r)
			}
			res, err := c.Delete(cmd.Context(), args[0], opts...)
			if err != nil {
				return err
			}
			return a.showDelete(args[0], res)
		},
	}
	cond.add(cmd)
	cond.addRequestID(cmd)
	fence.add(cmd)
	r.add(cmd)
	return cmd
}

func (r *rangeFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.prefix, "prefix", "", "delete the keys that start with this")
	f.StringVar(&r.start, "start", "", "delete from this key on (inclusive)")
	f.StringVar(&r.end, "end", "", "delete up to this key (exclusive)")
	f.StringToStringVar(&r.tags, "tag", nil, "delete only records with this tag, name=value; may be repeated")
	f.BoolVar(&r.all, "all", false, "delete all keys of the namespace")
	f.BoolVar(&r.dryRun, "dry-run", false, "of a range: only count")
	f.BoolVarP(&r.yes, "yes", "y", false, "of a range: do not ask")
	f.BoolVar(&r.noWait, "no-wait", false, "of a range: start the job and show it")
}

func (r *rangeFlags) bounded() bool {
	return r.prefix != "" || r.start != "" || r.end != "" || len(r.tags) > 0
}

func (r *rangeFlags) any() bool { return r.bounded() || r.all }

// check refuses flags that contradict each other.
func (r *rangeFlags) check(cmd *cobra.Command) error {
	changed := cmd.Flags().Changed
	switch {
	case !r.any() && (r.dryRun || r.yes || r.noWait):
		return usagef("--dry-run, --yes and --no-wait are of a range: give --prefix, --start, --end, --tag or --all")
	case changed("prefix") && r.prefix == "":
		return usagef("--prefix is empty; --all deletes every key of the namespace")
	case changed("start") && r.start == "", changed("end") && r.end == "", changed("tag") && len(r.tags) == 0:
		return usagef("--start, --end and --tag need a value: without one more keys would be deleted than are meant")
	case r.all && r.bounded():
		return usagef("--all excludes --prefix, --start, --end and --tag")
	case r.dryRun && (r.yes || r.noWait):
		return usagef("--dry-run excludes --yes and --no-wait")
	}
	for _, name := range []string{"if-version", "if-revision", "if-exists", "if-absent", "if-value", "fence", "request-id"} {
		if r.any() && changed(name) {
			return usagef("--%s is of one key", name)
		}
	}
	return nil
}

func (r *rangeFlags) options() []client.RangeOption {
	return []client.RangeOption{client.WithPrefix(r.prefix), client.WithRange(r.start, r.end), client.WithTagFilter(r.tags)}
}

func (a *app) deleteRange(ctx context.Context, c *client.Client, r *rangeFlags) error {
	var list []client.ListOption
	for _, o := range r.options() {
		list = append(list, o)
	}
	if !r.yes {
		n, err := c.Count(ctx, list...)
		switch {
		case err != nil:
			return fmt.Errorf("counting: %w", err)
		case r.dryRun:
			return a.showDryRun(n)
		case !a.agreed(n, r):
			return codeError{error: errors.New("nothing was deleted"), code: exitUsage, silent: true}
		}
	}
	var job *api.Job
	var err error
	if r.all {
		job, err = c.DeleteAll(ctx, "")
	} else {
		job, err = c.DeleteRange(ctx, r.options()...)
	}
	if err != nil {
		return err
	}
	if !r.noWait {
		if job, err = a.waitJob(ctx, c, job); err != nil {
			return err
		}
	}
	return a.showJobs(a.one(), job)
}

func (a *app) showDryRun(n uint64) error {
	switch a.format(formatTable) {
	case formatJSON:
		return a.json(map[string]uint64{"count": n})
	case formatRaw:
		_, err := fmt.Fprintln(a.Out, n)
		return err
	}
	_, err := fmt.Fprintf(a.Out, "%d keys would be deleted\n", n)
	return err
}

// agreed asks on a terminal; without one nobody can answer.
func (a *app) agreed(n uint64, r *rangeFlags) bool {
	about := jobView{Namespace: a.namespace(), Prefix: r.prefix, Start: r.start, End: r.end, Tags: r.tags}.about()
	if _, ok := terminal(a.In); !ok {
		_, _ = fmt.Fprintf(a.Err, "%d keys in %s would be deleted; --yes deletes them, and nobody can be asked here\n", n, about)
		return false
	}
	_, _ = fmt.Fprintf(a.Err, "delete %d keys in %s? [y/N] ", n, printable(about))
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true
	}
	_, _ = fmt.Fprintln(a.Err, "nothing was deleted")
	return false
}
