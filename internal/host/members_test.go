package host

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// behind leaves node n so far behind that only a snapshot helps.
func (c *cluster) behind(n *node, large string) {
	c.t.Helper()
	c.drop = func(from, to *node, _ *api.GroupMessage) bool { return from == n || to == n }
	for i := range 40 {
		c.write(testOp("big", large), testOp(string(rune('a'+i%26)), strings.Repeat("v", i)))
	}
	lead := c.serving()
	lead.host.seal()
	c.pump("the log is compacted", func() bool {
		first, _ := lead.group().storage.FirstIndex()
		return lead.group().saved > 40 && first > 20
	})
	c.drop = nil
}

func shortLog(c *cluster) {
	c.opt = func(o *Options) { o.LogBytes, o.LogTail = 1, 1 }
	c.store.SealBytes = 5000
}

// A follower that is too far behind gets a snapshot, with large values, and
// serves reads from it; a restart continues from it.
func TestSnapshotToAFollowerBehind(t *testing.T) {
	c := newCluster(t, 3, 3, shortLog)
	n, large := c.nodes[2], strings.Repeat("q", 4200)
	c.behind(n, large)
	before := n.group().instance.id
	c.mustAgree()
	if n.group().instance.id == before {
		t.Fatal("it caught up without a snapshot")
	}
	c.mustGet(n, "big", large)
	n.crash()
	c.mustAgree()
	c.mustGet(n, "big", large)
	c.pump("the first life is deleted", func() bool {
		ids, err := n.engine.Instances(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(ids) > 1 {
			n.host.deleteOrphans()
		}
		return len(ids) <= 1
	})
}

// Learners are added and promoted in one step with the removal of another,
// and replicas that are taken out give up their data.
func TestMembersChange(t *testing.T) {
	c := newCluster(t, 4, 3)
	c.write(testOp("k", "v"))
	id, err := c.change(MemberChange{AddLearner: "n4"})
	if err != nil || id != 4 {
		t.Fatalf("learner %d: %v", id, err)
	}
	c.mustAgree()
	c.mustGet(c.nodes[3], "k", "v")
	if _, err := c.change(MemberChange{Promote: 4, Replace: 4}); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Fatalf("a replica that replaces itself: %v", err)
	}
	if _, err := c.change(MemberChange{Promote: 4, Replace: 3}); err != nil {
		t.Fatal(err)
	}
	c.pump("the replaced member leaves", func() bool {
		s := c.serving()
		return s != nil && len(s.group().core.State().Members) == 3
	})
	c.mustAgree()
	if _, err := c.change(MemberChange{Remove: 2}); err != nil {
		t.Fatal(err)
	}
	c.mustAgree()
	members := c.serving().group().core.State().Members
	want := []format.Member{{Replica: 1, Node: "n1"}, {Replica: 4, Node: "n4"}}
	if len(members) != 2 || members[0] != want[0] || members[1] != want[1] {
		t.Fatalf("members %+v, want %+v", members, want)
	}
	c.write(testOp("k", "w"))
	c.mustGet(c.nodes[3], "k", "w")
}

// raft panics on every replica, at every start, when nobody is left to vote.
func TestTheLastVoterStays(t *testing.T) {
	c := newCluster(t, 2, 1)
	if _, err := c.change(MemberChange{AddLearner: "n2"}); err != nil {
		t.Fatal(err)
	}
	_, err := c.change(MemberChange{Remove: 1})
	mustBe(t, err, fault.FailedPrecondition)
	c.write(testOp("k", "v"))
}

// A permission to read does not hold on a younger replica that came in the
// place of the one that gave it: it lacks what was acknowledged before.
func TestReadPointOfAReplacedReplica(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.write(testOp("k", "v"))
	n := c.nodes[2]
	p := c.readPoint(n)
	if _, err := c.change(MemberChange{Remove: 3}); err != nil {
		t.Fatal(err)
	}
	c.settle()
	// The new one takes its place and has nothing yet: the leader does not hear it.
	c.drop = func(from, _ *node, _ *api.GroupMessage) bool { return from == n }
	if _, err := c.change(MemberChange{AddLearner: n.id}); err != nil {
		t.Fatal(err)
	}
	c.pump("the new replica is there", func() bool { g := n.group(); return g != nil && g.replica == 4 })
	if got := n.group().core.State().Index; got >= p.Index {
		t.Fatalf("it has %d already; the test shows nothing", got)
	}
	if rec, err := n.host.Get(t.Context(), p, keyspace.DefaultNamespace, "k", false); err == nil || fault.CodeOf(err) == fault.NotFound {
		t.Fatalf("answered %v, %v for a key that is there", rec, err)
	}
	c.drop = nil
	c.mustAgree()
	c.mustGet(n, "k", "v")
}

