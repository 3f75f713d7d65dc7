package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/engine/mem"
	"kvstore/internal/env/simfs"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/raftlog"
	"kvstore/internal/replica"
	"kvstore/internal/sstable"
)

// cluster is a few hosts over simulated disks, a direct network and one clock.
// The test's goroutine is every host's loop: pump runs it until a condition
// holds. Background jobs and blocking calls have goroutines of their own.
type cluster struct {
	t       *testing.T
	nodes   []*node
	elapsed atomic.Int64 // nanoseconds since the start
	jobs    atomic.Int64 // in the background
	ticked  time.Time
	calling bool // a blocking call has not returned
	// drop loses messages; nil loses none.
	drop func(from, to *node, m *api.GroupMessage) bool
	// opt changes a node's options before it is opened.
	opt func(*Options)
	// store are the options of every node's deltas.
	store mvcc.Options
	// more groups beside testGroup, with the same members.
	more []keyspace.GroupID
	// without are the slots that no group is founded with.
	without format.SlotSet
	// witnesses are the ids of nodes that have no data.
	witnesses []keyspace.NodeID
}

type node struct {
	c      *cluster
	id     keyspace.NodeID
	disk   *simfs.FS
	engine *mem.Mem
	log    *raftlog.Log
	host   *Host // nil while down

	mu     sync.Mutex
	queued []outMessage
}

type outMessage struct {
	to keyspace.NodeID
	m  *api.GroupMessage
}

const (
	testWall  = 1_700_000_000_000
	testGroup = keyspace.GroupID(8)
)

func (c *cluster) Mono() time.Duration { return time.Hour + time.Duration(c.elapsed.Load()) }
func (c *cluster) Wall() int64         { return testWall + time.Duration(c.elapsed.Load()).Milliseconds() }

// newCluster boots nodes of which the first voters are the group's members.
func newCluster(t *testing.T, nodes, voters int, change ...func(*cluster)) *cluster {
	t.Helper()
	c := &cluster{t: t, store: mvcc.Options{SealBytes: 1 << 20}}
	for _, f := range change {
		f(c)
	}
	seed := GroupSeed{}
	seed.Slots.AddRange(0, keyspace.SlotCount-1) // of each group: tests name groups, not keys
	seed.Slots = seed.Slots.Without(&c.without)
	for i := range nodes {
		n := &node{c: c, id: keyspace.NodeID(fmt.Sprintf("n%d", i+1)), disk: simfs.New(), engine: mem.Open()}
		c.nodes = append(c.nodes, n)
		if i < voters {
			seed.Members = append(seed.Members, format.Member{Replica: n.replica(i + 1), Node: n.id})
		}
	}
	for i, n := range c.nodes {
		n.open()
		seed.Group = testGroup
		if seed.Self = 0; i < voters {
			seed.Self = n.replica(i + 1)
		}
		seeds := []GroupSeed{seed}
		for _, id := range c.more {
			seed.Group = id
			seeds = append(seeds, seed)
		}
		if err := n.host.Bootstrap(seeds); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.stop()
		}
	})
	c.pump("the first node leads", func() bool { return c.serving() == c.nodes[0] })
	return c
}

func (n *node) witness() bool { return slices.Contains(n.c.witnesses, n.id) }

// replica is the id of the node's replica with that number.
func (n *node) replica(number int) keyspace.ReplicaID {
	if n.witness() {
		return keyspace.ReplicaID(number).AsWitness()
	}
	return keyspace.ReplicaID(number)
}

func (n *node) open() {
	n.c.t.Helper()
	log, err := raftlog.Open(n.disk, "log", raftlog.Options{SegmentBytes: 256 << 10, Inline: true, Clock: n.c, Rand: rand.New(rand.NewPCG(1, 2))})
	if err != nil {
		n.c.t.Fatal(err)
	}
	n.log = log
	past, err := sstable.OpenHistory(n.disk, "history", sstable.Options{})
	if err != nil {
		n.c.t.Fatal(err)
	}
	store := n.c.store
	store.History = past
	if store.Runs, err = sstable.OpenRuns(n.disk, "runs", sstable.Options{}); err != nil {
		n.c.t.Fatal(err)
	}
	store.MergeRuns, store.SmallBytes, store.MoveBytes, store.ApartBytes = 3, 3000, 8000, 4000
	o := Options{Node: n.id, ClusterID: "test", Log: log, Store: mvcc.New(n.engine, store), Engine: n.engine, Out: n, Snapshots: n,
		Clock: n.c, Rand: rand.New(rand.NewPCG(3, 4)), ChunkBytes: 1000,
		Witness: n.witness()}
	if n.c.opt != nil {
		n.c.opt(&o)
	}
	if n.host, err = New(o); err != nil {
		n.c.t.Fatal(err)
	}
	start := n.host.opt.Go
	n.host.opt.Go = func(job func(context.Context)) {
		n.c.jobs.Add(1)
		start(func(ctx context.Context) {
			defer n.c.jobs.Add(-1)
			job(ctx)
		})
	}
}

