package host

import (
	"fmt"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// lose stops nodes for good and waits until the survivor knows no leader.
func (c *cluster) lose(survivor *node, lost ...*node) {
	c.t.Helper()
	for _, n := range lost {
		n.stop()
	}
	c.pump("the survivor has no leader", func() bool {
		return survivor.group().leader == 0 && survivor.group().raftRole.String() != "StateLeader"
	})
}

func (c *cluster) report(n *node) (r ReplicaReport) {
	c.t.Helper()
	c.call("a report", func() {
		all, err := n.host.ReportReplicas(c.t.Context())
		if err != nil || len(all) == 0 {
			c.t.Errorf("reports %v, %v", all, err)
			return
		}
		r = all[0]
	})
	return r
}

// adoption is what a survivor is asked to do.
func (c *cluster) adoption(n *node) Adoption {
	r := c.report(n)
	return Adoption{Group: testGroup, Replica: r.Replica, AboveReplica: r.NextID, AboveTerm: r.Term, ClockMilli: c.Wall()}
}

func (c *cluster) adopt(n *node) (id keyspace.ReplicaID) {
	c.t.Helper()
	a := c.adoption(n)
	c.call("the group is adopted", func() {
		var err error
		if id, err = n.host.Adopt(c.t.Context(), a); err != nil {
			c.t.Errorf("adopting: %v", err)
		}
	})
	return id
}

// mustServeAlone: the node leads a group of its own and takes writes above
// everything that the lost members may have stamped.
func (c *cluster) mustServeAlone(n *node, id keyspace.ReplicaID, above keyspace.Revision) {
	c.t.Helper()
	c.pump("the survivor serves", func() bool { return c.serving() == n })
	members := n.group().core.State().Members
	if len(members) != 1 || members[0].Replica != id || members[0].Node != n.id || n.group().replica != id {
		c.t.Fatalf("members %v of replica %d, want %d alone", members, n.group().replica, id)
	}
	ops := c.write(testOp("after", "recovery"))
	if rev := ops[0].Result.Revision; rev <= above {
		c.t.Fatalf("a write is stamped %v, not above %v", rev, above)
	}
	c.mustGet(n, "after", "recovery")
}

// unheard lets n's log grow by what the leader proposes while nobody
// acknowledges anything: it is in the log and not committed.
func (c *cluster) unheard(n *node, propose func()) {
	c.t.Helper()
	before, _ := n.group().storage.LastIndex()
	c.drop = func(from, to *node, _ *api.GroupMessage) bool { return from != c.nodes[0] || to != n }
	propose()
	c.pump("the entry is in the log", func() bool {
		last, _ := n.group().storage.LastIndex()
		return last > before
	})
	if n.group().hard.commit > before {
		c.t.Fatalf("entry %d is committed", before+1)
	}
}

// G6: what one of three holds is all there, what was in its log and not
// committed too, and its clock is above every ceiling. Again after a restart.
func TestAdoptKeepsTheWholeLog(t *testing.T) {
	c := newCluster(t, 3, 3)
	for i := range 20 {
		c.write(testOp(fmt.Sprint("k", i), "v"))
	}
	c.settle()
	n := c.nodes[2]
	c.unheard(n, func() { c.nodes[0].submit(testOp("tail", "kept")) })
	above := max(c.nodes[0].group().core.State().Ceiling, keyspace.RevisionAt(c.Wall()))
	c.lose(n, c.nodes[0], c.nodes[1])
	c.drop = nil
	r := c.report(n)
	if r.Last != r.Commit+1 || r.LastRev <= r.KeptRev || len(r.Voters) != 3 || r.Changing || r.HeardMilli == 0 {
		t.Fatalf("report %+v", r)
	}
	id := c.adopt(n)
	c.mustServeAlone(n, id, above)
	for range 2 {
		c.mustGet(n, "k7", "v")
		c.mustGet(n, "tail", "kept")
		n.crash()
		c.mustServeAlone(n, id, above)
	}
}

// A crash after any step of the loop, from the frame that adopts on, ends in
// the same state; a crash before it leaves the replica as it was.
func TestAdoptionSurvivesACrashAtAnyStep(t *testing.T) {
	for steps := range 8 {
		c := newCluster(t, 3, 3, shortLog)
		for i := range 10 {
			c.write(testOp(fmt.Sprint("k", i), "v"))
		}
		c.settle()
		n := c.nodes[1]
		c.unheard(n, func() { c.nodes[0].submit(testOp("tail", "kept")) })
		c.lose(n, c.nodes[0], c.nodes[2])
		c.drop = nil
		n.crash()
		c.lose(n)
		id, err := n.host.adopt(c.adoption(n))
		if err != nil {
			t.Fatal(err)
		}
		for range steps {
			if err := n.host.Step(); err != nil {
				t.Fatal(err)
			}
			n.host.seal()
		}
		n.crash()
		c.mustServeAlone(n, id, keyspace.RevisionAt(c.Wall()))
		c.mustGet(n, "k3", "v")
		c.mustGet(n, "tail", "kept")
		if again, err := n.host.adopt(Adoption{Group: testGroup, Replica: 2}); err != nil || again != id {
			t.Fatalf("adopted twice: %d, %v", again, err)
		}
	}
}

// The log ends in the middle of a joint membership, or before one is applied.
func TestAdoptLeavesAJointMembership(t *testing.T) {
	c := newCluster(t, 4, 3)
	c.write(testOp("k", "v"))
	if _, err := c.change(MemberChange{AddLearner: "n4"}); err != nil {
		t.Fatal(err)
	}
	c.settle()
	n := c.nodes[1]
	c.unheard(n, func() {
		c.nodes[0].host.ChangeMembersAsync(testGroup, MemberChange{Promote: 4, Replace: 3}, func(keyspace.ReplicaID, error) {})
	})
	c.lose(n, c.nodes[0], c.nodes[2], c.nodes[3])
	c.drop = nil
	if r := c.report(n); !r.Changing || r.NextID != 5 {
		t.Fatalf("report %+v", r)
	}
	id := c.adopt(n)
	c.mustServeAlone(n, id, 0)
	n.crash()
	c.mustServeAlone(n, id, 0)
	c.mustGet(n, "k", "v")
}

// An old member that comes back speaks to an id that does not live any more,
// and gets nobody to follow it.
func TestOldMembersAreRefusedById(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.write(testOp("k", "v"))
	c.settle()
	n, old := c.nodes[2], c.nodes[0]
	c.lose(n, old, c.nodes[1])
	id := c.adopt(n)
	c.mustServeAlone(n, id, 0)
	term := n.group().term
	lost := 0
	c.drop = func(from, _ *node, m *api.GroupMessage) bool {
		if _, ok := m.GetBody().(*api.GroupMessage_LostReplica); ok && from == n {
			lost++
		}
		return false
	}
	old.open()
	c.pump("the old member is told", func() bool { return lost > 2 })
	if n.group().replica != id || n.group().term != term || c.serving() != n {
		t.Fatalf("replica %d of term %d, serving %v", n.group().replica, n.group().term, c.serving())
	}
	c.mustServeAlone(n, id, 0)
}

// The other survivor's replica goes, also when it crashes meanwhile, and the
// group takes a new one there as a learner.
func TestDiscardedReplicaNeverComesBack(t *testing.T) {
	c := newCluster(t, 5, 5, shortLog)
	c.write(testOp("k", "v"))
	c.settle()
	n, other := c.nodes[3], c.nodes[4]
	c.lose(n, c.nodes[:3]...)
	c.pump("nobody leads", func() bool { return n.group().leader == 0 && other.group().leader == 0 })
	// Else it asks the new leader, is told that it is no member, and goes by itself.
	c.drop = func(from, to *node, _ *api.GroupMessage) bool { return from == other || to == other }
	id := c.adopt(n)
	c.mustServeAlone(n, id, 0)
	c.pass(20 * time.Second)
	discard := func(r keyspace.ReplicaID) (err error) {
		c.call("a replica is removed", func() { err = other.host.Discard(t.Context(), testGroup, r) })
		return err
	}
	mustBe(t, discard(6), fault.FailedPrecondition) // not the one that lives there
	for range 2 {
		if err := discard(5); err != nil {
			t.Fatal(err)
		}
		other.crash()
		if other.group() != nil {
			t.Fatal("it is back after a restart")
		}
	}
	c.drop = nil
	for _, kind := range []raftpb.MessageType{raftpb.MsgHeartbeat, raftpb.MsgApp} {
		m := &raftpb.Message{Type: kind.Enum(), From: new(uint64(1)), To: new(uint64(5)), Term: new(uint64(9))}
		other.host.Deliver("n1", c.Wall(), []*api.GroupMessage{{Group: uint32(testGroup), Body: &api.GroupMessage_Raft{Raft: mustMarshal(m)}}})
	}
	if err := other.host.Step(); err != nil || other.group() != nil {
		t.Fatalf("a message of the old group brings it back: %v", err)
	}
	if _, err := c.change(MemberChange{AddLearner: other.id}); err != nil {
		t.Fatal(err)
	}
	c.pump("the learner has all", func() bool {
		g := other.group()
		return g != nil && g.core.State().Index >= n.group().core.State().Index
	})
	c.mustGet(other, "k", "v")
	c.mustAgree()
}

// A group with a leader is not lost.
func TestAdoptRefusesALiveGroup(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.write(testOp("k", "v"))
	for _, n := range c.nodes {
		before, a := n.group(), c.adoption(n)
		_, err := n.host.adopt(a)
		mustBe(t, err, fault.FailedPrecondition)
		mustBe(t, n.host.discard(testGroup, n.group().replica), fault.FailedPrecondition)
		if n.group() != before {
			t.Fatal("the replica is another one")
		}
	}
	c.mustAgree()
}
