package host

import (
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// maxInboxMessages bounds peers' messages that wait for the loop; raft repeats
// what is dropped.
const maxInboxMessages = 1 << 16

// Deliver takes the messages of one frame. It decodes on the caller's
// goroutine and never blocks.
func (h *Host) Deliver(from keyspace.NodeID, clockMS int64, msgs []*api.GroupMessage) {
	decoded := make([]inMessage, 0, len(msgs)+1)
	for _, m := range msgs {
		in := inMessage{from: from, group: keyspace.GroupID(m.GetGroup())}
		if raw, ok := m.GetBody().(*api.GroupMessage_Raft); ok {
			in.raft = &raftpb.Message{}
			if err := proto.Unmarshal(raw.Raft, in.raft); err != nil {
				h.opt.Logger.Warn("undecodable raft message", "from", from, "group", in.group, "error", err)
				continue
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
