// Package bench is the load generator kvbench: workloads over a driver, in a
// closed loop (a client is one goroutine with one outstanding operation) or
// at a fixed rate (open loop: latency counts from the moment an operation was
// due, so that waiting counts). Every run is bounded in time and count.
//
// The store's driver is here; others (Driver) are given to Main by programs
// that bring their dependencies, so that all share workloads, clock and
// histograms.
package bench

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"kvstore/internal/ctl/target"
)

// Workloads.
const (
	WorkPut      = "put"
	WorkGet      = "get"
	WorkMixed    = "mixed"
	WorkList     = "list"
	WorkBatchPut = "batch-put"
	WorkBatchGet = "batch-get"
	// WorkAtomic is an atomic batch put of keys that share a {hash part}.
	WorkAtomic = "atomic"
	// WorkTxn is a transaction of puts whose keys lie in so many groups.
	WorkTxn = "transaction"
)

// Workloads are all there are.
var Workloads = []string{WorkPut, WorkGet, WorkMixed, WorkList, WorkBatchPut, WorkBatchGet, WorkAtomic, WorkTxn}

// Modes of the kvstore driver.
const (
	ModePipeline = "pipeline" // the SDK, which shares frames between clients
	ModeUnary    = "unary"    // one plain gRPC call per operation
)

const (
	maxClients     = 65536
	maxConnections = 1024
	maxKeys        = 1_000_000_000
	maxBatch       = 10_000
	maxListLimit   = 10_000
	maxValueSize   = 16 << 20
	maxKeySize     = 1024
	maxDuration    = 24 * time.Hour
	maxRate        = 10_000_000
	keyDigits      = 9
	memberDigits   = 4                            // maxBatch keys of a set
	setDigits      = keyDigits + memberDigits + 2 // braces
	maxBatchBytes  = 16 << 20
	// maxInFlight bounds the values of all outstanding operations.
	maxInFlight = 4 << 30
)

// Config says what to run. It is part of the JSON result, without what could
// be secret.
type Config struct {
	Driver      string  `json:"driver"`
	Workload    string  `json:"workload"`
	Mode        string  `json:"mode"`
	Clients     int     `json:"clients"`
	Connections int     `json:"connections"`
	KeySize     int     `json:"key_size"`
	ValueSize   int     `json:"value_size"`
	Keys        int     `json:"keys"`
	Prefix      string  `json:"prefix"`
	Zipf        float64 `json:"zipf"`
	ReadRatio   float64 `json:"read_ratio"`
	Batch       int     `json:"batch"`
	// Groups is in how many the keys of a transaction lie.
	Groups    int `json:"groups"`
	ListLimit int `json:"list_limit"`
	// Rate is in operations per second over all clients; 0 is a closed loop.
	Rate     float64       `json:"rate"`
	Duration time.Duration `json:"duration_ns"`
	Ops      int64         `json:"ops"`
	Warmup   time.Duration `json:"warmup_ns"`
	Preload  bool          `json:"preload"`
	// KeysFrom is the first key that a preload writes.
	KeysFrom int          `json:"keys_from"`
	Seed     uint64       `json:"seed"`
	Target   target.Flags `json:"-"`
	// Endpoints are those that were used.
	Endpoints []string `json:"endpoints"`
	// Read is the SDK's read policy.
	Read string `json:"read"`

	byGroup groupedKeys // of WorkTxn
}

// Default returns the settings before any flag.
func Default() Config {
	return Config{
		Driver: "kvstore", Workload: WorkPut, Mode: ModePipeline, Clients: 64, Connections: 1,
		KeySize: 16, ValueSize: 256, Keys: 100_000, Prefix: "k", ReadRatio: 0.9, Batch: 10, Groups: 1, ListLimit: 1000,
		Duration: 10 * time.Second, Warmup: 2 * time.Second, Preload: true, Seed: 1, Target: target.Default(),
	}
}

