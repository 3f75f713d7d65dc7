package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/client/collections"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/server/status"
)

// TestPast: reads of the past are the same on every node, over all groups, also
// after a restart; ranges are deleted by whichever node leads the metadata.
func TestPast(t *testing.T) {
	c := newTestCluster(t, 3, false)
	c.startAll()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // of all steps
	defer cancel()
	first := c.client(c.configs[0].Listen.GRPC)
	revisions := c.writePast(ctx, first)
	c.expectPast(ctx, revisions)
	c.expectBounds(ctx)
	c.expectQueue(ctx)
	c.expectDeletion(ctx) // one node is restarted
	c.expectPast(ctx, revisions)
}

const pastKeys = 40

// writePast writes all keys three times, deletes them in between, and returns a
// revision from behind each round.
func (c *testCluster) writePast(ctx context.Context, stub api.KVStoreClient) (revisions []uint64) {
	c.t.Helper()
	for round := range 4 {
		var last uint64
		for i := range pastKeys {
			key := fmt.Sprintf("past/%02d", i)
			if round == 2 {
				res, err := stub.Delete(ctx, &api.DeleteRequest{Key: key})
				if err != nil {
					c.t.Fatal(err)
				}
				last = max(last, res.Revision)
				continue
			}
			res, err := stub.Put(ctx, &api.PutRequest{Key: key, Value: []byte(fmt.Sprint(round))})
			if err != nil {
				c.t.Fatal(err)
			}
			last = max(last, res.Revision)
		}
		// The next round is behind this one in every group.
		page, err := stub.List(ctx, &api.ListRequest{Prefix: "past/", CountOnly: true})
		if err != nil {
			c.t.Fatal(err)
		}
		revisions = append(revisions, max(last, page.Revision))
	}
	return revisions
}

func (c *testCluster) expectPast(ctx context.Context, revisions []uint64) {
	c.t.Helper()
	for n := range c.configs {
		stub := c.client(c.configs[n].Listen.GRPC)
		for round, at := range revisions {
			want, there := fmt.Sprint(round), round != 2
			list, err := stub.List(ctx, &api.ListRequest{Prefix: "past/", AtRevision: at})
			if err != nil || list.Revision != at || len(list.Records) != map[bool]int{true: pastKeys}[there] {
				c.t.Fatalf("n%d, list at round %d: %d records at %d, %v", n+1, round, len(list.GetRecords()), list.GetRevision(), err)
			}
			batch := &api.BatchGetRequest{AtRevision: at}
			for i := range pastKeys {
				batch.Keys = append(batch.Keys, fmt.Sprintf("past/%02d", i))
				get, err := stub.Get(ctx, &api.GetRequest{Key: batch.Keys[i], AtRevision: at})
				if there && (err != nil || string(get.Record.Value) != want) || !there && status.Fault(err).Code != fault.NotFound {
					c.t.Fatalf("n%d, key %d at round %d: %v, %v", n+1, i, round, get, err)
				}
			}
			got, err := stub.BatchGet(ctx, batch)
			if err != nil || got.ReadRevision != at {
				c.t.Fatalf("n%d, batch at round %d: %v", n+1, round, err)
			}
			for i, r := range got.Results {
				if there != (string(r.GetRecord().GetValue()) == want) {
					c.t.Fatalf("n%d, batch at round %d: key %d is %v", n+1, round, i, r)
				}
			}
		}
		history, err := stub.History(ctx, &api.HistoryRequest{Key: "past/07", Limit: 3})
		if err != nil || len(history.Versions) != 3 || !history.Versions[1].Deleted || history.Versions[1].Reason != "deleted" ||
			string(history.Versions[2].Record.Value) != "1" || history.NextRevision == 0 {
			c.t.Fatalf("n%d: history %v, %v", n+1, history, err)
		}
		history, err = stub.History(ctx, &api.HistoryRequest{Key: "past/07", UntilRevision: history.NextRevision})
		if err != nil || len(history.Versions) != 1 || string(history.Versions[0].Record.Value) != "0" || history.NextRevision != 0 {
			c.t.Fatalf("n%d: end of the history %v, %v", n+1, history, err)
		}
	}
}

