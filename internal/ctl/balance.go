package ctl

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/internal/config"
)

func (a *app) balanceCmd() *cobra.Command {
	pause := func(use, short string, paused bool) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: usageArgs(cobra.NoArgs),
			RunE: a.configure(func() (*api.ConfigureRequest, error) { return &api.ConfigureRequest{Paused: &paused}, nil })}
	}
	hold := func(use, short string, release bool) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: usageArgs(cobra.ExactArgs(1)),
			RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
				g, err := strconv.ParseUint(args[0], 10, 32)
				if err != nil {
					return usagef("group %q: want its number, as kvctl status shows it", args[0])
				}
				if _, err := c.HoldGroup(ctx, &api.HoldGroupRequest{Group: uint32(g), Release: release}); err != nil {
					return err
				}
				return a.showOrWait(ctx, c, false, nil)
			})}
	}
	return group("balance", "How replicas move: pause, resume, cancel, release, set",
		pause("pause", "Begin no step of a move, and let copies under way trickle", true),
		pause("resume", "Go on with moves", false),
		hold("cancel GROUP", "Cancel the move of a group; it stays where it is until it is released", false),
		hold("release GROUP", "Let a group be placed again", true),
		a.balanceSetCmd())
}

// configure sends one request and shows the outcome.
func (a *app) configure(request func() (*api.ConfigureRequest, error)) func(*cobra.Command, []string) error {
	return a.with(func(ctx context.Context, c *client.Client, _ []string) error {
		req, err := request()
		if err != nil {
			return err
		}
		if _, err := c.Configure(ctx, req); err != nil {
			return err
		}
		return a.showOrWait(ctx, c, false, nil)
	})
}

func (a *app) balanceSetCmd() *cobra.Command {
	var moves uint32
	var rate string
	cmd := &cobra.Command{Use: "set", Short: "Bound the moves", Args: usageArgs(cobra.NoArgs),
		RunE: a.configure(func() (*api.ConfigureRequest, error) {
			req := &api.ConfigureRequest{}
			if moves > 0 {
				req.MaxMoves = &moves
			}
			if rate != "" {
				n, err := config.ParseSize(rate)
				if err != nil || n <= 0 {
					return nil, usagef("--copy-rate %q: want a size such as 20MB", rate)
				}
				perSecond := uint64(n)
				req.CopyRate = &perSecond
			}
			if req.MaxMoves == nil && req.CopyRate == nil {
				return nil, usagef("nothing to set: want --max-moves or --copy-rate")
			}
			return req, nil
		})}
	cmd.Flags().Uint32Var(&moves, "max-moves", 0, "groups whose replicas move at the same time, 1 to 64")
	cmd.Flags().StringVar(&rate, "copy-rate", "", "bytes per second that a node may send of copies, such as 20MB")
	return cmd
}