// Validate reports every setting that cannot be used.
func (c *Config) Validate(drivers []string) error {
	var problems []error
	oneOf := func(flag, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			problems = append(problems, fmt.Errorf("--%s %q: want one of %v", flag, value, allowed))
		}
	}
	within := func(flag string, value, low, high float64) {
		if !(value >= low && value <= high) {
			problems = append(problems, fmt.Errorf("--%s %s: want %s to %s", flag, decimal(value), decimal(low), decimal(high)))
		}
	}
	oneOf("driver", c.Driver, drivers...)
	oneOf("workload", c.Workload, Workloads...)
	oneOf("mode", c.Mode, ModePipeline, ModeUnary)
	within("clients", float64(c.Clients), 1, maxClients)
	within("connections", float64(c.Connections), 1, maxConnections)
	within("key-size", float64(c.KeySize), float64(c.minKeySize()), maxKeySize)
	within("value-size", float64(c.ValueSize), 0, maxValueSize)
	within("keys", float64(c.Keys), 1, maxKeys)
	within("keys-from", float64(c.KeysFrom), 0, float64(c.Keys))
	within("read-ratio", c.ReadRatio, 0, 1)
	within("batch", float64(c.Batch), 1, maxBatch)
	within("groups", float64(c.Groups), 1, float64(max(1, c.Batch)))
	within("list-limit", float64(c.ListLimit), 1, maxListLimit)
	within("rate", c.Rate, 0, maxRate)
	within("ops", float64(c.Ops), 0, 1e12)
	if c.isBatch() && c.Batch > c.Keys {
		problems = append(problems, fmt.Errorf("--batch %d: there are only %d --keys", c.Batch, c.Keys))
	}
	if c.Zipf != 0 && !(c.Zipf > 1 && c.Zipf <= 10) {
		problems = append(problems, fmt.Errorf("--zipf %v: want 0 (uniform) or more than 1, up to 10", c.Zipf))
	}
	if c.Duration <= 0 || c.Duration > maxDuration {
		problems = append(problems, fmt.Errorf("--duration %s: want more than 0, up to %s", c.Duration, maxDuration))
	}
	if c.Warmup < 0 || c.Warmup > time.Hour {
		problems = append(problems, fmt.Errorf("--warmup %s: want 0 to %s", c.Warmup, time.Hour))
	}
	if c.isBatch() && c.Batch*(c.KeySize+c.ValueSize) > maxBatchBytes {
		problems = append(problems, fmt.Errorf("--batch %d of --value-size %d: a batch may have %d bytes", c.Batch, c.ValueSize, maxBatchBytes))
	}
	if bytes := float64(c.Clients) * float64(c.operationBytes()); bytes > maxInFlight {
		problems = append(problems, fmt.Errorf("--clients %d with values of %d bytes each: together they may have %d bytes on their way, not %.0f",
			c.Clients, c.operationBytes(), int64(maxInFlight), bytes))
	}
	return errors.Join(problems...)
}

// operationBytes are the values of one operation.
func (c *Config) operationBytes() int {
	if c.isBatch() {
		return c.Batch * c.ValueSize
	}
	return c.ValueSize
}

func (c *Config) minKeySize() int {
	if c.Workload == WorkAtomic {
		return len(c.Prefix) + setDigits
	}
	return len(c.Prefix) + keyDigits
}

// keyMaker makes the workload's keys; the size was validated.
func (c *Config) keyMaker() Keys {
	if c.Workload == WorkAtomic {
		return NewSetKeys(c.Prefix, c.KeySize, c.Batch)
	}
	return NewKeys(c.Prefix, c.KeySize)
}

// choices is how many keys, or sets of keys, there are to draw from.
func (c *Config) choices() int {
	if c.Workload == WorkAtomic {
		return c.Keys / c.Batch
	}
	return c.Keys
}

// decimal writes a number without an exponent.
func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func (c *Config) isBatch() bool {
	return c.Workload == WorkBatchPut || c.Workload == WorkBatchGet || c.Workload == WorkAtomic || c.Workload == WorkTxn
}

// reads says whether the workload needs keys that exist.
func (c *Config) reads() bool {
	return c.Workload != WorkPut && c.Workload != WorkBatchPut && c.Workload != WorkAtomic && c.Workload != WorkTxn
}
