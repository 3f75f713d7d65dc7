package host

import (
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// Of two voters one is taken out, knows it, and is still there: the other one
// restarts without knowing that its change was committed, and needs the vote.
func TestRemovedVoterVotesUntilTheOtherKnows(t *testing.T) {
	c := newCluster(t, 2, 2)
	c.write(testOp("k", "v"))
	lead := c.serving()
	other := c.nodes[0]
	if other == lead {
		other = c.nodes[1]
	}
	id := other.group().replica
	c.call("the change is proposed", func() {
		lead.host.ChangeMembersAsync(testGroup, MemberChange{Remove: id}, func(keyspace.ReplicaID, error) {})
	})
	c.pump("the one that is taken out knows", func() bool {
		g := other.group()
		return g == nil || g.removed()
	})
	lead.crash()
	c.pump("the one that stays serves again", func() bool { return c.serving() == lead })
	c.write(testOp("k", "w"))
	c.pump("the other one is given up", func() bool { return other.group() == nil })
	c.mustGet(lead, "k", "w")
}

// A replica that was cut off while it was taken out learns of it afterwards,
// also when none of the members it knows is there any more.
func TestReplicaThatWasAwayLearnsThatItWasRemoved(t *testing.T) {
	c := newCluster(t, 4, 1)
	c.write(testOp("k", "v"))
	stays, first, away := c.nodes[3], c.nodes[0], c.nodes[1]
	join := func(n *node) keyspace.ReplicaID {
		t.Helper()
		id, err := c.change(MemberChange{AddLearner: n.id})
		if err != nil {
			t.Fatal(err)
		}
		c.mustAgree()
		if _, err := c.change(MemberChange{Promote: id}); err != nil {
			t.Fatal(err)
		}
		c.mustAgree()
		return id
	}
	gone := join(away)
	join(c.nodes[2])
	c.drop = func(from, to *node, _ *api.GroupMessage) bool { return from == away || to == away }
	if _, err := c.change(MemberChange{Remove: gone}); err != nil {
		t.Fatal(err)
	}
	join(stays)
	for _, n := range []*node{first, c.nodes[2]} {
		for _, n := range c.nodes {
			n.host.Guide(testGroup, []keyspace.NodeID{stays.id})
		}
		c.pump("the other one leads", func() bool { return c.serving() == stays })
		if _, err := c.change(MemberChange{Remove: n.group().replica}); err != nil {
			t.Fatal(err)
		}
		c.pump("a member leaves", func() bool { return n.group() == nil })
	}
	if g := away.group(); g == nil || g.removed() {
		t.Fatal("it knows already; the test shows nothing")
	}
	c.drop = nil
	c.pump("the one that was away gives itself up", func() bool { return away.group() == nil })
	c.mustGet(stays, "k", "v")
}

// Of four voters one is taken out by the leader with the votes of two others;
// the leader is lost for good before those who stay know that the change is
// committed. They are a quorum of what the group is now and elect, so the one
// that was taken out must not have gone before.
func TestRemovedVoterStaysUntilAQuorumKnows(t *testing.T) {
	c := newCluster(t, 4, 4)
	c.write(testOp("k", "v"))
	c.settle()
	lead := c.serving()
	var out, deaf, other *node
	for _, n := range c.nodes {
		switch {
		case n == lead:
		case out == nil:
			out = n
		case deaf == nil:
			deaf = n
		default:
			other = n
		}
	}
	// deaf hears nothing; other acknowledges the change and hears nothing after.
	acked := false
	c.drop = func(from, to *node, m *api.GroupMessage) bool {
		if from == deaf || to == deaf {
			return true
		}
		return from == lead && to == other && acked
	}
	c.call("the change is proposed", func() {
		lead.host.ChangeMembersAsync(testGroup, MemberChange{Remove: out.group().replica}, func(keyspace.ReplicaID, error) {})
	})
	index := lead.group().core.State().Index + 1
	c.pump("the change is acknowledged", func() bool {
		last, _ := other.group().storage.LastIndex()
		acked = acked || keyspace.Index(last) >= index
		return len(lead.group().core.State().Members) == 3
	})
	if g := other.group(); len(g.core.State().Members) != 4 {
		t.Fatal("the other one knows already; the test shows nothing")
	}
	for range 8 { // less than an election timeout
		c.tick()
		for c.step() {
		}
	}
	if out.group() == nil {
		t.Error("the one that was taken out is gone; those who stay may need its vote")
	}
	lead.stop()
	c.drop = nil
	c.pump("those who stay elect", func() bool { n := c.serving(); return n != nil && n != lead })
	c.pump("the one that was taken out goes", func() bool { return out.group() == nil })
	c.write(testOp("k", "w"))
}
