package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	api "kvstore/api/kvstore/v1"
)

func TestBatches(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	ctx := t.Context()
	items := make([]PutItem, 100)
	keys := make([]string, 100)
	for i := range items {
		keys[i] = fmt.Sprintf("key-%03d", i)
		items[i] = PutItem{Key: keys[i], Value: []byte(keys[i]), Tags: map[string]string{"n": keys[i]}}
	}
	puts, err := c.BatchPut(ctx, items)
	if err != nil || len(puts) != 100 || puts[99].Version != 1 {
		t.Fatalf("put %+v, %v", puts, err)
	}
	for _, n := range f.nodes {
		if n.ops.Load() != 1 {
			t.Errorf("%s got %d operations, want one for its groups", n.name, n.ops.Load())
		}
	}
	gets, err := c.BatchGet(ctx, append(keys, "missing"), From(Any))
	if err != nil {
		t.Fatal(err)
	}
	for i, g := range gets[:100] {
		if g.Err != nil || string(g.Record.Value) != keys[i] || g.Record.Tags["n"] != keys[i] {
			t.Fatalf("item %d is %+v", i, g)
		}
	}
	wantError(t, gets[100].Err, ErrNotFound)
	deleted, err := c.BatchDelete(ctx, []DeleteItem{{Key: keys[0]}, {Key: keys[1], Condition: Condition{MustNotExist: true}}, {Key: "missing"}})
	var be *BatchError
	if !errors.As(err, &be) || be.Total != 3 || len(be.Items) != 1 || be.Items[1] == nil {
		t.Fatalf("batch error %v", err)
	}
	wantError(t, err, ErrConditionFailed)
	if !deleted[0].Existed || deleted[0].Err != nil || deleted[1].Err == nil || deleted[2].Existed {
		t.Fatalf("deleted %+v", deleted)
	}
	if empty, err := c.BatchPut(ctx, nil); err != nil || len(empty) != 0 {
		t.Fatalf("empty batch: %v, %v", empty, err)
	}
}

// A batch of few reads goes to one node when that has replicas of all groups.
func TestSmallBatchOfReadsGoesToOneNode(t *testing.T) {
	for _, alone := range []bool{false, true} {
		f := newFakeCluster(t, 3)
		f.alone = alone
		c := f.client(nil)
		var keys []string
		for i, n := range f.nodes {
			keys = append(keys, f.keyLedBy(n, "k"))
			mustPut(t, c, keys[i], keys[i])
		}
		f.served()
		want := [3]int64{0, 1, 0}
		if alone {
			want = [3]int64{1, 1, 1}
		}
		for _, from := range []ReadFrom{Leader, Any, Auto} {
			results, err := c.BatchGet(t.Context(), []string{keys[1], keys[0], keys[2]}, From(from))
			if err != nil || string(results[0].Record.Value) != keys[1] || string(results[2].Record.Value) != keys[2] {
				t.Fatalf("%+v, %v", results, err)
			}
			got := f.served()
			if sum := got[0] + got[1] + got[2]; from == Leader && [3]int64(got) != want || from != Leader && sum != want[0]+want[1]+want[2] {
				t.Errorf("alone %v, from %v: served %v", alone, from, got)
			}
		}
		f.served()
		if _, err := c.BatchGet(t.Context(), slices.Repeat(keys, gatherKeys)); err != nil {
			t.Fatal(err)
		}
		if got := f.served(); [3]int64(got) != [3]int64{1, 1, 1} {
			t.Errorf("many keys: served %v", got)
		}
	}
}

// What is too much for one node's answer is asked of several.
func TestBatchOfReadsTooLargeForOneAnswer(t *testing.T) {
	f := newFakeCluster(t, 2)
	c := f.client(nil)
	key0, key1 := f.keyLedBy(f.nodes[0], "a"), f.keyLedBy(f.nodes[1], "b")
	mustPut(t, c, key0, "v")
	mustPut(t, c, key1, "w")
	for _, n := range f.nodes {
		n.setFault(func(op *api.PipelineOp) opFault {
			if len(op.GetBatchGet().GetKeys()) > 1 {
				return opFault{status: statusOf(CodeMessageTooLarge)}
			}
			return opFault{}
		})
	}
	results, err := c.BatchGet(t.Context(), []string{key0, key1})
	if err != nil || string(results[0].Record.Value) != "v" || string(results[1].Record.Value) != "w" {
		t.Fatalf("%+v, %v", results, err)
	}
	if _, err = c.BatchGet(t.Context(), []string{key0, key0}); err == nil {
		t.Fatal(err)
	}
}

