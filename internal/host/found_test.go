package host

import (
	"context"
	"sync/atomic"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/raftlog"
	"kvstore/internal/replica"
)

const newGroup = testGroup + 1

func seedOn(n *node, id keyspace.ReplicaID) GroupSeed {
	return GroupSeed{Group: newGroup, Members: []format.Member{{Replica: id, Node: n.id}}, Self: id}
}

func (c *cluster) found(n *node, seed GroupSeed) (err error) {
	c.t.Helper()
	c.call("a group is founded", func() { err = n.host.FoundGroup(context.Background(), seed) })
	return err
}

// A group that is founded at run time is durable before the answer, empty, and
// the same one however often it is asked for. Ids of replicas are never used again.
func TestFoundGroup(t *testing.T) {
	c := newCluster(t, 3, 3)
	n := c.nodes[1]
	mustBe(t, c.found(n, seedOn(n, 1)), "")
	for range 2 {
		n.crash()
		mustBe(t, c.found(n, seedOn(n, 1)), "")
		g := n.host.groups[newGroup]
		c.pump("the new group serves", func() bool { return g.core.Serving(n.host.now(g)) })
		if s := g.core.State(); len(s.Members) != 1 || s.NextID != 2 || s.Slots == nil || !s.Slots.Owned.Empty() {
			t.Fatalf("founded as %+v", s)
		}
	}
	r := &replica.Request{Group: newGroup, Ops: []replica.Op{testOp("k", "v")}}
	var answers atomic.Int32
	r.Done = func(*replica.Request) { answers.Add(1) }
	n.host.Submit(context.Background(), r)
	c.pump("a write is answered", func() bool { return answers.Load() > 0 })
	mustBe(t, r.Err, fault.WrongGroup)
	c.call("a learner is added", func() {
		if _, err := n.host.ChangeMembers(context.Background(), newGroup, MemberChange{AddLearner: c.nodes[2].id}); err != nil {
			t.Error(err)
		}
	})
	c.pump("the learner has the group's slots", func() bool {
		g := c.nodes[2].host.groups[newGroup]
		return g != nil && g.core.State().Slots != nil && g.core.State().Slots.Owned.Empty()
	})
	mustBe(t, c.found(n, seedOn(n, 2)), fault.FailedPrecondition)
}

func TestFoundingThatIsRefused(t *testing.T) {
	c := newCluster(t, 3, 3)
	n := c.nodes[1]
	for name, change := range map[string]func(*GroupSeed){
		"the meta group": func(s *GroupSeed) { s.Group = keyspace.MetaGroup },
		"another node":   func(s *GroupSeed) { s.Members[0].Node = c.nodes[0].id },
		"two members":    func(s *GroupSeed) { s.Members = append(s.Members, format.Member{Replica: 2, Node: c.nodes[0].id}) },
		"no member":      func(s *GroupSeed) { s.Members = nil },
		"no replica":     func(s *GroupSeed) { s.Self = 0 },
		"another self":   func(s *GroupSeed) { s.Self = 2 },
		"a learner":      func(s *GroupSeed) { s.Members[0].Learner = true },
	} {
		seed := seedOn(n, 1)
		change(&seed)
		if err := c.found(n, seed); fault.CodeOf(err) != fault.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	mustBe(t, c.found(n, seedOn(n, 3)), "")
	if err := n.host.writeNow(func(b *raftlog.Batch) { b.Remove(newGroup) }); err != nil {
		t.Fatal(err)
	}
	n.host.retire(n.host.groups[newGroup])
	n.host.shareDirectory()
	mustBe(t, c.found(n, seedOn(n, 3)), fault.FailedPrecondition)
	mustBe(t, c.found(n, seedOn(n, 2)), fault.FailedPrecondition)
	n.crash()
	mustBe(t, c.found(n, seedOn(n, 3)), fault.FailedPrecondition)
	mustBe(t, c.found(n, seedOn(n, 4)), "")
}
