package ctl

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/internal/ctl/record"
	"kvstore/internal/moment"
)

const atHelp = "read what was current then: a revision, a time, Unix milliseconds, or how long ago as -5m"

// pastOption reads the value of --at.
func pastOption(text string) (client.PastOption, error) {
	m, err := moment.Parse(text)
	if err != nil {
		return nil, usagef("--at: %w", err)
	}
	switch {
	case m.TimeMs < 0:
		return client.Ago(time.Duration(-m.TimeMs) * time.Millisecond), nil
	case m.TimeMs > 0:
		return client.AtTime(time.UnixMilli(m.TimeMs)), nil
	}
	return client.AtRevision(m.Revision), nil
}

// versionView is a version with -o json.
type versionView struct {
	Key      string `json:"key"`
	Revision uint64 `json:"revision,string"`
	At       string `json:"at"`
	Deleted  bool   `json:"deleted"`
	Reason   string `json:"reason,omitempty"`
	Record   any    `json:"record,omitempty"`
}

func (a *app) historyCmd() *cobra.Command {
	var limit int
	var values bool
	var until uint64
	cmd := &cobra.Command{
		Use: "history KEY", Short: "List the versions of a key inside the history window, newest first",
		Long: "history lists what a key was inside the history window (10 minutes unless configured\n" +
			"otherwise), newest first, with deletions and their reasons. The last line is what was\n" +
			"current when the window began.",
		Example:           "  kvctl history greeting\n  kvctl history greeting --values -o json",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usagef("--limit %d: want 0 (all) or more", limit)
			}
			if values && a.format(formatTable) != formatJSON {
				return usagef("--values needs -o json or yaml")
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var opts []client.GetOption
			if !values {
				opts = append(opts, client.KeysOnly())
			}
			if until != 0 {
				opts = append(opts, client.AtRevision(until))
			}
			return a.history(cmd, c, args[0], limit, values, opts)
		},
	}
	f := cmd.Flags()
	f.IntVar(&limit, "limit", 0, "stop after this many versions; 0 means all")
	f.BoolVar(&values, "values", false, "with the values, for -o json and yaml")
	f.Uint64Var(&until, "until-revision", 0, "leave out what was written after this revision")
	return cmd
}

func (a *app) history(cmd *cobra.Command, c *client.Client, key string, limit int, values bool, opts []client.GetOption) error {
	var rows [][]string
	n, views := 0, a.items(a.Out)
	for v, err := range c.History(cmd.Context(), key, opts...) {
		if err != nil {
			return err
		}
		switch a.format(formatTable) {
		case formatJSON:
			view := versionView{Key: key, Revision: v.Record.Revision, At: when(v.Record.UpdatedAt), Deleted: v.Deleted, Reason: v.Reason}
			if !v.Deleted {
				view.Record = record.From(v.Record, values)
			}
			if err := views.add(view); err != nil {
				return err
			}
		case formatRaw:
			if _, err := fmt.Fprintln(a.Out, v.Record.Revision); err != nil {
				return err
			}
		default:
			rows = append(rows, versionRow(v))
		}
		if n++; n == limit {
			break
		}
	}
	switch a.format(formatTable) {
	case formatJSON:
		return views.end()
	case formatRaw:
		return nil
	}
	return a.table("REVISION AT WHAT VERSION SIZE TYPE", rows)
}

func versionRow(v client.KeyVersion) []string {
	if v.Deleted {
		return []string{number(v.Record.Revision), when(v.Record.UpdatedAt), v.Reason, "", "", ""}
	}
	return []string{number(v.Record.Revision), when(v.Record.UpdatedAt), "put", number(v.Record.Version), number(v.Record.Size), v.Record.ContentType}
}