// The parts of a batch end with its context, each on its own.
func TestBatchEndsWithItsContext(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	key0, key1, key2 := f.keyLedBy(f.nodes[0], "a"), f.keyLedBy(f.nodes[1], "b"), f.keyLedBy(f.nodes[2], "c")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan struct{})
	f.nodes[1].setFault(func(*api.PipelineOp) opFault { close(asked); return opFault{mute: true} })
	go func() {
		<-asked
		for f.executions(key0) == 0 || f.executions(key2) == 0 {
			runtime.Gosched()
		}
		cancel()
	}()
	results, err := c.BatchPut(ctx, []PutItem{{Key: key0}, {Key: key1}, {Key: key2}})
	wantError(t, err, ErrUnknownOutcome)
	wantError(t, results[1].Err, ErrUnknownOutcome)
	// The others were executed; whether their answers came in time is open.
	for _, i := range []int{0, 2} {
		if results[i].Err != nil {
			wantError(t, results[i].Err, ErrUnknownOutcome)
		}
	}
}

func TestAtomicBatchStaysWhole(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	items := []PutItem{{Key: f.keyLedBy(f.nodes[0], "a")}, {Key: f.keyLedBy(f.nodes[1], "b")}}
	for _, n := range f.nodes {
		n.setFault(func(op *api.PipelineOp) opFault {
			if b := op.GetBatchPut(); !b.GetAtomic() || len(b.GetItems()) != 2 {
				t.Errorf("got %v", op)
			}
			return opFault{status: statusOf(CodeCrossGroup)}
		})
	}
	_, err := c.BatchPut(t.Context(), items, Atomic())
	wantError(t, err, ErrCrossGroup)
}

// Only the items that the server did not execute are sent again.
func TestBatchRepeatsWhatWasNotExecuted(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	key0, key1 := f.keyLedBy(f.nodes[0], "a"), f.keyLedBy(f.nodes[1], "b")
	left := 3
	f.nodes[1].setFault(func(*api.PipelineOp) opFault {
		if left--; left >= 0 {
			return opFault{status: statusOf(CodeOverloaded)}
		}
		return opFault{}
	})
	if _, err := c.BatchPut(t.Context(), []PutItem{{Key: key0}, {Key: key1}}); err != nil {
		t.Fatal(err)
	}
	if a, b := f.executions(key0), f.executions(key1); a != 1 || b != 1 {
		t.Fatalf("executed %d and %d times", a, b)
	}
}

// A batch whose part for one leader exceeds a message goes group by group.
func TestBatchLargerThanAMessage(t *testing.T) {
	f := newFakeCluster(t, 1)
	f.limits.messageBytes = 3000
	c := f.client(nil)
	var items []PutItem
	for i := range 12 {
		items = append(items, PutItem{Key: fmt.Sprintf("key-%d", i), Value: make([]byte, 400)})
	}
	if _, err := c.BatchPut(t.Context(), items); err != nil {
		t.Fatal(err)
	}
	if n := f.nodes[0].ops.Load(); n < 2 {
		t.Fatalf("%d operations", n)
	}
}

// The values of a batch share memory.
func TestBatchesAllocateLittle(t *testing.T) {
	answer := &api.BatchGetResponse{}
	var positions []int
	for i := range 100 {
		answer.Results = append(answer.Results, &api.BatchGetResult{Record: &api.Record{Key: "key", Value: make([]byte, 256), Version: 1}})
		positions = append(positions, i)
	}
	b, records, errs := mustMarshal(t, answer), make([]Record, 100), make([]error, 100)
	batch := &batch{decode: func(i int, answer []byte, values *slab) error {
		return decodeRecord(answer, "key", &records[i], values)
	}}
	n := testing.AllocsPerRun(20, func() {
		if err := batch.decodeAnswer(b, positions, errs); err != nil {
			t.Fatal(err)
		}
	})
	if n > 4 {
		t.Errorf("%v allocations", n)
	}
	for i := range records {
		if len(records[i].Value) != 256 || cap(records[i].Value) != 256 {
			t.Fatalf("value %d has length %d of %d", i, len(records[i].Value), cap(records[i].Value))
		}
	}
}

