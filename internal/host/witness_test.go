package host

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// twoAndWitness is a group of two replicas with data, n1 and n2, and the witness
// n3, which a fourth node may join.
func twoAndWitness(t *testing.T, change ...func(*cluster)) (c *cluster, n1, n2, w *node) {
	t.Helper()
	change = append(change, func(c *cluster) { c.witnesses = append(c.witnesses, "n3") })
	c = newCluster(t, 4, 3, change...)
	return c, c.nodes[0], c.nodes[1], c.nodes[2]
}

// apart loses all messages between two nodes.
func apart(a, b *node) func(from, to *node, m *api.GroupMessage) bool {
	return func(from, to *node, _ *api.GroupMessage) bool { return from == a && to == b || from == b && to == a }
}

func (n *node) lastIndex() uint64 {
	n.c.t.Helper()
	last, err := n.group().storage.LastIndex()
	if err != nil {
		n.c.t.Fatal(err)
	}
	return last
}

// down stops a node; up starts it on what was synced.
func (n *node) down() {
	n.stop()
	n.disk, n.engine = n.disk.Crash(n.c.rand()), n.engine.Crash(func(i int) bool { return i%2 == 0 })
}

// S1.7: while both data replicas acknowledge, the witness gets nothing: what is
// acknowledged is in both, and either may be lost.
func TestWitnessGetsNothingWhileBothAcknowledge(t *testing.T) {
	c, n1, n2, w := twoAndWitness(t)
	start := w.lastIndex()
	c.drop = func(from, to *node, m *api.GroupMessage) bool {
		if to == w && raftType(t, m) == raftpb.MsgApp {
			t.Errorf("an append is sent to the witness")
		}
		return false
	}
	for i := range 50 {
		c.write(testOp(fmt.Sprint("k", i), "v"))
	}
	c.pass(3 * time.Second)
	if w.lastIndex() != start {
		t.Fatalf("the witness has entries up to %d, had %d", w.lastIndex(), start)
	}
	if s := statusIn(n1); s.Copies != 2 {
		t.Fatalf("%d copies, want 2", s.Copies)
	}
	n1.down()
	c.drop = nil
	c.pump("the other one leads with the witness's vote", func() bool { return c.serving() == n2 })
	c.mustGet(n2, "k49", "v")
	c.write(testOp("more", "w"))
	c.pump("status shows one copy", func() bool { return statusIn(n2).Copies == 1 })
	n1.open()
	c.pump("status shows two copies", func() bool { return statusIn(n2).Copies == 2 })
	c.mustAgree()
}

func statusIn(n *node) GroupStatus { return n.host.Groups()[0] }

// A write that one data replica and the witness acknowledged outlives every
// order of failures: the leader that has it is lost, the other one, whose log is
// older, comes back and is not elected; the leader returns, and it is there.
func TestWriteOfOneCopyIsNotLostSilently(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("the witness restarts: ", restart), func(t *testing.T) {
			c, n1, n2, w := twoAndWitness(t)
			c.write(testOp("k", "both"))
			c.settle()
			n2.down()
			c.write(testOp("k", "one copy"))
			c.pump("status shows one copy", func() bool { return statusIn(n1).Copies == 1 })
			if w.lastIndex() < n1.lastIndex() {
				t.Fatalf("the witness has %d of %d entries", w.lastIndex(), n1.lastIndex())
			}
			n1.down()
			if restart {
				w.crash()
			}
			n2.open()
			for end := c.Mono() + 10*time.Second; c.Mono() < end; {
				for c.step() {
				}
				c.tick()
				if c.serving() != nil || w.group().raftRole != raft.StateFollower {
					t.Fatalf("%v serves without the write; the witness is %v", c.serving(), w.group().raftRole)
				}
			}
			n1.open()
			c.pump("who has the write leads again", func() bool { return c.serving() == n1 })
			c.mustGet(n1, "k", "one copy")
			c.mustAgree()
			c.pump("two copies", func() bool { return statusIn(n1).Copies == 2 })
		})
	}
}

// The simulation's bug, by hand: a witness that does not look at its log elects
// the replica that lost the write. The test above would see it.
func TestBlindWitnessLosesTheWrite(t *testing.T) {
	c, n1, n2, _ := twoAndWitness(t, func(c *cluster) {
		c.opt = func(o *Options) { o.Bugs = invariant.BugWitnessVotesBlind }
	})
	c.write(testOp("k", "both"))
	c.settle()
	n2.down()
	c.write(testOp("k", "one copy"))
	n1.down()
	n2.open()
	c.pump("the wrong one leads", func() bool { return c.serving() == n2 })
	c.mustGet(n2, "k", "both")
}

