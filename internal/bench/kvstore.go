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

func (p *pipeline) Client(int) Client       { return &pipelineClient{pipeline: p} }
func (p *pipeline) CodeOf(err error) string { return string(client.CodeOf(err)) }
func (p *pipeline) Close() error            { return p.sdk.Close() }
func (p *pipeline) MaxBatch() int           { return largeBatch }

// GroupOf asks for the slot map.
func (p *pipeline) GroupOf(ctx context.Context) (func(string) uint32, error) {
	t, err := p.sdk.Topology(ctx)
	if err != nil {
		return nil, err
	}
	return topologyGroupOf(t, p.namespace)
}

// pipelineClient is one client. What it gives to the SDK it uses again.
type pipelineClient struct {
	*pipeline
	items []client.PutItem
	ops   []client.Op
}

func (p *pipelineClient) Put(ctx context.Context, key string, value []byte) error {
	_, err := p.sdk.Put(ctx, key, value)
	return err
}

func (p *pipelineClient) Get(ctx context.Context, key string) error {
	_, err := p.sdk.Get(ctx, key)
	return err
}

func (p *pipelineClient) List(ctx context.Context, prefix, start string, limit int) (int, error) {
	page, err := p.sdk.List(ctx, client.WithPrefix(prefix), client.WithRange(start, ""), client.WithLimit(limit))
	return len(page.Records), err
}

func (p *pipelineClient) BatchPut(ctx context.Context, keys []string, values [][]byte) error {
	_, err := p.sdk.BatchPut(ctx, p.putItems(keys, values))
	return err
}

func (p *pipelineClient) AtomicPut(ctx context.Context, keys []string, values [][]byte) error {
	_, err := p.sdk.BatchPut(ctx, p.putItems(keys, values), client.Atomic())
	return err
}

func (p *pipelineClient) Transaction(ctx context.Context, keys []string, values [][]byte) error {
	p.ops = p.ops[:0]
	for i, k := range keys {
		p.ops = append(p.ops, client.OpPut(k, values[i]))
	}
	_, err := p.sdk.Txn(ctx).Then(p.ops...).Commit()
	return err
}

func (p *pipelineClient) putItems(keys []string, values [][]byte) []client.PutItem {
	p.items = p.items[:0]
	for i, k := range keys {
		p.items = append(p.items, client.PutItem{Key: k, Value: values[i]})
	}
	return p.items
}

func (p *pipelineClient) BatchGet(ctx context.Context, keys []string) error {
	_, err := p.sdk.BatchGet(ctx, keys)
	return err
}
