package bench

import "context"

// Driver is a store under load. One Driver serves all clients of a run.
type Driver interface {
	// Client returns what client i (from 0) uses, one operation at a time.
	Client(i int) Client
	// CodeOf names the kind of an error, for counting.
	CodeOf(err error) string
	// Close ends all connections.
	Close() error
}

// Client does one operation at a time. It must not keep keys or values after
// it returned; reads are linearizable.
type Client interface {
	Put(ctx context.Context, key string, value []byte) error
	Get(ctx context.Context, key string) error
	// List reads up to limit records from start on, within the keys that
	// begin with prefix, and returns how many there were.
	List(ctx context.Context, prefix, start string, limit int) (int, error)
	BatchPut(ctx context.Context, keys []string, values [][]byte) error
	BatchGet(ctx context.Context, keys []string) error
}

// AtomicClient is a Client whose BatchPut is not atomic by itself.
type AtomicClient interface {
	// AtomicPut writes all or none; the keys share a {hash part}.
	AtomicPut(ctx context.Context, keys []string, values [][]byte) error
}

// TxnClient is a Client whose BatchPut is not a transaction by itself.
type TxnClient interface {
	// Transaction writes all or none, whatever groups the keys lie in.
	Transaction(ctx context.Context, keys []string, values [][]byte) error
}

// GroupedKeys is a Driver of a store whose keys lie in groups.
type GroupedKeys interface {
	// GroupOf returns which group owns a key, as the store has it now.
	GroupOf(ctx context.Context) (func(key string) uint32, error)
}

// LargeBatches is a Driver that takes larger batches than Preload sends
// otherwise.
type LargeBatches interface {
	// MaxBatch is in keys.
	MaxBatch() int
}

// Opener connects a driver.
type Opener func(ctx context.Context, c *Config) (Driver, error)