// The witness stays on duty until the replica that was away has everything, under
// writes, too; then it is left behind again.
func TestDutyEndsWhenTheReplicaCaughtUp(t *testing.T) {
	c, n1, n2, w := twoAndWitness(t)
	c.drop = apart(n1, n2)
	for i := range 300 {
		c.write(testOp(fmt.Sprint("k", i%7), fmt.Sprint(i)))
	}
	d := &n1.group().duty
	c.pump("status shows one copy", func() bool { return d.on && statusIn(n1).Copies == 1 })
	c.drop = nil
	c.pump("two copies under writes", func() bool {
		c.write(testOp("k", "more"))
		if d.left > 0 && !d.on && statusIn(n1).Copies == 2 && n2.lastIndex() < d.left {
			t.Fatalf("off duty at %d, the replica has %d", d.left, n2.lastIndex())
		}
		return !d.on && d.left == 0 && statusIn(n1).Copies == 2
	})
	at := w.lastIndex()
	for i := range 20 {
		c.write(testOp("k", fmt.Sprint(i)))
	}
	if w.lastIndex() != at {
		t.Fatalf("the witness gets entries: %d, was at %d", w.lastIndex(), at)
	}
	n1.down()
	c.pump("the other one leads", func() bool { return c.serving() == n2 })
	c.mustGet(n2, "k", "19")
}

// Off duty a witness follows by snapshots of a position, without a record, when the
// leader's log no longer reaches back to it: the first append on duty needs none, and
// its own log stays short.
func TestWitnessFollowsFromAfar(t *testing.T) {
	c, n1, n2, w := twoAndWitness(t, shortLog)
	for i := range 200 {
		c.write(testOp(fmt.Sprint("k", i%5), fmt.Sprint(i)))
	}
	n1.host.seal()
	c.pump("the leader's log no longer reaches back to where the witness began", func() bool {
		first, _ := n1.group().storage.FirstIndex()
		return first > 100
	})
	first, _ := n1.group().storage.FirstIndex()
	c.pump("the witness follows", func() bool { return w.lastIndex()+1 >= first })
	if n1.group().duty.on {
		t.Fatal("the witness is on duty")
	}
	w.crash()
	if w.lastIndex()+1 < first || w.group().core.State().Members[2].Replica != w.group().replica {
		t.Fatalf("after a crash it is at %d with %v", w.lastIndex(), w.group().core.State().Members)
	}
	at := w.group().saved
	n2.down()
	for i := range int(positionEvery) + 100 {
		if i%500 == 0 {
			c.write(testOp("k", fmt.Sprint(i)))
		}
		n1.submit(testOp(fmt.Sprint("m", i%3), fmt.Sprint(i)))
		c.step()
	}
	c.write(testOp("k", "last"))
	c.pump("the witness lets go of its log", func() bool {
		g := w.group()
		first, _ := g.storage.FirstIndex()
		return g.saved > at && first > uint64(at) && w.lastIndex() >= n1.lastIndex()
	})
	n1.crash()
	c.pump("the one copy serves again", func() bool { return c.serving() == n1 })
	c.mustGet(n1, "k", "last")
}

// The link between the data replicas is cut, both reach the witness: it is loyal to
// the leader, which does not change.
func TestWitnessIsLoyal(t *testing.T) {
	c, n1, n2, _ := twoAndWitness(t)
	term := statusIn(n1).Term
	c.drop = apart(n1, n2)
	c.write(testOp("k", "v"))
	c.pass(20 * time.Second)
	if c.serving() != n1 || statusIn(n1).Term != term {
		t.Fatalf("term %d, was %d", statusIn(n1).Term, term)
	}
	c.drop = nil
	c.mustAgree()
}

// A witness asks for no votes, however long it hears nothing, and not when it is
// told to.
func TestWitnessNeverCampaigns(t *testing.T) {
	c, n1, n2, w := twoAndWitness(t)
	c.write(testOp("k", "v"))
	n1.down()
	n2.down()
	c.pass(10 * time.Second)
	g := w.group()
	m := &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: new(uint64(1)), To: new(uint64(g.replica)), Term: new(uint64(g.term))}
	w.host.stepRaft(g, m)
	w.host.Deliver("n1", c.Wall(), []*api.GroupMessage{{Group: uint32(testGroup), Body: &api.GroupMessage_Raft{Raft: mustMarshal(m)}}})
	c.pass(10 * time.Second)
	if s := statusIn(w); g.raftRole != raft.StateFollower || s.Role != "witness" || s.Leader != 0 {
		t.Fatalf("the witness is %v, %+v", g.raftRole, s)
	}
	if _, err := g.rn.Status().MarshalJSON(); err != nil || g.rn.BasicStatus().RaftState != raft.StateFollower {
		t.Fatalf("raft on the witness: %v", g.rn.BasicStatus())
	}
}