// expectBounds reads before there was anything, now, and in the future.
func (c *testCluster) expectBounds(ctx context.Context) {
	c.t.Helper()
	for n := range c.configs {
		stub := c.client(c.configs[n].Listen.GRPC)
		future := time.Now().Add(time.Hour).UnixMilli()
		for ms, want := range map[int64]struct {
			code fault.Code
			keys int
		}{1000: {fault.NotFound, 0}, -1: {"", pastKeys}, time.Now().UnixMilli(): {"", pastKeys}, future: {fault.OutOfRange, 0}} {
			_, err := stub.Get(ctx, &api.GetRequest{Key: "past/00", AtTimeMs: ms})
			if got := codeOf(err); got != want.code {
				c.t.Errorf("n%d at %d: %v, want %s", n+1, ms, err, want.code)
			}
			page, err := stub.List(ctx, &api.ListRequest{Prefix: "past/", AtTimeMs: ms})
			if (codeOf(err) == fault.OutOfRange) != (ms == future) || len(page.GetRecords()) != want.keys {
				c.t.Errorf("n%d, list at %d: %d records, %v", n+1, ms, len(page.GetRecords()), err)
			}
		}
	}
}

func codeOf(err error) fault.Code {
	if err == nil {
		return ""
	}
	return status.Fault(err).Code
}

// expectDeletion deletes a range while the leader of the metadata closes.
func (c *testCluster) expectDeletion(ctx context.Context) {
	c.t.Helper()
	stub := c.client(c.configs[0].Listen.GRPC)
	batch := &api.BatchPutRequest{}
	const keys = 10_000
	for i := range keys {
		batch.Items = append(batch.Items, &api.PutRequest{Key: fmt.Sprintf("range/%05d", i)})
		if len(batch.Items) == 5000 {
			if _, err := stub.BatchPut(ctx, batch); err != nil {
				c.t.Fatal(err)
			}
			batch.Items = nil
		}
	}
	job, err := stub.DeleteRange(ctx, &api.DeleteRangeRequest{Prefix: "range/"})
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := stub.Put(ctx, &api.PutRequest{Key: "range/later"}); err != nil {
		c.t.Fatal(err)
	}
	leader, other := c.metaLeader()
	stub = c.client(c.configs[other].Listen.GRPC)
	c.close(leader)
	eventually(c.t, func() error {
		now, err := stub.DescribeJob(ctx, &api.DescribeJobRequest{Id: job.Id})
		if err == nil && now.State != format.JobDone {
			err = fmt.Errorf("job %v", now)
		}
		return err
	})
	page, err := stub.List(ctx, &api.ListRequest{Prefix: "range/"})
	if err != nil || len(page.Records) != 1 || page.Records[0].Key != "range/later" {
		c.t.Fatalf("left: %v, %v", page, err)
	}
	past, err := stub.List(ctx, &api.ListRequest{Prefix: "range/", AtRevision: job.Revision, CountOnly: true})
	if err != nil || past.Count != keys {
		c.t.Fatalf("before: %v, %v", past, err)
	}
	c.start(leader)
	c.waitReady(leader)
}

// metaLeader returns the node that leads the metadata, and another one.
func (c *testCluster) metaLeader() (leader, other int) {
	c.t.Helper()
	eventually(c.t, func() error {
		for i, n := range c.nodes {
			if node, _, known := n.host.Leader(0); known && node == n.id {
				leader, other = i, (i+1)%len(c.nodes)
				return nil
			}
		}
		return errors.New("nobody leads the metadata")
	})
	return leader, other
}

// expectQueue has consumers wait for what producers add, on all nodes.
func (c *testCluster) expectQueue(ctx context.Context) {
	c.t.Helper()
	const elements = 30
	var mu sync.Mutex
	taken := map[int]int{}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range c.configs {
		cl, err := client.New(ctx, client.Config{Endpoints: []string{c.configs[i].Listen.GRPC}})
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { _ = cl.Close() })
		q, err := collections.NewQueue[int](cl, "numbers")
		if err != nil {
			c.t.Fatal(err)
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				n, err := q.Dequeue(ctx)
				if err != nil {
					if ctx.Err() == nil {
						c.t.Error(err)
					}
					return
				}
				mu.Lock()
				if taken[n]++; len(taken) == elements {
					cancel()
				}
				mu.Unlock()
			}
		})
		wg.Go(func() {
			for n := i; n < elements; n += len(c.configs) {
				if err := q.Enqueue(ctx, n); err != nil && ctx.Err() == nil {
					c.t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for n := range elements {
		if taken[n] != 1 {
			c.t.Errorf("element %d was taken %d times", n, taken[n])
		}
	}
}
