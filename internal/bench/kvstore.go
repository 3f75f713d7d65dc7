package bench

import (
	"context"
	"fmt"

	"kvstore/client"
)

// openKVStore is the driver of this store.
func openKVStore(ctx context.Context, c *Config) (Driver, error) {
	cfg, t, err := c.Target.Config("kvbench")
	if err != nil {
		return nil, err
	}
	c.Endpoints, c.Read = t.Endpoints, c.Target.Read
	if c.Mode != ModeUnary {
		cfg.ConnsPerNode = c.Connections
	}
	// Unary calls need no SDK, but it knows best why a cluster cannot be
	// reached.
	sdk, err := client.New(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("endpoints %v, from %s: %w", t.Endpoints, t.From, err)
	}
	if c.Mode != ModeUnary {
		return &pipeline{sdk, cfg.Namespace}, nil
	}
	_ = sdk.Close() // returns nil
	return openUnary(cfg, c.Connections)
}

// largeBatch is how many keys the store takes at once without holding up
// others.
const largeBatch = 1000

// pipeline drives the SDK; all clients share it.
type pipeline struct {
	sdk       *client.Client
	namespace string
}

func (p *pipeline) Client(int) Client       { return p }
func (p *pipeline) CodeOf(err error) string { return string(client.CodeOf(err)) }
func (p *pipeline) Close() error            { return p.sdk.Close() }
func (p *pipeline) MaxBatch() int           { return largeBatch }

func (p *pipeline) Put(ctx context.Context, key string, value []byte) error {
	_, err := p.sdk.Put(ctx, key, value)
	return err
}

func (p *pipeline) Get(ctx context.Context, key string) error {
	_, err := p.sdk.Get(ctx, key)
	return err
}

func (p *pipeline) List(ctx context.Context, prefix, start string, limit int) (int, error) {
	page, err := p.sdk.List(ctx, client.WithPrefix(prefix), client.WithRange(start, ""), client.WithLimit(limit))
	return len(page.Records), err
}

func (p *pipeline) BatchPut(ctx context.Context, keys []string, values [][]byte) error {
	_, err := p.sdk.BatchPut(ctx, putItems(keys, values))
	return err
}

func (p *pipeline) AtomicPut(ctx context.Context, keys []string, values [][]byte) error {
	_, err := p.sdk.BatchPut(ctx, putItems(keys, values), client.Atomic())
	return err
}

func (p *pipeline) Transaction(ctx context.Context, keys []string, values [][]byte) error {
	txn := p.sdk.Txn(ctx)
	for i, k := range keys {
		txn.Then(client.OpPut(k, values[i]))
	}
	_, err := txn.Commit()
	return err
}

// GroupOf asks for the slot map.
func (p *pipeline) GroupOf(ctx context.Context) (func(string) uint32, error) {
	t, err := p.sdk.Topology(ctx)
	if err != nil {
		return nil, err
	}
	return topologyGroupOf(t, p.namespace)
}

func putItems(keys []string, values [][]byte) []client.PutItem {
	items := make([]client.PutItem, len(keys))
	for i, k := range keys {
		items[i] = client.PutItem{Key: k, Value: values[i]}
	}
	return items
}

func (p *pipeline) BatchGet(ctx context.Context, keys []string) error {
	_, err := p.sdk.BatchGet(ctx, keys)
	return err
}
