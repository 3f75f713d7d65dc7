package ctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/internal/env/system"
)

// leaseView is a lease with -o json.
type leaseView struct {
	ID          string         `json:"id"`
	TTLSeconds  int64          `json:"ttl_seconds"`
	ExpiresAt   string         `json:"expires_at"`
	RemainingMS int64          `json:"remaining_ms"`
	Revision    uint64         `json:"revision,string"`
	Keys        []leaseKeyView `json:"keys,omitempty"`
	KeysMore    bool           `json:"keys_more,omitempty"`
}

type leaseKeyView struct {
	Namespace string `json:"namespace"`
	Key       string `json:"key"`
}

func viewLease(l client.Lease) leaseView {
	v := leaseView{ID: l.ID, TTLSeconds: int64(l.TTL / time.Second), ExpiresAt: when(l.ExpiresAt),
		RemainingMS: l.Remaining.Milliseconds(), Revision: l.Revision, KeysMore: l.KeysMore}
	for _, k := range l.Keys {
		v.Keys = append(v.Keys, leaseKeyView(k))
	}
	return v
}

func (a *app) leaseCmd() *cobra.Command {
	one := usageArgs(cobra.ExactArgs(1))
	var ttl time.Duration
	var id string
	grant := &cobra.Command{Use: "grant", Short: "Grant a lease; keys are attached to it by `kvctl put --lease`", Args: usageArgs(cobra.NoArgs),
		Example: "  kvctl lease grant --ttl 30s\n  kvctl lease grant --ttl 30s --id '{jobs}worker-1'",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			if ttl <= 0 || ttl%time.Second != 0 {
				return usagef("--ttl %s: want whole seconds, 1s or more", ttl)
			}
			l, err := c.GrantLease(ctx, ttl, id)
			if err != nil {
				return err
			}
			return a.showLeases(a.json, l)
		})}
	grant.Flags().DurationVar(&ttl, "ttl", time.Minute, "how long it lives unless it is kept alive, in whole seconds, at most 24h")
	grant.Flags().StringVar(&id, "id", "", "call it so (default: the cluster chooses); it lies with keys of the same {hash part}")
	var once bool
	keep := &cobra.Command{Use: "keep-alive ID", Short: "Keep a lease alive until interrupted, or --once", Args: one,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			print := a.document
			if once {
				print = a.json
			}
			for {
				l, err := c.KeepLeaseAlive(ctx, args[0])
				if err == nil {
					err = a.showLeases(print, l)
				}
				if err != nil || once {
					return err
				}
				if err := system.Pause(ctx, l.TTL/3); err != nil {
					return err
				}
			}
		})}
	keep.Flags().BoolVar(&once, "once", false, "once only")
	revoke := &cobra.Command{Use: "revoke ID", Short: "End a lease now and delete its keys", Args: one,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			n, err := c.RevokeLease(ctx, args[0])
			if err != nil {
				return err
			}
			if a.format(formatTable) == formatJSON {
				return a.json(map[string]any{"id": args[0], "deleted": n})
			}
			_, err = fmt.Fprintf(a.Out, "%s ended, %d keys deleted\n", args[0], n)
			return err
		})}
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the leases that have not ended", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			var all []client.Lease
			for l, err := range c.Leases(ctx) {
				if err != nil {
					return err
				}
				all = append(all, l)
			}
			views := a.items(a.Out)
			if err := a.showLeases(views.add, all...); err != nil || a.format(formatTable) != formatJSON {
				return err
			}
			return views.end()
		})}
	show := &cobra.Command{Use: "show ID", Short: "Show how much time a lease has left, and its keys", Args: one,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			l, err := c.DescribeLease(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showLease(l)
		})}
	return group("lease", "Grant leases, keep them alive, and end them", grant, keep, revoke, list, show)
}

func (a *app) showLeases(print func(any) error, all ...client.Lease) error {
	rows := make([][]string, len(all))
	views := make([]leaseView, len(all))
	for i, l := range all {
		rows[i] = []string{l.ID, l.TTL.String(), l.Remaining.Round(time.Second).String(), when(l.ExpiresAt)}
		views[i] = viewLease(l)
	}
	switch a.format(formatTable) {
	case formatJSON:
		for _, v := range views {
			if err := print(v); err != nil {
				return err
			}
		}
		return nil
	case formatRaw:
		for _, l := range all {
			if _, err := fmt.Fprintln(a.Out, l.ID); err != nil {
				return err
			}
		}
		return nil
	}
	return a.table("ID TTL REMAINING EXPIRES", rows)
}

func (a *app) showLease(l client.Lease) error {
	if a.format(formatTable) == formatJSON {
		return a.json(viewLease(l))
	}
	keys := make([]string, len(l.Keys))
	for i, k := range l.Keys {
		keys[i] = k.Namespace + "/" + printable(k.Key)
	}
	if l.KeysMore {
		keys = append(keys, "...")
	}
	return a.fields("id", l.ID, "ttl", l.TTL.String(), "remaining", l.Remaining.Round(time.Second).String(),
		"expires", when(l.ExpiresAt), "granted at", number(l.Revision), "keys", strings.Join(keys, " "))
}
