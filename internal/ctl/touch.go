package ctl

import (
	"time"

	"github.com/spf13/cobra"

	"kvstore/client"
)

// expiryFlags say when a key expires.
type expiryFlags struct {
	ttl time.Duration
	at  string
}

func (e *expiryFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.DurationVar(&e.ttl, "ttl", 0, "let the key expire after this long, in whole seconds")
	f.StringVar(&e.at, "expires-at", "", "let the key expire at this time (RFC 3339)")
}

// expiry is what was given, at most one of the two.
func (e *expiryFlags) expiry(cmd *cobra.Command) (ttl time.Duration, at time.Time, err error) {
	given := cmd.Flags().Changed("ttl")
	if given && (e.ttl <= 0 || e.ttl%time.Second != 0) {
		return 0, at, usagef("--ttl %s: want whole seconds, 1s or more", e.ttl)
	}
	if !cmd.Flags().Changed("expires-at") {
		return e.ttl, at, nil
	}
	if given {
		return 0, at, usagef("--ttl and --expires-at exclude each other")
	}
	if at, err = time.Parse(time.RFC3339, e.at); err != nil || at.UnixMilli() <= 0 {
		return 0, at, usagef("--expires-at %q: want a time as in 2030-01-31T12:00:00Z", e.at)
	}
	return 0, at, nil
}

func (a *app) touchCmd() *cobra.Command {
	var (
		expires expiryFlags
		persist bool
		cond    conditionFlags
	)
	cmd := &cobra.Command{
		Use: "touch KEY", Short: "Let a key expire later, sooner or never; its value stays",
		Long: "Give a key another deadline, or with --persist none. Its value, tags and\n" +
			"metadata stay and do not travel. It is a write: the key gets a new version and\n" +
			"revision. A key that does not exist, or has expired, ends it with 4.",
		Example: "  kvctl touch session:7 --ttl 30m\n  kvctl touch session:7 --expires-at 2030-01-31T12:00:00Z --if-version 3\n  kvctl touch session:7 --persist",
		Args:    usageArgs(cobra.ExactArgs(1)), ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			ttl, at, err := expires.expiry(cmd)
			if err != nil {
				return err
			}
			opts := []client.TouchOption{client.WithTTL(ttl), client.WithExpiry(at)}
			switch {
			case persist && (ttl != 0 || !at.IsZero()):
				return usagef("--persist excludes --ttl and --expires-at")
			case persist:
				opts = append(opts, client.Persist())
			case ttl == 0 && at.IsZero():
				return usagef("give one of --ttl, --expires-at and --persist")
			}
			want, err := cond.condition(cmd)
			if err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.Touch(cmd.Context(), args[0], append(opts, client.If(want))...)
			if err != nil {
				return err
			}
			return a.showPut(args[0], res)
		},
	}
	expires.add(cmd)
	cmd.Flags().BoolVar(&persist, "persist", false, "let the key not expire any more")
	cond.add(cmd)
	return cmd
}