func TestUnknownOutcomeOfABatchIsPerItem(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	key0, key1 := f.keyLedBy(f.nodes[0], "a"), f.keyLedBy(f.nodes[1], "b")
	f.nodes[1].setFault(func(*api.PipelineOp) opFault { return opFault{dropAfter: true} })
	results, err := c.BatchPut(t.Context(), []PutItem{{Key: key1}, {Key: key0}})
	wantError(t, err, ErrUnknownOutcome)
	wantError(t, results[0].Err, ErrUnknownOutcome)
	if results[1].Err != nil {
		t.Fatalf("the other part: %v", results[1].Err)
	}
}

func TestListScanCount(t *testing.T) {
	c := newFakeCluster(t, 3).client(nil)
	ctx := t.Context()
	for i := range 25 {
		mustPut(t, c, fmt.Sprintf("p/%02d", i), "v", WithTag("odd", fmt.Sprint(i%2)))
	}
	mustPut(t, c, "q", "v")
	p, err := c.List(ctx, WithPrefix("p/"), WithLimit(10))
	if err != nil || len(p.Records) != 10 || p.Records[9].Key != "p/09" || string(p.Records[9].Value) != "v" || p.Token == "" || p.Revision == 0 {
		t.Fatalf("page %+v, %v", p, err)
	}
	if p, err = c.List(ctx, WithPrefix("p/"), WithLimit(10), After(p.Token), KeysOnly()); err != nil || p.Records[0].Key != "p/10" || p.Records[0].Value != nil {
		t.Fatalf("second page %+v, %v", p, err)
	}
	scan := func(opts ...ListOption) (keys []string) {
		for r, err := range c.Scan(ctx, append(opts, WithLimit(4))...) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, r.Key)
		}
		return keys
	}
	if keys := scan(WithPrefix("p/")); len(keys) != 25 || keys[24] != "p/24" {
		t.Fatalf("scan %v", keys)
	}
	if keys := scan(WithRange("p/20", "q"), Reverse()); strings.Join(keys, " ") != "p/24 p/23 p/22 p/21 p/20" {
		t.Fatalf("reverse scan %v", keys)
	}
	if keys := scan(WithTagFilter(map[string]string{"odd": "1"})); len(keys) != 12 {
		t.Fatalf("tag scan %v", keys)
	}
	if n, err := c.Count(ctx, WithPrefix("p/"), WithLimit(10)); err != nil || n != 25 {
		t.Fatalf("count %d, %v", n, err)
	}
	for want, opts := range map[Consistency][]ListOption{
		Linearizable: nil, Snapshot: {WithConsistency(Snapshot)}, BoundedStaleness: {WithMaxStaleness(time.Second)},
	} {
		if p, err = c.List(ctx, opts...); err != nil || p.Consistency != want || (p.Age > 0) != (want == BoundedStaleness) {
			t.Errorf("%v: served %v, %v old, %v", want, p.Consistency, p.Age, err)
		}
	}
	for _, err := range c.Scan(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		break // ends without another page
	}
}

func TestScanYieldsItsError(t *testing.T) {
	c := newFakeCluster(t, 1).client(nil)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range c.Scan(t.Context()) {
		n++
		wantError(t, err, ErrClosed)
	}
	if n != 1 {
		t.Fatalf("%d yields", n)
	}
}

func TestLargeValuesStream(t *testing.T) {
	c := newFakeCluster(t, 3).client(nil)
	ctx := t.Context()
	value := strings.Repeat("0123456789", 100_000)
	for name, size := range map[string]int64{"known": int64(len(value)), "unknown": -1} {
		if r, err := c.PutReader(ctx, name, strings.NewReader(value), size, WithContentType("text/plain"), IfAbsent()); err != nil || r.Version != 1 {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		v, err := c.GetReader(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(v)
		if err != nil || string(got) != value || v.Record.ContentType != "text/plain" || v.Record.Size != uint64(len(value)) {
			t.Fatalf("%s: %d bytes, record %+v, %v", name, len(got), v.Record, err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wantValue(t, c, "known", value)
	mustPut(t, c, "plain", value)
	_, err := c.PutReader(ctx, "known", strings.NewReader("x"), 1, IfAbsent())
	wantError(t, err, ErrConditionFailed)
	_, err = c.GetReader(ctx, "missing")
	wantError(t, err, ErrNotFound)
}

func TestPutReaderReportsItsReader(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	_, err := c.PutReader(t.Context(), "k", iotest.ErrReader(io.ErrClosedPipe), 10)
	wantError(t, err, io.ErrClosedPipe)
	_, err = c.PutReader(t.Context(), "k", strings.NewReader("short"), 10)
	wantError(t, err, io.ErrUnexpectedEOF)
	if n := f.executions("k"); n != 0 {
		t.Fatalf("executed %d times", n)
	}
}