// rand decides what a crash leaves.
func (c *cluster) rand() *rand.Rand { return rand.New(rand.NewPCG(5, 6)) }

// stop ends the host's jobs without a last flush.
func (n *node) stop() {
	if n.host == nil {
		return
	}
	n.host.cancel()
	n.host.wg.Wait()
	n.host = nil
	n.queued = nil
}

// crash loses what was not synced and starts again.
func (n *node) crash() {
	n.stop()
	n.disk = n.disk.Crash(rand.New(rand.NewPCG(5, 6)))
	n.engine = n.engine.Crash(func(i int) bool { return i%2 == 0 })
	n.open()
}

func (n *node) Send(to keyspace.NodeID, m *api.GroupMessage) {
	n.mu.Lock()
	n.queued = append(n.queued, outMessage{to, proto.CloneOf(m)})
	n.mu.Unlock()
}

func (n *node) Flush() {}

func (c *cluster) node(id keyspace.NodeID) *node {
	for _, n := range c.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

// SendSnapshot streams to the receiver's real sink.
func (n *node) SendSnapshot(ctx context.Context, h *api.SnapshotHeader, next func() ([]byte, error)) error {
	sink, err := n.c.node(keyspace.NodeID(h.GetToNode())).host.ReceiveSnapshot(h)
	if err != nil {
		return err
	}
	for {
		b, err := next()
		if errors.Is(err, io.EOF) {
			out := make(chan error, 1)
			sink.FinishAsync(func(err error) { out <- err })
			select {
			case err := <-out:
				return err
			case <-ctx.Done(): // the receiver may be down by now
				return ctx.Err()
			}
		}
		if err == nil {
			err = sink.Write(b)
		}
		if err != nil {
			sink.Abort()
			return err
		}
	}
}

// step runs every host once where there is work and delivers what they sent.
func (c *cluster) step() (progress bool) {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.host == nil || !n.host.Busy() {
			continue
		}
		progress = true
		if err := n.host.Step(); err != nil {
			c.t.Fatalf("node %s stopped: %v", n.id, err)
		}
	}
	for _, n := range c.nodes {
		n.mu.Lock()
		out := n.queued
		n.queued = nil
		n.mu.Unlock()
		for _, o := range out {
			to := c.node(o.to)
			if to == nil || to.host == nil || c.drop != nil && c.drop(n, to, o.m) {
				continue
			}
			to.host.Deliver(n.id, c.Wall(), []*api.GroupMessage{o.m})
			progress = true
		}
	}
	return progress
}

// tick lets one tick of time pass for everybody.
func (c *cluster) tick() {
	c.elapsed.Add(int64(100 * time.Millisecond))
	for _, n := range c.nodes {
		if n.host != nil {
			n.host.Tick()
		}
	}
}

// pump runs the loops until the condition holds. Time passes only while there
// is nothing to do. Where jobs run in the background, or a call has not returned, it
// passes slowly: on a busy machine even a sync may take as long as an election would,
// and a goroutine that could go on is not run for as long as a deadline lasts.
func (c *cluster) pump(what string, until func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !until() {
		if time.Now().After(deadline) {
			c.t.Fatalf("not in time: %s", what)
		}
		if c.step() {
			continue
		}
		quiet := 200 * time.Microsecond
		switch {
		case c.jobs.Load() > 0:
			quiet = 20 * time.Millisecond
		case c.calling:
			quiet = 5 * time.Millisecond
		}
		if time.Since(c.ticked) > quiet {
			c.ticked = time.Now()
			c.tick()
		}
		runtime.Gosched()
	}
}

// pass lets simulated time pass.
func (c *cluster) pass(d time.Duration) {
	c.t.Helper()
	end := c.Mono() + d
	c.pump("time passes", func() bool { return c.Mono() >= end })
}

