package router_test

import (
	"testing"

	api "kvstore/api/kvstore/v1"
)

// S3.9, F4: a transaction on keys of several groups, from the node that leads them
// and from another, with checks, reads, writes and deletions.
func TestTransactionOverGroups(t *testing.T) {
	c := newTxnCluster(t)
	for _, r := range []struct {
		name string
		from int
	}{{"leader", 0}, {"elsewhere", 1}} {
		t.Run(r.name, func(t *testing.T) {
			at, n := c.here, r.from
			if n > 0 {
				at = c.elsewhere("n2")
			}
			a, b, d := c.key(1, n), c.key(2, n), c.key(3, n)
			out := c.txn(at, &api.TransactionRequest{Checks: []*api.TransactionCheck{version(a, 0), version(b, 0)},
				Then: []*api.TransactionOp{put(a, "a1"), put(b, "b1"), get(d), del(d)}})
			if !out.Succeeded || out.Revision == 0 || out.Results[0].GetPut().GetVersion() != 1 || out.Results[0].GetPut().Revision != out.Revision ||
				out.Results[1].GetPut().Revision != out.Revision || out.Results[2].GetStatus().GetCode() != "not_found" || out.Results[3].GetDelete().GetExisted() {
				t.Fatalf("%v", out)
			}
			if c.read(c.here, a) != "a1" || c.read(c.here, b) != "b1" {
				t.Fatal("not written")
			}
			out = c.txn(at, &api.TransactionRequest{Checks: []*api.TransactionCheck{version(a, 1), version(b, 7)},
				Then: []*api.TransactionOp{put(a, "a2")}, Otherwise: []*api.TransactionOp{get(a), get(b), put(d, "d1")}})
			if out.Succeeded || string(out.Results[0].GetGet().GetValue()) != "a1" || string(out.Results[1].GetGet().GetValue()) != "b1" ||
				out.Results[2].GetPut().GetRevision() != out.Revision || c.read(at, a) != "a1" || c.read(at, d) != "d1" {
				t.Fatalf("%v", out)
			}
			c.settled()
		})
	}
}
