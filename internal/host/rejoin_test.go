package host

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// A node whose replica was taken out gets a new one while the old one is still
// there: what tells the old one to go and the new one's first message come in
// one turn of the loop. The new one stays, also after a restart.
func TestNewReplicaComesWhileTheOldOneGoes(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.write(testOp("k", "v"))
	n := c.nodes[2]
	var held []*api.GroupMessage
	c.drop = func(from, to *node, m *api.GroupMessage) bool {
		if to != n || m.GetRemovedReplica() == 0 {
			return false
		}
		held = append(held, m)
		return true
	}
	if _, err := c.change(MemberChange{Remove: 3}); err != nil {
		t.Fatal(err)
	}
	c.pump("the old one is told to go", func() bool { return len(held) > 0 })
	c.drop = func(from, to *node, m *api.GroupMessage) bool { return to == n }
	id, err := c.change(MemberChange{AddLearner: n.id})
	if err != nil {
		t.Fatal(err)
	}
	lead := c.serving()
	hello := &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(lead.group().replica)), To: new(uint64(id)), Term: new(uint64(lead.group().term))}
	n.host.Deliver(lead.id, c.Wall(), []*api.GroupMessage{held[0],
		{Group: uint32(testGroup), Body: &api.GroupMessage_Raft{Raft: mustMarshal(hello)}}})
	c.pump("the new one is there", func() bool { g := n.group(); return g != nil && g.replica == id })
	c.drop = nil
	c.mustAgree()
	n.crash()
	if g := n.group(); g == nil || g.replica != id {
		t.Fatalf("replica %d is gone after a restart", id)
	}
	c.mustAgree()
	c.mustGet(n, "k", "v")
}

// A membership change that an adopted replica applies keeps the term it was
// adopted in: a restart would otherwise go back to terms long past.
func TestAdoptedTermStays(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.write(testOp("k", "v"))
	c.settle()
	n := c.nodes[2]
	c.lose(n, c.nodes[0], c.nodes[1])
	c.adopt(n)
	term := keyspace.Term(n.group().hard.term)
	applied := func() bool { m := n.group().core.State().Members; return len(m) == 1 && m[0].Node == n.id }
	for !applied() {
		if err := n.host.Step(); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.host.Step(); err != nil {
		t.Fatal(err)
	}
	for _, info := range n.log.Groups() {
		if got := keyspace.Term(info.HardState.GetTerm()); got < term {
			t.Fatalf("the log holds term %d, adopted in %d", got, term)
		}
	}
}
