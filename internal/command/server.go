package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kvstore/internal/config"
	"kvstore/internal/dev"
	"kvstore/internal/node"
)

// closeTimeout bounds a clean stop; after it the process ends as it is, which
// loses nothing: what was acknowledged is in the raft log.
const closeTimeout = 15 * time.Second

func serverCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run one node",
		Long: `Run one node in the foreground until SIGINT or SIGTERM.

Every key of the configuration is also a flag and a KVSTORE_ variable; flags win
over variables, variables over the file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(file, cmd.Flags())
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c)
		},
	}
	addConfigFlags(cmd.Flags(), &file)
	return cmd
}

func addConfigFlags(f *pflag.FlagSet, file *string) {
	f.SortFlags = false
	f.StringVar(file, "config", "", "configuration, a YAML `FILE`; 'kvstore config default' prints one")
	config.AddFlags(f)
}

func loadConfig(file string, flags *pflag.FlagSet) (*config.Config, error) {
	return config.Load(config.Sources{File: file, Environ: os.Environ, Flags: flags})
}

// serve runs the node until a signal, the end of its supervisor, or a failure
// of the node itself.
func serve(parent context.Context, c *config.Config) error {
	signals, hurry, release := stopSignals(parent)
	defer release()
	ctx := dev.WatchParent(signals)
	n, err := node.New(c)
	if err != nil {
		return err
	}
	failed := n.Start(ctx)
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-failed:
	}
	return errors.Join(failure, closeNode(n, hurry))
}

func closeNode(n *node.Node, hurry <-chan struct{}) error {
	closed := make(chan error, 1)
	go func() { closed <- n.Close() }()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case err := <-closed:
		return err
	case <-hurry:
		return errors.New("stopped at once by a second signal")
	case <-timer.C:
		return fmt.Errorf("not stopped cleanly within %v", closeTimeout)
	}
}
