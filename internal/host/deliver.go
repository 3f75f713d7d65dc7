package host

import (
	"go.etcd.io/raft/v3/raftpb"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// maxInboxMessages bounds peers' messages that wait for the loop; raft repeats
// what is dropped.
const maxInboxMessages = 1 << 16

// Deliver takes the messages of one frame, of which entries are kept. It decodes on
// the caller's goroutine and never blocks.
func (h *Host) Deliver(from keyspace.NodeID, clockMS int64, msgs []*api.GroupMessage) {
	decoded := make([]inMessage, 0, len(msgs)+1)
	for _, m := range msgs {
		in := inMessage{from: from, group: keyspace.GroupID(m.GetGroup())}
		if raw, ok := m.GetBody().(*api.GroupMessage_Raft); ok {
			var err error
			if in.raft, err = decodeMessage(raw.Raft); err != nil {
				h.opt.Logger.Warn("undecodable raft message", "from", from, "group", in.group, "error", err)
				continue
			}
			if in.raft.GetType() == raftpb.MsgSnap {
				h.opt.Logger.Warn("refused a snapshot without its records", "from", from, "group", in.group)
				continue // raft would take it; it comes as a stream (ReceiveSnapshot)
			}
		} else {
			in.other = m
		}
		decoded = append(decoded, in)
	}
	if len(decoded) == 0 {
		decoded = append(decoded, inMessage{from: from, group: keyspace.GroupID(^uint32(0)), other: &api.GroupMessage{}})
	}
	decoded[0].first, decoded[0].clockMS = true, clockMS
	h.inbox.put(func(m *mail) {
		if len(m.messages) < maxInboxMessages {
			m.messages = append(m.messages, decoded...)
		}
	})
}

// step takes one message of a peer.
func (h *Host) step(m *inMessage) {
	if m.first {
		h.observeClock(m.from, m.clockMS)
	}
	if m.other.GetUnfit() {
		h.peerUnfit(m.from)
		return
	}
	g := h.groups[m.group]
	if m.raft != nil {
		if h.stalled {
			return // its answer could not be kept; raft repeats it
		}
		if g = h.groupFor(g, m); g != nil {
			if bySender(m.raft) {
				g.nodes[keyspace.ReplicaID(m.raft.GetFrom())] = m.from
			}
			if m.raft.GetType() == raftpb.MsgTimeoutNow {
				if h.hanging.Load() || g.replica.Witness() {
					return
				}
				g.planned = true
			}
			g.hear(m.raft)
			h.plantBlindVote(g, m.raft)
			h.stepRaft(g, m.raft)
		}
		return
	}
	if g == nil {
		return
	}
	if b, ok := m.other.GetBody().(*api.GroupMessage_RemovedReplica); ok {
		h.wasRemoved(g, keyspace.ReplicaID(b.RemovedReplica))
		return
	}
	if g.core == nil {
		return
	}
	switch b := m.other.GetBody().(type) {
	case *api.GroupMessage_ReadIndex:
		h.serveReadIndex(g, m.from, b.ReadIndex)
	case *api.GroupMessage_ReadIndexReply:
		h.readReplied(g, b.ReadIndexReply)
	case *api.GroupMessage_LostReplica:
		h.memberLost(g, m.from, keyspace.ReplicaID(b.LostReplica))
	case *api.GroupMessage_AsksReplica:
		h.answerStray(g, m.from, keyspace.ReplicaID(b.AsksReplica))
	case *api.GroupMessage_Closed:
		g.core.ObserveClosed(keyspace.Term(b.Closed.GetTerm()), keyspace.Index(b.Closed.GetIndex()), keyspace.Revision(b.Closed.GetClosed()))
	}
}

// bySender reports whether a message names its sender: a follower forwards what was for
// the leader, and it still names who asked, or who is to lead.
func bySender(m *raftpb.Message) bool {
	t := m.GetType()
	return t != raftpb.MsgTransferLeader && t != raftpb.MsgProp && t != raftpb.MsgReadIndex
}

// groupFor returns the replica a raft message is for. One that is not known
// here is created empty: its id was never used on this node, it has no votes
// and no log, and takes part as a new member (DESIGN 5). A message for one that
// is damaged, or that a later replica here took the place of, is answered: it
// is lost, and who still counts on it must replace it.
func (h *Host) groupFor(g *group, m *inMessage) *group {
	to := keyspace.ReplicaID(m.raft.GetTo())
	if g != nil && g.rn != nil && g.replica == to {
		return g
	}
	if g != nil && to <= g.replica {
		h.opt.Out.Send(m.from, &api.GroupMessage{Group: uint32(g.id), Body: &api.GroupMessage_LostReplica{LostReplica: uint64(to)}})
		return nil
	}
	if m.raft.GetType() == raftpb.MsgVote || m.raft.GetType() == raftpb.MsgPreVote {
		return nil
	}
	return h.createReplica(m.group, to, m.from)
}