// fill leaves the disk without a byte until the returned function is called.
func (n *node) fill() (free func()) {
	n.disk.SetCapacity(1)
	return func() { n.disk.SetCapacity(0) }
}

// stall writes until a node waits for its full disk.
func (c *cluster) stall(n *node) (free func()) {
	c.t.Helper()
	free = n.fill()
	c.pump("the disk is full", func() bool {
		if lead := c.serving(); lead != nil && !n.host.stalled {
			lead.submit(testOp("fill", strings.Repeat("f", 900)))
		}
		return n.host.stalled
	})
	return free
}

// A snapshot that is complete while the disk is full is refused, or taken, but
// never both.
func TestSnapshotMeetsAFullDisk(t *testing.T) {
	c := newCluster(t, 3, 3, shortLog)
	n, lead := c.nodes[2], c.nodes[0]
	free := c.stall(n)
	c.drop = func(from, to *node, _ *api.GroupMessage) bool { return from == n || to == n }
	c.write(testOp("k", "v"))
	snap, err := lead.host.snapshotAt(lead.group())
	if err != nil {
		t.Fatal(err)
	}
	sink, answer := c.receive(n, snap), make(chan error, 1)
	sink.FinishAsync(func(err error) { answer <- err })
	c.pass(300 * time.Millisecond)
	free()
	c.pass(time.Second)
	select {
	case err := <-answer:
		if err == nil && n.group().instance.id != sink.instance.id {
			t.Fatal("taken, but not in use")
		}
	default:
		t.Fatal("no answer")
	}
	c.drop = nil
	c.mustAgree()
}

// A flush that ends while the switch to a snapshot waits for a full disk does
// not put the old life's checkpoint behind the switch.
func TestFlushMeetsAWaitingSwitch(t *testing.T) {
	c := newCluster(t, 3, 3, shortLog)
	n := c.nodes[2]
	c.write(testOp("k", "v"))
	c.settle()
	n.host.seal()
	c.pass(200 * time.Millisecond)
	c.write(testOp("k", "w"))
	c.settle()
	id := n.host.opt.Store.Seal()
	old := n.host.checkpointOf(n.group())
	n.host.flush.checkpoints[uint64(id)] = []checkpointOf{old}
	n.host.flush.running = true // the test ends it
	c.drop = func(from, to *node, _ *api.GroupMessage) bool { return from == n || to == n }
	for range 30 {
		c.write(testOp("k", strings.Repeat("x", 300)))
	}
	lead := c.nodes[0]
	snap, err := lead.host.snapshotAt(lead.group())
	if err != nil {
		t.Fatal(err)
	}
	sink := c.receive(n, snap)
	sink.FinishAsync(func(error) {})
	// The switch is in the batch and the batch is not written.
	n.host.mail = n.host.inbox.take(n.host.mail)
	n.host.receive()
	n.host.mail.reset()
	n.host.ready(n.group())
	for _, a := range n.host.appends {
		n.host.writeAppend(a.g, a.m)
	}
	n.host.stalled = true
	n.host.flush.running = false
	n.host.flushed(id)
	if err := n.host.Step(); err != nil {
		t.Fatal(err)
	}
	if n.host.stalled || n.group().instance.id != sink.instance.id {
		t.Fatal("the snapshot was not taken")
	}
	for _, info := range n.log.Groups() {
		if info.Checkpoint.Instance != sink.instance.id || info.Checkpoint.Index < info.First-1 {
			t.Fatalf("the log goes back to instance %d at %d; switched to %d, log from %d",
				info.Checkpoint.Instance, info.Checkpoint.Index, sink.instance.id, info.First)
		}
	}
	c.drop = nil
	c.mustAgree()
}

