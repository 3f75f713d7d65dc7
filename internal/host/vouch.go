package host

import (
	"bytes"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// vouched answers a follower that asks this leader at once when the two are a
// quorum. The follower named its term after its readers had come; if that is the
// leader's, then no later leader had the follower's vote at that moment, nor has
// one the leader's now, so none existed when the readers came, and all that was
// acknowledged to anybody before then is committed here. It is what an answer to
// a heartbeat says that was sent for these readers, and it counts for them
// alone: readers here came after the follower spoke and need a round of their
// own.
func (h *Host) vouched(g *group, r *api.ReadIndexRequest) (ReadPoint, bool) {
	term, leading := g.core.Leading()
	if !leading || r.GetTerm() != uint64(term) || !g.quorum(uint64(g.replica), r.GetFromReplica()) {
		return ReadPoint{}, false
	}
	now := h.now(g)
	if !g.core.Serving(now) || keyspace.Revision(r.GetAtLeast()) > g.core.ReadCeiling() {
		return ReadPoint{}, false
	}
	s := g.rn.BasicStatus() // raft may have stepped down in this very loop
	if s.RaftState != raft.StateLeader || s.GetTerm() != uint64(term) {
		return ReadPoint{}, false
	}
	return ReadPoint{Group: g.id, Index: keyspace.Index(s.GetCommit()), Clock: g.core.ReadClock(now), Physical: now.Physical}, true
}

// voters is a decoded membership and the bytes it came from.
type voters struct {
	raw []byte
	raftpb.ConfState
}

// quorum reports whether replicas are a majority of the voters, in both halves
// of a membership that is changing.
func (g *group) quorum(replicas ...uint64) bool {
	v := g.membership()
	out := v.GetVotersOutgoing()
	return majority(v.GetVoters(), replicas) && (len(out) == 0 || majority(out, replicas))
}

// membership returns the applied membership; the same one until it changes.
func (g *group) membership() *voters {
	raw := g.core.State().ConfState
	if g.voters == nil || !bytes.Equal(g.voters.raw, raw) {
		v := &voters{raw: slices.Clone(raw)}
		invariant.Assert(proto.Unmarshal(raw, &v.ConfState) == nil, "group %d: own configuration does not decode", g.id)
		g.voters = v
	}
	return g.voters
}

func majority(voters, replicas []uint64) bool {
	n := 0
	for _, id := range voters {
		if slices.Contains(replicas, id) {
			n++
		}
	}
	return n > len(voters)/2
}
