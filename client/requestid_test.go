package client

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// fakeServerTime is far from the client's own.
const fakeServerTime = 1_900_000_000_000

func requestIDOf(op *api.PipelineOp) string {
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		return o.Put.GetRequestId()
	case *api.PipelineOp_Delete:
		return o.Delete.GetRequestId()
	case *api.PipelineOp_BatchPut:
		return o.BatchPut.GetRequestId()
	case *api.PipelineOp_BatchDelete:
		return o.BatchDelete.GetRequestId()
	case *api.PipelineOp_Transaction:
		return o.Transaction.GetRequestId()
	}
	return ""
}

// remembering is a cluster that knows request ids.
func remembering(t *testing.T) *fakeCluster {
	f := newFakeCluster(t, 3)
	f.kept = map[string]*api.PipelineResult{}
	return f
}

// F2: what may not be repeated blindly is repeated under its id when its answer is
// lost, executed once, and its answer is the first one. Plain writes have no id.
func TestLostAnswersAreAskedFor(t *testing.T) {
	for name, fault := range map[string]opFault{"before": {dropBefore: true}, "after": {dropAfter: true}} {
		for verb, run := range map[string]func(ctx context.Context, c *Client, key string) error{
			"put": func(ctx context.Context, c *Client, key string) error {
				_, err := c.Put(ctx, key, []byte("v"), IfAbsent())
				return err
			},
			"txn": func(ctx context.Context, c *Client, key string) error {
				res, err := c.Txn(ctx).If(Key(key).Absent()).Then(OpPut(key, []byte("v"))).Commit()
				if err == nil && !res.Succeeded {
					err = errors.New("was executed before")
				}
				return err
			},
			"batch": func(ctx context.Context, c *Client, key string) error {
				_, err := c.BatchPut(ctx, []PutItem{{Key: key, Value: []byte("v"), Condition: Condition{MustNotExist: true}}}, Atomic())
				return err
			},
		} {
			f := remembering(t)
			c := f.client(nil)
			key := f.keyLedBy(f.nodes[1], "k")
			f.nodes[1].setFault(times(1, fault))
			if err := run(t.Context(), c, key); err != nil || f.executions(key) != 1 {
				t.Fatalf("%s dropped %s: %v, executed %d times", verb, name, err, f.executions(key))
			}
			lost := times(1, fault)
			for _, n := range f.nodes {
				n.setFault(lost)
			}
			if _, err := c.Put(t.Context(), key, []byte("w")); !errors.Is(err, ErrUnknownOutcome) || RequestIDOf(err) != "" {
				t.Fatalf("a plain put, dropped %s: %v", name, err)
			}
		}
	}
}

// F2: what was given up under an id that only the SDK knows is executed under another
// one; under the caller's id it never is, and the caller is told.
func TestGivenUpRequestsBeginAnew(t *testing.T) {
	for verb, run := range map[string]func(ctx context.Context, c *Client, key, id string) error{
		"put": func(ctx context.Context, c *Client, key, id string) error {
			_, err := c.Put(ctx, key, []byte("v"), IfAbsent(), WithRequestID(id))
			return err
		},
		"delete": func(ctx context.Context, c *Client, key, id string) error {
			_, err := c.Delete(ctx, key, IfAbsent(), WithRequestID(id))
			return err
		},
		"txn": func(ctx context.Context, c *Client, key, id string) error {
			_, err := c.Txn(ctx).Then(OpPut(key, []byte("v"))).RequestID(id).Commit()
			return err
		},
		"batch": func(ctx context.Context, c *Client, key, id string) error {
			_, err := c.BatchPut(ctx, []PutItem{{Key: key, Value: []byte("v")}}, Atomic(), WithRequestID(id))
			return err
		},
	} {
		f := remembering(t)
		c := f.client(nil)
		aborted := map[string]bool{}
		var mu sync.Mutex
		for _, n := range f.nodes {
			n.setFault(func(op *api.PipelineOp) opFault {
				mu.Lock()
				defer mu.Unlock()
				if id := requestIDOf(op); len(aborted) < 3 || aborted[id] {
					aborted[id] = true
					return opFault{status: statusOf(CodeFailedPrecondition, "state", "aborted", "request_id", id)}
				}
				return opFault{}
			})
		}
		if err := run(t.Context(), c, "k", ""); err != nil || len(aborted) != 3 {
			t.Errorf("%s: %v, under the ids %v", verb, err, aborted)
		}
		id := c.NewRequestID()
		aborted[id] = true
		err := run(t.Context(), c, "k", id)
		wantError(t, err, ErrFailedPrecondition)
		if len(aborted) != 4 {
			t.Errorf("%s: under the ids %v", verb, aborted)
		}
	}
}

// When the time is over before the truth is known the error says so and names the
// request; without ids nothing is repeated.
func TestOutcomeThatStaysUnknown(t *testing.T) {
	f := remembering(t)
	c := f.client(nil)
	key := f.keyLedBy(f.nodes[1], "k")
	for _, n := range f.nodes {
		n.setFault(func(op *api.PipelineOp) opFault {
			if f.executions(key) > 0 {
				return opFault{status: statusOf(CodeUnavailable)}
			}
			return opFault{dropAfter: true}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	id := c.NewRequestID()
	_, err := c.Put(ctx, key, nil, IfAbsent(), WithRequestID(id))
	wantError(t, err, ErrUnknownOutcome)
	if RequestIDOf(err) != id || f.executions(key) != 1 {
		t.Fatalf("%v, executed %d times", err, f.executions(key))
	}
	got, err := keyspace.ParseTxnID(id)
	if off := got.Created.UnixMilli() - fakeServerTime; err != nil || off < 0 || off > 60_000 {
		t.Fatalf("id %s is %v off the servers' time, %v", id, off, err)
	}
	off := f.client(func(c *Config) { c.NoRequestIDs = true })
	f.nodes[1].setFault(times(1, opFault{dropAfter: true}))
	_, err = off.Txn(t.Context()).Then(OpPut(key, nil)).Commit()
	wantError(t, err, ErrUnknownOutcome)
	if RequestIDOf(err) != "" {
		t.Fatal(err)
	}
}
