package command

import (
	"time"

	"github.com/spf13/cobra"

	"kvstore/internal/dev"
)

func devCommand() *cobra.Command {
	var (
		o           dev.Options
		nodes, base int
		profile     string
		withTLS     bool
	)
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster on this machine",
		Long: `Run a development cluster: real nodes as child processes on loopback.

The data stays in --data-dir, and a second start continues with it: number of
nodes, ports, profile and TLS are then as stored, unless flags say otherwise.
cluster.json in the data directory says what runs. A node that ends is not
started again unless --restart; its argv in cluster.json starts it by hand.
Ctrl-C stops all nodes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given := cmd.Flags().Changed
			if given("nodes") {
				o.Nodes = &nodes
			}
			if given("base-port") {
				o.BasePort = &base
			}
			if given("profile") {
				o.Profile = &profile
			}
			if given("tls") {
				o.TLS = &withTLS
			}
			o.Out = cmd.OutOrStdout()
			ctx, hurry, release := stopSignals(cmd.Context())
			defer release()
			return dev.Run(dev.WatchGoRun(ctx), o, hurry)
		},
	}
	f := cmd.Flags()
	f.IntVar(&nodes, "nodes", 3, "number of nodes: 1, 3, 5 or 7")
	f.StringVar(&o.DataDir, "data-dir", dev.DefaultDataDir, "directory of all data, logs and cluster.json")
	f.IntVar(&base, "base-port", dev.DefaultBasePort, "HTTP port of the first node; its other ports follow, the next node's are 10 higher; 0 picks free ones")
	f.BoolVar(&o.Ephemeral, "ephemeral", false, "use a temporary directory and free ports, and delete the data at the end")
	f.StringVar(&profile, "profile", "edge", "size of each node: edge, standard or scale")
	f.BoolVar(&withTLS, "tls", false, "TLS on every listener, with a throw-away authority in the data directory")
	f.BoolVar(&o.Restart, "restart", false, "start a node again when it ends")
	f.DurationVar(&o.ReadyTimeout, "ready-timeout", 2*time.Minute, "how long nodes may take until they serve")
	return cmd
}
