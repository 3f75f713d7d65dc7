package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/client/concurrency"
)

// leaderView is a leader with -o json.
type leaderView struct {
	Key      string `json:"key"`
	Value    string `json:"value"`
	Token    uint64 `json:"token,string"`
	Revision uint64 `json:"revision,string"`
	Own      bool   `json:"own,omitempty"`
}

func (a *app) electCmd() *cobra.Command {
	var ttl time.Duration
	var observe, current bool
	cmd := &cobra.Command{
		Use: "elect NAME [VALUE]", Short: "Campaign for leadership, or observe who leads",
		Long: "Campaign for leadership with a value that others see, print when it is won, and keep it\n" +
			"until interrupted; it is given back then. It ends with 12 when leadership is lost.\n" +
			"With --observe print who leads, now and whenever that changes; with --leader once.",
		Example: "  kvctl elect scheduler host-1\n  kvctl elect scheduler --observe -o json",
		Args:    usageArgs(cobra.RangeArgs(1, 2)),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if (len(args) == 1) != (observe || current) || observe && current {
				return usagef("a value to campaign with, or --observe, or --leader")
			}
			e := concurrency.Observer(c, a.namespace(), args[0])
			switch {
			case observe:
				for l, err := range e.Observe(ctx) {
					if err != nil {
						return err
					}
					if err := a.showLeader(l, false); err != nil {
						return err
					}
				}
				return nil
			case current:
				l, err := e.Leader(ctx)
				if errors.Is(err, concurrency.ErrNoLeader) {
					return codeError{error: err, code: exitNotFound}
				}
				if err != nil {
					return err
				}
				return a.showLeader(l, false)
			}
			return a.campaign(ctx, c, ttl, args[0], args[1])
		}),
	}
	f := cmd.Flags()
	f.DurationVar(&ttl, "ttl", concurrency.DefaultTTL, "how long others wait when this leader dies, in whole seconds")
	f.BoolVar(&observe, "observe", false, "print leaders as they change")
	f.BoolVar(&current, "leader", false, "print who leads; ends with 3 when nobody does")
	return cmd
}

func (a *app) campaign(ctx context.Context, c *client.Client, ttl time.Duration, name, value string) error {
	s, err := a.session(ctx, c, name, ttl)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // what is not given back ends by itself
	e := concurrency.NewElection(s, name)
	if err := e.Campaign(ctx, []byte(value)); err != nil {
		return heldError(name, err)
	}
	if err := a.showLeader(concurrency.Leader{Key: e.Key(), Value: []byte(value), Token: e.Token(), Revision: e.Token()}, true); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.Done():
		return heldError(name, concurrency.ErrSessionLost)
	}
}

func (a *app) showLeader(l concurrency.Leader, own bool) error {
	if a.format(formatTable) == formatJSON {
		return a.document(leaderView{Key: l.Key, Value: string(l.Value), Token: l.Token, Revision: l.Revision, Own: own})
	}
	_, err := fmt.Fprintf(a.Out, "%d %s\n", l.Token, oneLine(l.Value))
	return err
}
