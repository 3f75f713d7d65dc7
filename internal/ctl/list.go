package ctl

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/internal/ctl/record"
)

const listPage = 1000

// listFlags choose keys.
type listFlags struct {
	start, end, at                 string
	limit                          int
	reverse, count, values, zeroed bool
	tags                           map[string]string
	consistency                    string
	staleness                      time.Duration
}

func (a *app) listCmd() *cobra.Command {
	var l listFlags
	cmd := &cobra.Command{
		Use: "list [PREFIX]", Aliases: []string{"ls"}, Short: "List keys in order, on one snapshot",
		Example: "  kvctl list user:\n  kvctl list --start a --end b --limit 10 -o json\n  kvctl list user: --count\n  kvctl list user: --at 2027-01-31T12:00:00Z",
		Long: "List keys in order, on one snapshot. Its revision, from which kvctl watch --from goes on,\n" +
			"is said on standard error below a table; with -o json or yaml records have it as\n" +
			"read_revision, and a list without records has it on standard error.",
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if l.limit < 0 {
				return usagef("--limit %d: want 0 (all) or more", l.limit)
			}
			if l.count && cmd.Flags().Changed("limit") {
				return usagef("--count counts all keys; it excludes --limit")
			}
			if l.values && a.format(formatTable) != formatJSON {
				return usagef("--values needs -o json or yaml")
			}
			level, err := l.level()
			if err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			opts := append(l.options(strings.Join(args, "")), level...)
			if cmd.Flags().Changed("at") {
				past, err := pastOption(l.at)
				if err != nil {
					return err
				}
				opts = append(opts, past)
			}
			if l.count {
				n, err := c.Count(cmd.Context(), opts...)
				if err != nil {
					return err
				}
				if a.format(formatRaw) == formatJSON {
					return a.json(map[string]uint64{"count": n})
				}
				_, err = fmt.Fprintln(a.Out, n)
				return err
			}
			return a.list(cmd, c, l, opts)
		},
	}
	f := cmd.Flags()
	f.StringVar(&l.start, "start", "", "first key (inclusive)")
	f.StringVar(&l.end, "end", "", "last key (exclusive)")
	f.StringVar(&l.at, "at", "", atHelp)
	f.IntVar(&l.limit, "limit", 0, "stop after this many keys; 0 means all")
	f.BoolVar(&l.reverse, "reverse", false, "from the last key to the first")
	f.BoolVar(&l.count, "count", false, "only count the keys")
	f.BoolVar(&l.values, "values", false, "with the values, for -o json and yaml")
	f.StringToStringVar(&l.tags, "tag", nil, "only records with this tag, name=value; may be repeated")
	f.StringVar(&l.consistency, "consistency", "linearizable", "linearizable or snapshot: whether writes that run beside it are seen in their order")
	f.DurationVar(&l.staleness, "max-staleness", 0, "accept a snapshot this old from the node that answers")
	f.BoolVarP(&l.zeroed, "null", "0", false, "end keys with a zero byte instead of a newline, with -o raw")
	return cmd
}

func (l listFlags) options(prefix string) []client.ListOption {
	opts := []client.ListOption{client.WithPrefix(prefix), client.WithRange(l.start, l.end), client.WithTagFilter(l.tags)}
	if l.reverse {
		opts = append(opts, client.Reverse())
	}
	if !l.values && !l.count {
		opts = append(opts, client.KeysOnly())
	}
	return opts
}

// level are the options for how the snapshot is chosen.
func (l listFlags) level() ([]client.ListOption, error) {
	switch {
	case l.staleness < 0:
		return nil, usagef("--max-staleness %v: want 0 (none) or more", l.staleness)
	case l.staleness > 0 && l.consistency == "snapshot":
		return nil, usagef("--max-staleness and --consistency snapshot exclude each other")
	case l.staleness > 0:
		return []client.ListOption{client.WithMaxStaleness(l.staleness)}, nil
	}
	for _, level := range []client.Consistency{client.Linearizable, client.Snapshot} {
		if l.consistency == level.String() {
			return []client.ListOption{client.WithConsistency(level)}, nil
		}
	}
	return nil, usagef("--consistency %q: want linearizable or snapshot", l.consistency)
}

// list prints page by page, so that a long list needs no memory.
func (a *app) list(cmd *cobra.Command, c *client.Client, l listFlags, opts []client.ListOption) (err error) {
	out := bufio.NewWriterSize(a.Out, 64<<10)
	views := a.items(out)
	var revision uint64
	defer func() {
		if err = errors.Join(err, out.Flush()); err == nil {
			a.listedAt(views, revision)
		}
	}()
	token, left := "", l.limit
	for first := true; ; first = false {
		size := listPage
		if l.limit > 0 {
			size = min(size, left)
		}
		page, err := c.List(cmd.Context(), append(opts[:len(opts):len(opts)], client.WithLimit(size), client.After(token))...)
		if err != nil {
			return err
		}
		revision = page.Revision
		if err := a.listRecords(out, views, page, l, first); err != nil {
			return err
		}
		token, left = page.Token, left-len(page.Records)
		if token == "" || l.limit > 0 && left <= 0 {
			break
		}
	}
	if a.format(formatTable) == formatJSON {
		return views.end()
	}
	return nil
}

func (a *app) listRecords(out *bufio.Writer, views *items, page client.Page, l listFlags, first bool) error {
	format := a.format(formatTable)
	if format == formatTable {
		return listTable(out, page.Records, first)
	}
	end := byte('\n')
	if l.zeroed {
		end = 0
	}
	for _, r := range page.Records {
		var err error
		if format == formatJSON {
			view := record.From(r, l.values)
			view.ReadRevision = page.Revision
			err = views.add(view)
		} else {
			_, _ = out.WriteString(r.Key)
			err = out.WriteByte(end)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// listedAt tells the revision of the snapshot, from which a watch can go on, where
// the records do not: on standard error below a table, and of an empty list.
func (a *app) listedAt(views *items, revision uint64) {
	switch format := a.format(formatTable); {
	case format == formatTable:
		_, _ = fmt.Fprintf(a.Err, "revision %d\n", revision)
	case format == formatJSON && views.n == 0:
		_, _ = fmt.Fprintf(a.Err, "{\"read_revision\":\"%d\"}\n", revision)
	}
}

func listTable(out *bufio.Writer, records []client.Record, first bool) error {
	headers := ""
	if first {
		headers = "KEY SIZE VERSION REVISION UPDATED TYPE"
	}
	rows := make([][]string, len(records))
	for i, r := range records {
		rows[i] = []string{r.Key, number(r.Size), number(r.Version), number(r.Revision), when(r.UpdatedAt), r.ContentType}
	}
	return writeTable(out, headers, rows)
}