// 1 -> 2 + witness -> 3: a witness comes as a learner and gets its positions; the
// third replica with data takes its place in one joint change.
func TestOneTwoWitnessThree(t *testing.T) {
	c := newCluster(t, 4, 1, func(c *cluster) { c.witnesses = []keyspace.NodeID{"n3"} }, shortLog)
	n1, w := c.nodes[0], c.nodes[2]
	for i := range 30 {
		c.write(testOp(fmt.Sprint("k", i), "before"))
	}
	step := func(m MemberChange) keyspace.ReplicaID {
		t.Helper()
		id, err := c.change(m)
		if err != nil {
			t.Fatal(err)
		}
		c.settle()
		return id
	}
	second := step(MemberChange{AddLearner: "n2"})
	step(MemberChange{Promote: second})
	witness := step(MemberChange{AddLearner: "n3", Witness: true})
	if !witness.Witness() || witness.Number() != 3 {
		t.Fatalf("the witness is replica %v", witness)
	}
	c.pump("the witness has the group's position", func() bool { return w.group() != nil && w.lastIndex() == n1.lastIndex() })
	step(MemberChange{Promote: witness})
	if ids, err := w.engine.Instances(t.Context()); err != nil || len(ids) != 0 {
		t.Fatalf("the witness stores instances %v, %v", ids, err)
	}
	w.crash()
	c.write(testOp("k", "two and a witness"))
	if _, err := c.change(MemberChange{Remove: 1}); err != nil && fault.CodeOf(err) != fault.UnknownOutcome {
		t.Fatal(err)
	}
	c.pump("the other one leads", func() bool { s := c.serving(); return s != nil && s != n1 })
	if _, err := c.change(MemberChange{Remove: second}); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Fatalf("removing the last data: %v", err)
	}
	if _, err := c.change(MemberChange{Promote: witness, Replace: second}); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Fatalf("replacing the last data: %v", err)
	}
	third := step(MemberChange{AddLearner: "n4"})
	if third.Witness() || third != 4 {
		t.Fatalf("the third is replica %v", third)
	}
	step(MemberChange{Promote: third, Replace: witness})
	c.pump("the witness is released", func() bool { return w.group() == nil })
	c.mustAgree()
	c.mustGet(c.nodes[3], "k29", "before")
	c.mustGet(c.nodes[3], "k", "two and a witness")
}

// Nothing is read from a witness or through it, and it takes no records.
func TestWitnessServesNothing(t *testing.T) {
	c, n1, _, w := twoAndWitness(t)
	c.write(testOp("k", "v"))
	for what, err := range map[string]error{
		"a linearizable read": readOn(c, w),
		"a stale read":        second(w.host.StaleRead(testGroup, time.Hour)),
		"a read in the past":  second(w.host.PointAt(testGroup, keyspace.MaxRevision)),
		"a digest":            second(w.host.StateHash(context.Background(), testGroup)),
	} {
		if fault.CodeOf(err) != fault.WrongLeader {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r, answers := w.submit(testOp("k", "w")); answers.Load() != 1 || fault.CodeOf(r.Err) != fault.WrongLeader {
		t.Errorf("a write: %v", r.Err)
	}
	if w.host.Hosts(testGroup) {
		t.Error("it says that it hosts the group")
	}
	c.pass(time.Second)
	if node, local, known := w.host.Leader(testGroup); node != "n1" || local || !known {
		t.Errorf("it says that %q leads (%v, %v)", node, local, known)
	}
	s := &Sink{h: w.host, header: &api.SnapshotHeader{}}
	if err := s.Write(format.AppendSnapshotRecord(nil, []byte("k"), 1, []byte("v"), false)); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Errorf("records: %v", err)
	}
	c.call("an adoption ends", func() {
		if _, err := w.host.Adopt(context.Background(), Adoption{Group: testGroup, Replica: w.group().replica}); fault.CodeOf(err) != fault.FailedPrecondition {
			t.Errorf("it adopts its group: %v", err)
		}
	})
	w.host.Guide(testGroup, []keyspace.NodeID{"n3", "n1", "n2"})
	n1.host.Guide(testGroup, []keyspace.NodeID{"n3", "n1", "n2"})
	c.pass(10 * time.Second)
	if c.serving() != n1 {
		t.Error("leadership moved")
	}
}

func readOn(c *cluster, n *node) (err error) {
	c.call("a read ends", func() { _, err = n.host.ReadIndexWait(context.Background(), testGroup, 0) })
	return err
}

func second[T any](_ T, err error) error { return err }

// The kind of a replica fits its node: a data replica is not made on a witness, nor
// a witness elsewhere.
func TestRolesFitNodes(t *testing.T) {
	c, _, _, w := twoAndWitness(t)
	if g := w.host.createReplica(9, 7, "n1"); g != nil {
		t.Error("a witness has data")
	}
	if g := c.nodes[3].host.createReplica(9, keyspace.ReplicaID(7).AsWitness(), "n1"); g != nil {
		t.Error("a witness lives on a node with data")
	}
}
