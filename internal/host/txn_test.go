package host

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// transact runs a transaction on the leader to its answer.
func (c *cluster) transact(t replica.TxnOp) *replica.Request {
	c.t.Helper()
	c.pump("a leader serves", func() bool { return c.serving() != nil })
	var answers atomic.Int32
	r := &replica.Request{Group: testGroup, Txn: &t, Done: func(*replica.Request) { answers.Add(1) }}
	c.serving().host.Submit(context.Background(), r)
	c.pump("the transaction is answered", func() bool { return answers.Load() > 0 })
	if r.Err != nil {
		c.t.Fatal(r.Err)
	}
	return r
}

func readOp(key string) replica.Op {
	return replica.Op{Read: true, Namespace: keyspace.DefaultNamespace, Key: key}
}

func checkOp(key string, c replica.Condition) replica.Op {
	return replica.Op{Namespace: keyspace.DefaultNamespace, Key: key, Condition: c}
}

// seen reads what an operation of a transaction saw.
func (c *cluster) seen(op *replica.Op) string {
	c.t.Helper()
	p := ReadPoint{Group: testGroup, Rev: op.Result.Revision, Clock: op.Result.Revision}
	rec, err := c.getAt(c.serving(), p, op.Key)
	if err != nil || rec.Revision != op.Result.Revision {
		c.t.Fatalf("%s at %v: %v", op.Key, op.Result.Revision, err)
	}
	return string(rec.Value)
}

// Keys of checks and of both lists are fetched ahead, values compared whether
// they are in memory, on disk or in chunks; what a transaction read stays readable
// at the revision that it saw, also when it overwrote it, and when it is about to
// expire.
func TestTransactions(t *testing.T) {
	large, other := strings.Repeat("abcdefg", 2000), strings.Repeat("gfedcba", 2000)
	for _, flushed := range []bool{false, true} {
		c := newCluster(t, 3, 3, func(c *cluster) {
			if flushed {
				c.store.SealBytes = 500
			}
		})
		dying := testOp("dying", "soon")
		dying.TTL = 5 * time.Second
		c.write(testOp("big", large), testOp("small", "s"), dying)
		if flushed {
			for range 20 {
				c.write(testOp("filler", strings.Repeat("f", 400)))
			}
			c.settle()
		}
		equal := replica.Condition{HasValueEquals: true, ValueEquals: []byte(large)}
		r := c.transact(replica.TxnOp{Checks: []replica.Op{checkOp("big", equal), checkOp("small", replica.Condition{HasValueEquals: true, ValueEquals: []byte("s")})},
			Then:      []replica.Op{testOp("big", other), readOp("big"), readOp("dying"), readOp("none")},
			Otherwise: []replica.Op{testOp("small", "wrong")}})
		if !r.Txn.Succeeded || r.Ops[3].Result.Existed {
			t.Fatalf("flushed %v: succeeded %v, %+v", flushed, r.Txn.Succeeded, r.Ops[3].Result)
		}
		c.pass(6 * time.Second)
		if c.seen(&r.Ops[1]) != large || c.seen(&r.Ops[2]) != "soon" {
			t.Fatalf("flushed %v: read something else than it saw", flushed)
		}
		r = c.transact(replica.TxnOp{Checks: []replica.Op{checkOp("big", equal)},
			Then: []replica.Op{testOp("small", "wrong")}, Otherwise: []replica.Op{readOp("big"), readOp("dying")}})
		if r.Txn.Succeeded || c.seen(&r.Ops[0]) != other || r.Ops[1].Result.Existed {
			t.Fatalf("flushed %v: succeeded %v, %+v", flushed, r.Txn.Succeeded, r.Ops[1].Result)
		}
		c.mustGet(c.nodes[1], "small", "s")
		c.settle()
		c.mustAgree()
	}
}

// A node that does not lead refuses the whole.
func TestTransactionNeedsTheLeader(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.pump("a leader serves", func() bool { return c.serving() != nil })
	for _, n := range c.nodes {
		if n == c.serving() {
			continue
		}
		var err error
		n.host.Submit(context.Background(), &replica.Request{Group: testGroup, Txn: &replica.TxnOp{Then: []replica.Op{readOp("k")}},
			Done: func(r *replica.Request) { err = r.Err }})
		mustBe(t, err, fault.WrongLeader)
	}
}
