package host

import (
	"testing"

	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/replica"
)

// Keys of requests in a row are looked at together, as many as fit, where there are
// several requests of one group; what is written by them does not depend on that.
func TestWarm(t *testing.T) {
	c := newCluster(t, 3, 3)
	n := c.serving()
	g := n.host.groups[testGroup]
	of := func(group keyspace.GroupID, keys ...int) (all []*replica.Request) {
		for _, k := range keys {
			r := &replica.Request{Group: group, Ops: make([]replica.Op, k)}
			for i := range r.Ops {
				r.Ops[i].Key = "k"
			}
			all = append(all, r)
		}
		return all
	}
	txn := &replica.Request{Group: testGroup, Txn: &replica.TxnOp{}}
	for _, tc := range []struct {
		requests []*replica.Request
		want     int
	}{
		{of(testGroup, 1), 0},
		{of(testGroup, 5), 0},
		{of(testGroup, 1, 1), 2},
		{of(testGroup, 10, 6, 1), 2},
		{of(testGroup, 10, 7), 0},
		{of(testGroup, mvcc.PrefetchKeys+1, 1, 1), 0},
		{of(testGroup, 1, 2, 0, 1), 2},
		{append(of(testGroup, 1, 1), of(testGroup+1, 1)...), 2},
		{append(of(testGroup, 1, 1), txn), 2},
		{append([]*replica.Request{txn}, of(testGroup, 1, 1)...), 0},
	} {
		if got := n.host.warm(g, tc.requests); got != tc.want {
			t.Errorf("%d of %d requests are looked at, want %d", got, len(tc.requests), tc.want)
		}
	}
	if got := n.host.warm(new(group), of(0, 1, 1)); got != 0 {
		t.Errorf("%d requests of a group without a replica", got)
	}
}
