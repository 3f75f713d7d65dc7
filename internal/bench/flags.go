package bench

import (
	"strings"

	"github.com/spf13/cobra"

	"kvstore/client"
)

func flags(cmd *cobra.Command, c *Config) {
	f := cmd.Flags()
	c.Target.Add(f)
	c.Target.Read = client.Auto.String()
	f.StringVar(&c.Target.Read, "read-from", c.Target.Read, "replicas that serve the SDK's reads: auto (one node while they are few, else leaders), leader, any or nearest; all are linearizable")
	_ = f.MarkHidden("read") // the flag is there; --read-from is its name here
	f.StringVar(&c.Driver, "driver", c.Driver, "store to measure")
	f.StringVarP(&c.Workload, "workload", "w", c.Workload, strings.Join(Workloads, ", "))
	f.StringVar(&c.Mode, "mode", c.Mode, "pipeline (the SDK) or unary (plain gRPC calls)")
	f.IntVar(&c.Clients, "clients", c.Clients, "clients, each with one outstanding operation")
	f.IntVar(&c.Connections, "connections", c.Connections, "connections: per node (pipeline, at most 64) or in all, over --endpoints (unary)")
	f.IntVar(&c.KeySize, "key-size", c.KeySize, "bytes of a key")
	f.Var(sizeFlag{&c.ValueSize}, "value-size", "bytes of a value, up to 16MB; values do not compress")
	f.IntVar(&c.Keys, "keys", c.Keys, "different keys")
	f.StringVar(&c.Prefix, "prefix", c.Prefix, "text all keys begin with")
	f.Float64Var(&c.Zipf, "zipf", c.Zipf, "skew of the keys: more than 1; 0 is uniform")
	f.Float64Var(&c.ReadRatio, "read-ratio", c.ReadRatio, "share of gets in mixed, 0 to 1")
	f.IntVar(&c.Batch, "batch", c.Batch, "keys of a batch, puts of a transaction")
	f.IntVar(&c.Groups, "groups", c.Groups, "groups in which the keys of a transaction lie, up to --batch")
	f.IntVar(&c.ListLimit, "list-limit", c.ListLimit, "keys of a list")
	f.Float64Var(&c.Rate, "rate", c.Rate, "operations per second over all clients (open loop); 0: as fast as answers come")
	f.DurationVar(&c.Duration, "duration", c.Duration, "time to measure")
	f.Int64Var(&c.Ops, "ops", c.Ops, "stop after this many operations; 0: after --duration")
	f.DurationVar(&c.Warmup, "warmup", c.Warmup, "time before measuring")
	f.BoolVar(&c.Preload, "preload", c.Preload, "write every key first, for workloads that read")
	f.IntVar(&c.KeysFrom, "keys-from", c.KeysFrom, "write only the keys from this number on before, so that a data set can grow")
	f.Uint64Var(&c.Seed, "seed", c.Seed, "of keys and values")
}
