package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
)

func TestTxn(t *testing.T) {
	f := newFakeCluster(t, 3)
	f.namespaces["app"] = &api.Namespace{Name: "app", Id: 16, State: "active"}
	c := f.client(nil)
	res, err := c.Txn(t.Context()).
		If(Key("{t}a").Absent(), Key("{t}a").Version().Eq(0), Key("{t}a").Revision().Eq(0)).
		Then(OpPut("{t}a", []byte("1"), WithTag("x", "y")), OpPut("{t}a", []byte("other"), InNamespace("app")), OpGet("{t}a")).
		Commit()
	if err != nil || !res.Succeeded || res.Put(0).Version != 1 || res.Revision != res.Put(1).Revision {
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err := res.Get(2); !errors.Is(err, ErrNotFound) {
		t.Fatalf("read its own write: %v", err)
	}
	wantValue(t, c, "{t}a", "other", InNamespace("app"))

	build := func() *Txn {
		return c.Txn(t.Context()).
			If(Key("{t}a").Version().Eq(1), Key("{t}a").Value().Eq([]byte("1")), Key("{t}a").In("app").Exists()).
			Then(OpDelete("{t}a"), OpGet("{t}a"), OpGet("{t}a", KeysOnly())).
			Else(OpGet("{t}a"), OpPut("{t}b", []byte("2")))
	}
	res, err = build().Commit()
	if err != nil || !res.Succeeded || !res.Delete(0).Existed || string(res.Results[1].Record.Value) != "1" || res.Results[1].Record.Tags["x"] != "y" {
		t.Fatalf("%+v, %v", res, err)
	}
	if r, err := res.Get(2); err != nil || r.Value != nil || r.Size != 1 {
		t.Fatalf("keys only: %+v, %v", r, err)
	}
	res, err = build().Commit()
	if err != nil || res.Succeeded || !errors.Is(res.Results[0].Err, ErrNotFound) || res.Put(1).Version != 1 {
		t.Fatalf("%+v, %v", res, err)
	}

	_, err = c.Txn(t.Context()).Then(OpPut("{t}c", nil), OpPut("{t}b", nil, IfVersion(9))).Commit()
	wantError(t, err, ErrConditionFailed)
	var e *Error
	if errors.As(err, &e); e.Details["item"] != "1" {
		t.Fatalf("details %v", e.Details)
	}
	if _, err := c.Get(t.Context(), "{t}c"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("half of it was executed: %v", err)
	}
}

func TestTxnRefusals(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	ctx := t.Context()
	for name, txn := range map[string]*Txn{
		"empty":         c.Txn(ctx),
		"at a revision": c.Txn(ctx).Then(OpGet("k", AtRevision(7))),
		"stale":         c.Txn(ctx).Then(OpGet("k", WithMaxStaleness(time.Second))),
		"made by hand":  c.Txn(ctx).Else(Op{}),
		"two expiries":  c.Txn(ctx).Then(OpPut("k", nil, WithTTL(time.Second), WithExpiry(time.Unix(9, 0)))),
	} {
		if _, err := txn.Commit(); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := c.Txn(ctx).If(Key("").Exists()).Commit()
	wantError(t, err, ErrInvalidKey)
	_, err = c.Txn(ctx).Then(OpPut("k", make([]byte, 15<<20)), OpPut("l", make([]byte, 15<<20))).Commit()
	wantError(t, err, ErrMessageTooLarge)
	if n := f.nodes[0].ops.Load(); n != 0 {
		t.Fatalf("%d operations were sent", n)
	}
	f.nodes[0].setFault(func(*api.PipelineOp) opFault { return opFault{status: statusOf(CodeCrossGroup, "groups", "1,2")} })
	_, err = c.Txn(ctx).Then(OpPut("k", nil), OpPut("l", nil)).Commit()
	wantError(t, err, ErrCrossGroup)
}

// A transaction is repeated under the rules of writes.
func TestTxnRetries(t *testing.T) {
	for name, c := range map[string]struct {
		fault    opFault
		want     error
		executed int
	}{
		"unavailable":  {opFault{status: statusOf(CodeUnavailable)}, nil, 1},
		"wrong leader": {opFault{status: statusOf(CodeWrongLeader)}, nil, 1},
		"overloaded":   {opFault{status: statusOf(CodeOverloaded)}, nil, 1},
		"node stops":   {opFault{drain: true}, nil, 1},
		"answer lost":  {opFault{dropAfter: true}, ErrUnknownOutcome, 1},
		"request lost": {opFault{dropBefore: true}, ErrUnknownOutcome, 0},
		"unknown":      {opFault{status: statusOf(CodeUnknownOutcome)}, ErrUnknownOutcome, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeCluster(t, 3)
			cl := f.client(nil)
			f.loseOnce(c.fault)
			_, err := cl.Txn(t.Context()).Then(OpPut("k", []byte("v"))).Commit()
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if n := f.executions("k"); n != c.executed {
				t.Fatalf("executed %d times, want %d", n, c.executed)
			}
		})
	}
}

// What only reads moves on to another node when the answer of one is lost, as every
// read does: none of it is an unknown outcome.
func TestReadingTransactionsMoveOn(t *testing.T) {
	for name, read := range map[string]func(context.Context, *Client) error{
		"snapshot": func(ctx context.Context, c *Client) error {
			_, err := c.Snapshot(ctx, []string{"a", "b"})
			return err
		},
		"transaction": func(ctx context.Context, c *Client) error {
			_, err := c.Txn(ctx).Then(OpGet("a"), OpGet("b")).Commit()
			return err
		},
		"check": func(ctx context.Context, c *Client) error {
			_, err := c.Txn(ctx).If(Key("a").Absent()).Then(OpGet("b")).Commit()
			return err
		},
		"interactive": func(ctx context.Context, c *Client) error {
			return c.Transact(ctx, func(tx *Tx) error {
				for _, key := range []string{"a", "b"} {
					if _, err := tx.Get(key); err != nil && !errors.Is(err, ErrNotFound) {
						return err
					}
				}
				return nil
			})
		},
	} {
		for loss, fault := range map[string]opFault{
			"request lost": {dropBefore: true}, "answer lost": {dropAfter: true}, "unknown": {status: statusOf(CodeUnknownOutcome)},
		} {
			t.Run(name+", "+loss, func(t *testing.T) {
				f := newFakeCluster(t, 3)
				c := f.client(nil)
				f.loseOnce(fault)
				if err := read(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				if s := c.Stats(); s.UnknownOutcomes != 0 || s.Retries == 0 {
					t.Fatalf("%+v", s)
				}
			})
		}
	}
}

// loseOnce has one transaction meet a fault, on whichever node.
func (f *fakeCluster) loseOnce(fault opFault) {
	var once sync.Once
	for _, n := range f.nodes {
		n.setFault(func(op *api.PipelineOp) (met opFault) {
			if op.GetTransaction() != nil {
				once.Do(func() { met = fault })
			}
			return met
		})
	}
}

// Transfers that run at the same time neither make nor lose anything, and every
// reader sees the whole.
func TestTransactKeepsTheSum(t *testing.T) {
	const accounts, workers, each, total = 3, 4, 25, 300
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	account := func(i int) string { return fmt.Sprintf("{bank}%d", i%accounts) }
	for i := range accounts {
		mustPut(t, c, account(i), strconv.Itoa(total/accounts))
	}
	sum := func(tx *Tx) (all int, err error) {
		for i := range accounts {
			r, err := tx.Get(account(i))
			if err != nil {
				return 0, err
			}
			n, _ := strconv.Atoi(string(r.Value))
			all += n
		}
		return all, nil
	}
	transfer := func(from, to string) func(tx *Tx) error {
		return func(tx *Tx) error {
			a, err := tx.Get(from)
			if err != nil {
				return err
			}
			b, err := tx.Get(to)
			if err != nil {
				return err
			}
			less, _ := strconv.Atoi(string(a.Value))
			more, _ := strconv.Atoi(string(b.Value))
			tx.Put(from, []byte(strconv.Itoa(less-1)))
			tx.Put(to, []byte(strconv.Itoa(more+1)))
			return nil
		}
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				if err := c.Transact(t.Context(), transfer(account(w+i), account(w+i+1))); err != nil {
					t.Errorf("transfer: %v", err)
				}
				var all int
				err := c.Transact(t.Context(), func(tx *Tx) (err error) {
					all, err = sum(tx)
					return err
				})
				if err != nil || all != total {
					t.Errorf("sum %d of %d, %v", all, total, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestTransactReadsItsOwnWrites(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	mustPut(t, c, "{t}a", "old")
	runs := 0
	err := c.Transact(t.Context(), func(tx *Tx) error {
		if runs++; runs > 1 {
			return nil
		}
		if _, err := tx.Get("{t}a", KeysOnly()); err != nil {
			return err
		}
		first, err := tx.Get("{t}a")
		if err != nil || string(first.Value) != "old" {
			return fmt.Errorf("read %q, %w", first.Value, err)
		}
		first.Value[0] = 'X'
		if again, _ := tx.Get("{t}a"); string(again.Value) != "old" {
			return fmt.Errorf("a caller changed what was read to %q", again.Value)
		}
		tx.Put("{t}a", []byte("new"), WithTag("t", "1"))
		if r, err := tx.Get("{t}a"); err != nil || string(r.Value) != "new" || r.Tags["t"] != "1" || r.Revision != 0 {
			return fmt.Errorf("own write: %+v, %w", r, err)
		}
		tx.Delete("{t}a")
		if _, err := tx.Get("{t}a"); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("own deletion: %w", err)
		}
		tx.Put("{t}a", []byte("last"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if wantValue(t, c, "{t}a", "last"); f.executions("{t}a") != 2 {
		t.Fatalf("%d writes", f.executions("{t}a"))
	}
}

// Whatever was read, an absent key too, must be as it was.
func TestTransactConflicts(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *Client){
		"changed":  func(t *testing.T, c *Client) { mustPut(t, c, "{t}there", "2") },
		"deleted":  func(t *testing.T, c *Client) { _, _ = c.Delete(t.Context(), "{t}there") },
		"appeared": func(t *testing.T, c *Client) { mustPut(t, c, "{t}absent", "1") },
		"replaced": func(t *testing.T, c *Client) {
			_, _ = c.Delete(t.Context(), "{t}there")
			mustPut(t, c, "{t}there", "1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeCluster(t, 3)
			c := f.client(nil)
			mustPut(t, c, "{t}there", "1")
			runs := 0
			err := c.Transact(t.Context(), func(tx *Tx) error {
				runs++
				_, _ = tx.Get("{t}there")
				_, _ = tx.Get("{t}absent")
				if runs == 1 {
					change(t, c)
				}
				tx.Put("{t}out", []byte(strconv.Itoa(runs)))
				return nil
			})
			if err != nil || runs != 2 {
				t.Fatalf("%d runs, %v", runs, err)
			}
			wantValue(t, c, "{t}out", "2")
		})
	}
}

// What ends a transaction without a commit.
func TestTransactEnds(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	own := errors.New("own")
	err := c.Transact(t.Context(), func(tx *Tx) error {
		tx.Put("k", nil)
		return own
	})
	wantError(t, err, own)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	runs := 0
	err = c.Transact(ctx, func(tx *Tx) error {
		_, _ = tx.Get("other")
		mustPut(t, c, "other", "again")
		tx.Put("k", nil)
		if runs++; runs == 4 {
			cancel()
		}
		return nil
	})
	wantError(t, err, ErrCanceled)

	err = c.Transact(t.Context(), func(tx *Tx) error {
		tx.Put("k", nil, IfVersion(7))
		return nil
	})
	wantError(t, err, ErrConditionFailed)

	for _, n := range f.nodes {
		n.setFault(func(op *api.PipelineOp) opFault { return opFault{dropAfter: op.GetTransaction() != nil} })
	}
	err = c.Transact(t.Context(), func(tx *Tx) error {
		tx.Put("u", nil)
		return nil
	})
	wantError(t, err, ErrUnknownOutcome)
	if n := f.executions("k") + 10*f.executions("u"); n != 10 {
		t.Fatalf("executions %d", n)
	}
}

// Encoded transactions are what the generated code reads.
func TestEncodedTransactionsEqualGenerated(t *testing.T) {
	r := newWireRand(t)
	c := &Client{cfg: Config{Namespace: "own"}}
	for range 500 {
		item, del := r.putItem(), DeleteItem{Key: r.text(), Condition: r.condition()}
		cond := r.condition()
		txn := c.Txn(t.Context()).If(Key("a").In("n").Is(cond), Key("b").Exists()).
			Then(Op{kind: opPut, key: item.Key, put: &putCall{namespace: "n", item: item}}, Op{kind: opDelete, key: del.Key, del: &deleteCall{item: del}}).
			Else(OpGet("g", KeysOnly()), OpGet("h", InNamespace("n")))
		want := &api.TransactionRequest{
			Checks: []*api.TransactionCheck{{Namespace: "n", Key: "a", Condition: conditionToAPI(&cond)}, {Namespace: "own", Key: "b", Condition: &api.Condition{MustExist: true}}},
			Then: []*api.TransactionOp{
				{Op: &api.TransactionOp_Put{Put: apiPut("n", &item)}},
				{Op: &api.TransactionOp_Delete{Delete: &api.DeleteRequest{Namespace: "own", Key: del.Key, Condition: conditionToAPI(&del.Condition)}}}},
			Otherwise: []*api.TransactionOp{
				{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Namespace: "own", Key: "g", KeysOnly: true}}},
				{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Namespace: "n", Key: "h"}}}},
		}
		wantFrame(t, txn.encode(nil), &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: want}})
	}
}

// A transaction costs an allocation for each of its operations, and a few more.
func TestTransactionsAllocateLittle(t *testing.T) {
	c := &Client{cfg: Config{Namespace: "own"}}
	const count = 10
	answer := &api.TransactionResponse{Succeeded: true, Revision: 1 << 57}
	for range count {
		answer.Results = append(answer.Results, &api.TransactionResult{Result: &api.TransactionResult_Put{Put: &api.PutResponse{Version: 1, Revision: 1 << 57}}})
	}
	b, value, body, ops := mustMarshal(t, answer), make([]byte, 100), make([]byte, 0, 4<<10), make([]Op, count)
	n := testing.AllocsPerRun(20, func() {
		for i := range ops {
			ops[i] = OpPut("key", value)
		}
		txn, res := c.Txn(t.Context()).Then(ops...), TxnResult{}
		body = txn.encode(body[:0])
		if err := txn.decode(b, &res); err != nil || len(res.Results) != count {
			t.Fatal(err)
		}
	})
	if n > count+3 {
		t.Errorf("%v allocations", n)
	}
}
