package ctl

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/internal/ctl/record"
)

const listPage = 1000

// listFlags choose keys.
type listFlags struct {
	start, end                     string
	limit                          int
	reverse, count, values, zeroed bool
	tags                           map[string]string
}

func (a *app) listCmd() *cobra.Command {
	var l listFlags
	cmd := &cobra.Command{
		Use: "list [PREFIX]", Aliases: []string{"ls"}, Short: "List keys in order, on one snapshot",
		Example: "  kvctl list user:\n  kvctl list --start a --end b --limit 10 -o json\n  kvctl list user: --count",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if l.limit < 0 {
				return usagef("--limit %d: want 0 (all) or more", l.limit)
			}
			if l.values && a.format(formatTable) != formatJSON {
				return usagef("--values needs -o json")
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			opts := l.options(strings.Join(args, ""))
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
	f.IntVar(&l.limit, "limit", 0, "stop after this many keys; 0 means all")
	f.BoolVar(&l.reverse, "reverse", false, "from the last key to the first")
	f.BoolVar(&l.count, "count", false, "only count the keys")
	f.BoolVar(&l.values, "values", false, "with the values, for -o json")
	f.StringToStringVar(&l.tags, "tag", nil, "only records with this tag, name=value; may be repeated")
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

// list prints page by page, so that a long list needs no memory.
func (a *app) list(cmd *cobra.Command, c *client.Client, l listFlags, opts []client.ListOption) (err error) {
	out := bufio.NewWriterSize(a.Out, 64<<10)
	defer func() { err = errors.Join(err, out.Flush()) }()
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
		if err := a.listRecords(out, page.Records, l, first); err != nil {
			return err
		}
		token, left = page.Token, left-len(page.Records)
		if token == "" || l.limit > 0 && left <= 0 {
			return nil
		}
	}
}

func (a *app) listRecords(out *bufio.Writer, records []client.Record, l listFlags, first bool) error {
	format := a.format(formatTable)
	if format == formatTable {
		return listTable(out, records, first)
	}
	end := byte('\n')
	if l.zeroed {
		end = 0
	}
	for _, r := range records {
		var err error
		if format == formatJSON {
			err = record.Write(out, record.From(r, l.values))
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
