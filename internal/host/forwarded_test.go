package host

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

// A leader that loses its lead in the loop in which it hands it over asks as a follower,
// and raft forwards that in the name of the heir. Nobody takes it for the heir's: the next
// message for the heir would go to the wrong node, whose replica would give way to it.
func TestForwardedMessagesDoNotMoveReplicas(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.settle()
	lead, asks, heir := c.nodes[0], c.nodes[1], c.nodes[2]
	if c.serving() != lead {
		t.Fatal("another node leads")
	}
	forwarded := 0
	c.drop = func(_, _ *node, m *api.GroupMessage) bool {
		if raw, ok := m.GetBody().(*api.GroupMessage_Raft); ok {
			if r, err := decodeMessage(raw.Raft); err == nil && r.GetType() == raftpb.MsgTransferLeader {
				forwarded++
			}
		}
		return false
	}
	g := asks.group()
	g.rn.TransferLeader(uint64(heir.group().replica))
	g.dirty = true
	c.still("it is asked for", func() bool { return !g.rn.HasReady() })
	if forwarded > 0 {
		t.Errorf("%d times forwarded", forwarded)
	}
	// A node of an earlier version forwards it.
	raw, err := proto.Marshal(&raftpb.Message{Type: raftpb.MsgTransferLeader.Enum(), From: new(uint64(heir.group().replica)),
		To: new(uint64(lead.group().replica)), Term: new(uint64(lead.group().term))})
	if err != nil {
		t.Fatal(err)
	}
	lead.host.Deliver(asks.id, c.Wall(), []*api.GroupMessage{{Group: uint32(testGroup), Body: &api.GroupMessage_Raft{Raft: raw}}})
	c.still("it is taken", func() bool { return !lead.host.Busy() })
	if got := lead.group().nodes[heir.group().replica]; got != heir.id {
		t.Errorf("the heir's messages go to %s", got)
	}
	c.pump("the heir leads", func() bool { return c.serving() == heir })
	c.write(testOp("k", "v"))
	c.mustAgree()
}