// call runs a blocking call while the loops go on.
func (c *cluster) call(what string, f func()) {
	c.t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	defer func(before bool) { c.calling = before }(c.calling)
	c.calling = true
	c.pump(what, func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
}

// serving returns the node that leads the group and serves, nil for none.
func (c *cluster) serving() *node {
	for _, n := range c.nodes {
		if g := n.group(); g != nil && g.core != nil {
			if _, leading := g.core.Leading(); leading && g.core.Serving(n.host.now(g)) {
				return n
			}
		}
	}
	return nil
}

func (n *node) group() *group {
	if n.host == nil {
		return nil
	}
	return n.host.groups[testGroup]
}

func testOp(key, value string) replica.Op {
	return replica.Op{Namespace: keyspace.DefaultNamespace, Key: key, Value: []byte(value), Checksum: format.CRC32C([]byte(value))}
}

// submit sends a request to a node and counts its answers.
func (n *node) submit(ops ...replica.Op) (r *replica.Request, answers *atomic.Int32) {
	answers = new(atomic.Int32)
	r = &replica.Request{Group: testGroup, Ops: ops, Done: func(*replica.Request) { answers.Add(1) }}
	n.host.Submit(context.Background(), r)
	return r, answers
}

// write executes operations on the leader; each must succeed.
func (c *cluster) write(ops ...replica.Op) []replica.Op {
	c.t.Helper()
	var r *replica.Request
	for r == nil || fault.CodeOf(r.Err) == fault.Overloaded {
		c.pump("a leader has room", func() bool { n := c.serving(); return n != nil && !n.host.opt.Store.Full() })
		var answers *atomic.Int32
		r, answers = c.serving().submit(slices.Clone(ops)...)
		c.pump("the write is answered", func() bool { return answers.Load() > 0 })
	}
	if r.Err != nil {
		c.t.Fatalf("write of %q: %v", ops[0].Key, r.Err)
	}
	for i := range r.Ops {
		if err := r.Ops[i].Result.Err; err != nil {
			c.t.Fatalf("write of %q: %v", r.Ops[i].Key, err)
		}
	}
	return r.Ops
}

// readPoint asks a node for permission to read.
func (c *cluster) readPoint(n *node) ReadPoint {
	c.t.Helper()
	var p ReadPoint
	var err error
	c.call("a read is confirmed", func() { p, err = n.host.ReadIndexWait(context.Background(), testGroup, 0) })
	if err != nil {
		c.t.Fatalf("read on %s: %v", n.id, err)
	}
	return p
}

// get reads a key linearizably on a node.
func (c *cluster) get(n *node, key string) (*format.Record, error) {
	c.t.Helper()
	return c.getAt(n, c.readPoint(n), key)
}

func (c *cluster) getAt(n *node, p ReadPoint, key string) (rec *format.Record, err error) {
	c.t.Helper()
	c.call("a get ends", func() {
		rec, err = n.host.Get(context.Background(), p, keyspace.DefaultNamespace, key, false)
	})
	return rec, err
}

func (c *cluster) mustGet(n *node, key, want string) {
	c.t.Helper()
	rec, err := c.get(n, key)
	if err != nil || string(rec.Value) != want {
		c.t.Fatalf("key %q on %s: error %v, want a value of %d bytes", key, n.id, err, len(want))
	}
}

func mustBe(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != code {
		t.Fatalf("error %v, want code %q", err, code)
	}
}

// settle waits until all members that are up have applied the same.
func (c *cluster) settle() {
	c.t.Helper()
	c.pump("all replicas have applied all", func() bool {
		lead := c.serving()
		if lead == nil || lead.group().core.InFlight() > 0 {
			return false
		}
		index := lead.group().core.State().Index
		for _, m := range lead.group().core.State().Members {
			n := c.node(m.Node)
			if n.host == nil || n.witness() {
				continue
			}
			if g := n.group(); g == nil || g.core == nil || g.replica != m.Replica || g.core.State().Index != index {
				return false
			}
		}
		return true
	})
}

// mustAgree compares the records of all members.
func (c *cluster) mustAgree() {
	c.t.Helper()
	c.settle()
	var want *Digest
	for _, m := range c.serving().group().core.State().Members {
		n := c.node(m.Node)
		if n.host == nil || n.witness() {
			continue
		}
		d, err := n.host.StateHash(context.Background(), testGroup)
		if err != nil {
			c.t.Fatal(err)
		}
		if want == nil {
			want = &d
		}
		if d != *want {
			c.t.Fatalf("node %s has %+v, another %+v", n.id, d, *want)
		}
	}
}

// change performs one step of a membership change on the leader.
func (c *cluster) change(m MemberChange) (id keyspace.ReplicaID, err error) {
	c.t.Helper()
	c.pump("a leader serves", func() bool { return c.serving() != nil })
	lead := c.serving().host
	c.call("the members change", func() {
		id, err = lead.ChangeMembers(context.Background(), testGroup, m)
	})
	return id, err
}

// snapshotMessage is what raft on the leader would send.
func snapshotMessage(lead *group, to keyspace.ReplicaID, snap *raftpb.Snapshot) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(lead.replica)), To: new(uint64(to)),
		Term: new(uint64(lead.term)), Snapshot: snap}
}

// snapshotOf is the stream of a group's records.
func snapshotOf(t *testing.T, view *mvcc.View, g *group) (stream [][]byte) {
	t.Helper()
	r := &snapshotReader{scan: view.Scan(mvcc.ScanOptions{Instance: g.instance.id, At: g.snapState.LastRev, AllVersions: true})}
	defer r.scan.Close()
	for {
		b, err := r.next()
		if errors.Is(err, io.EOF) {
			return stream
		}
		if err != nil {
			t.Fatal(err)
		}
		stream = append(stream, b)
	}
}
