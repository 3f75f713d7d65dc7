package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/internal/ctl/record"
)

func (a *app) getCmd() *cobra.Command {
	var file string
	var keysOnly bool
	var revision uint64
	var at string
	var staleness time.Duration
	cmd := &cobra.Command{
		Use: "get KEY", Short: "Print a value, or with -o json or table all that is stored with it",
		Example:           "  kvctl get greeting\n  kvctl get logo --file logo.png\n  kvctl get greeting -o json\n  kvctl get greeting --at -5m",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			var opts []client.GetOption
			if keysOnly {
				opts = append(opts, client.KeysOnly())
			}
			switch {
			case revision != 0 && at != "":
				return usagef("--at and --at-revision exclude each other")
			case revision != 0:
				opts = append(opts, client.AtRevision(revision))
			case cmd.Flags().Changed("at"):
				past, err := pastOption(at)
				if err != nil {
					return err
				}
				opts = append(opts, past)
			}
			if staleness > 0 {
				opts = append(opts, client.WithMaxStaleness(staleness))
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			rec, err := c.Get(cmd.Context(), args[0], opts...)
			if err != nil {
				return err
			}
			if file != "" {
				return os.WriteFile(file, rec.Value, 0o600)
			}
			return a.showRecord(rec, keysOnly)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "file", "f", "", "write the value to this file")
	f.BoolVar(&keysOnly, "keys-only", false, "leave the value out (shown as a table by default)")
	f.Uint64Var(&revision, "at-revision", 0, "read as of this revision, within the history window")
	f.StringVar(&at, "at", "", atHelp)
	f.DurationVar(&staleness, "max-staleness", 0, "accept an answer this old from any one replica")
	return cmd
}

func (a *app) showRecord(rec client.Record, keysOnly bool) error {
	suits := formatRaw
	if keysOnly {
		suits = formatTable
	}
	switch a.format(suits) {
	case formatJSON:
		return a.json(record.From(rec, !keysOnly))
	case formatTable:
		return a.fields(
			"key", rec.Key, "version", number(rec.Version), "revision", number(rec.Revision),
			"size", number(rec.Size), "checksum", fmt.Sprintf("%08x", rec.Checksum),
			"content-type", rec.ContentType, "encoding", rec.Encoding,
			"created", when(rec.CreatedAt), "updated", when(rec.UpdatedAt), "expires", when(rec.ExpiresAt), "lease", rec.Lease,
			"tags", labels(rec.Tags), "metadata", labels(rec.Metadata), "read", rec.Read.Consistency.String(),
		)
	}
	if _, err := a.Out.Write(rec.Value); err != nil {
		return err
	}
	// On a terminal the prompt should not follow the value on its line.
	if _, ok := terminal(a.Out); (ok || a.inShell) && !bytes.HasSuffix(rec.Value, []byte("\n")) {
		_, err := fmt.Fprintln(a.Out)
		return err
	}
	return nil
}

func (a *app) existsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "exists KEY", Short: "Say whether a key exists; ends with 0 if it does, 3 if not",
		Args: usageArgs(cobra.ExactArgs(1)), ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			ok, err := c.Exists(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.format(formatRaw) == formatJSON {
				err = a.json(map[string]any{"key": args[0], "exists": ok})
			} else {
				_, err = fmt.Fprintln(a.Out, ok)
			}
			if err == nil && !ok {
				return codeError{error: errors.New("key does not exist"), code: exitNotFound, silent: true}
			}
			return err
		},
	}
}

// deleteView is the answer to a deletion with -o json.
type deleteView struct {
	Key      string `json:"key"`
	Existed  bool   `json:"existed"`
	Revision uint64 `json:"revision,omitempty,string"`
}

func (a *app) showDelete(key string, r client.DeleteResult) error {
	switch a.format(formatTable) {
	case formatJSON:
		return a.json(deleteView{key, r.Existed, r.Revision})
	case formatRaw:
		_, err := fmt.Fprintln(a.Out, r.Existed)
		return err
	}
	return a.table("KEY EXISTED REVISION", [][]string{{key, fmt.Sprint(r.Existed), revision(r.Revision)}})
}

// completionKeys bounds what completion asks for.
const completionKeys = 50

// completeKeys offers the keys that begin with what was typed.
func (a *app) completeKeys(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), time.Second)
	defer cancel()
	c, err := a.client(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	page, err := c.List(ctx, client.WithPrefix(typed), client.KeysOnly(), client.WithLimit(completionKeys))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	keys := make([]string, 0, len(page.Records))
	for _, r := range page.Records {
		if printable(r.Key) == r.Key {
			keys = append(keys, r.Key)
		}
	}
	return keys, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
