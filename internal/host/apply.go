package host

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/keyspace"
)

// applyAll applies what raft committed, publishes it whole, then answers.
func (h *Host) applyAll() error {
	for _, g := range h.order {
		g.core.InsertDeferred()
		if len(g.applying) == 0 {
			h.completeReads(g)
			g.core.Settle()
			continue
		}
		if err := h.applyGroup(g); err != nil {
			return err
		}
	}
	return nil
}

// applyGroup applies a group's committed entries as far as there is room in
// the delta. A full delta stops apply; log and heartbeats go on (DESIGN 4).
func (h *Host) applyGroup(g *group) error {
	responses := make([]*raftpb.Message, 0, len(g.applying))
	for len(g.applying) > 0 && !h.opt.Store.Full() {
		m := g.applying[0]
		g.applying = g.applying[1:]
		for _, e := range m.GetEntries() {
			if err := h.applyEntry(g, e); err != nil {
				return err
			}
		}
		responses = append(responses, m.GetResponses()...)
	}
	if len(g.applying) > 0 {
		h.flushSoon()
	} else {
		g.applying = nil
	}
	h.publish(g)
	g.core.Settle()
	for _, r := range responses {
		h.stepRaft(g, r)
	}
	h.completeReads(g)
	h.continueTransfer(g)
	g.dropped = false
	g.dirty = g.dirty || g.core.HasWork()
	return nil
}

func (h *Host) applyEntry(g *group, e *raftpb.Entry) error {
	index, term := keyspace.Index(e.GetIndex()), keyspace.Term(e.GetTerm())
	if index <= g.core.State().Index {
		return nil
	}
	if e.GetType() != raftpb.EntryNormal {
		return h.applyConfChange(g, e)
	}
	if g.replica.Witness() {
		g.core.ApplyPosition(index, term)
		return nil
	}
	if len(e.GetData()) == 0 {
		h.confReplaced(g, term)
	} else {
		h.committed(g, term)
	}
	slots := g.core.State().Slots
	applied, err := g.core.Apply(index, term, e.GetData())
	if err != nil {
		return fmt.Errorf("applying entry %d of group %d: %w", index, g.id, err)
	}
	g.locks.add(applied.Locked)
	g.ended = append(g.ended, applied.Unlocked...)
	if applied.Import {
		g.imported = g.core.State().LastRev
	}
	g.feed.take(index, e.GetData(), g.core.Settled(), g.core.State().Slots)
	if s := g.core.State(); s.Slots != slots {
		noLocks(s)
	}
	if applied.Digest {
		h.startDigest(g, index, applied)
	}
	return nil
}