// receive streams a snapshot of the leader to a node and leaves it complete.
func (c *cluster) receive(n *node, snap *raftpb.Snapshot) *Sink {
	c.t.Helper()
	return c.receiveFor(n, n.group().replica, snap)
}

// receiveFor is receive for a replica that need not be there yet.
func (c *cluster) receiveFor(n *node, to keyspace.ReplicaID, snap *raftpb.Snapshot) *Sink {
	c.t.Helper()
	lead := c.nodes[0]
	m := snapshotMessage(lead.group(), to, snap)
	h := &api.SnapshotHeader{FormatVersion: format.Version, ClusterId: "test", FromNode: string(lead.id), ToNode: string(n.id),
		Group: uint32(testGroup), FromReplica: 1, ToReplica: uint64(to), Raft: mustMarshal(m),
		State: format.AppendState(nil, lead.group().snapState)}
	sink, err := n.host.ReceiveSnapshot(h)
	if err != nil {
		c.t.Fatal(err)
	}
	view := lead.host.opt.Store.View()
	defer view.Close()
	for _, b := range snapshotOf(c.t, view, lead.group()) {
		if err := sink.Write(b); err != nil {
			c.t.Fatal(err)
		}
	}
	return sink
}

// Snapshots may come once the transport runs, before the host does. What a start
// deletes is of earlier lives only.
func TestStartKeepsASnapshotUnderWay(t *testing.T) {
	c := newCluster(t, 2, 1)
	c.write(testOp("k", "v"))
	snap, err := c.nodes[0].host.snapshotAt(c.nodes[0].group())
	if err != nil {
		t.Fatal(err)
	}
	h := c.nodes[1].host
	sink := c.receiveFor(c.nodes[1], 2, snap)
	defer sink.Abort()
	h.deleteOrphans()
	h.wg.Wait()
	if ids, err := h.opt.Store.Instances(t.Context()); err != nil || !slices.Contains(ids, sink.instance.id) {
		t.Fatalf("instances %v, %v; the snapshot's is %d", ids, err, sink.instance.id)
	}
}

// A snapshot without its records, or whose message is of another index than its
// state, is refused.
func TestHollowSnapshotsAreRefused(t *testing.T) {
	c := newCluster(t, 2, 2)
	c.write(testOp("k", "v"))
	c.settle()
	lead, n := c.nodes[0], c.nodes[1]
	snap, err := lead.host.snapshotAt(lead.group())
	if err != nil {
		t.Fatal(err)
	}
	snap.Metadata.Index = new(snap.Metadata.GetIndex() + 1000)
	m := mustMarshal(snapshotMessage(lead.group(), n.group().replica, snap))
	_, err = n.host.ReceiveSnapshot(&api.SnapshotHeader{FromNode: string(lead.id), ToNode: string(n.id), Group: uint32(testGroup),
		Raft: m, State: format.AppendState(nil, lead.group().snapState)})
	mustBe(t, err, fault.Corruption)
	n.host.Deliver(lead.id, c.Wall(), []*api.GroupMessage{{Group: uint32(testGroup), Body: &api.GroupMessage_Raft{Raft: m}}})
	c.write(testOp("k", "w"))
	c.mustAgree()
}

// What is left of an instance that was given up are deletions, which nobody lists:
// after a restart another snapshot does not go where they are.
func TestInstancesAreNotUsedAgain(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.write(testOp("k", "v"))
	n, lead := c.nodes[2], c.nodes[0]
	for _, restart := range []func(){n.crash, func() { n.stop() }} {
		snap, err := lead.host.snapshotAt(lead.group())
		if err != nil {
			t.Fatal(err)
		}
		sink := c.receive(n, snap)
		used := sink.instance.id
		sink.Abort()
		c.pass(time.Second)
		restart()
		n.open()
		c.settle()
		again := c.receive(n, snap)
		if again.instance.id <= used {
			t.Errorf("instance %d is used after %d", again.instance.id, used)
		}
		again.Abort()
		c.pass(time.Second)
		c.mustGet(n, "k", "v")
	}
}
