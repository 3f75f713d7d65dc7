package host

import (
	"context"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/raftlog"
)

// FoundGroup creates a new group while the node runs: its only replica is here,
// and the group is durable before it returns. The seed's only member is Self.
// Nothing happens when that replica is here already. Who asks sees to it that no
// other node founds a group of that id.
//
// failed_precondition: another replica of the group is here, or a replica of that
// id was.
func (h *Host) FoundGroup(ctx context.Context, seed GroupSeed) error {
	_, err := onLoop(ctx, h, func() (struct{}, error) { return struct{}{}, h.foundGroup(&seed) })
	return err
}

func (h *Host) foundGroup(seed *GroupSeed) error {
	if seed.Group == keyspace.MetaGroup || len(seed.Members) != 1 || seed.Self == 0 ||
		seed.Members[0].Replica != seed.Self || seed.Members[0].Node != h.opt.Node || seed.Members[0].Learner {
		return fault.New(fault.InvalidArgument, "a new group begins with one voter, on the node that founds it",
			"group", seed.Group, "members", seed.Members, "node", h.opt.Node)
	}
	if g := h.groups[seed.Group]; g != nil {
		if g.replica == seed.Self && g.quarantined == "" {
			return nil
		}
		return fault.New(fault.FailedPrecondition, "another replica of the group is here", "group", seed.Group,
			"replica", g.replica, "want", seed.Self)
	}
	if !h.log.MayCreate(seed.Group, seed.Self) {
		return fault.New(fault.FailedPrecondition, "a replica of that id was here, or may have been", "group", seed.Group,
			"replica", seed.Self, "removed", h.log.HighestRemoved(seed.Group))
	}
	if h.stalled {
		return fault.New(fault.Overloaded, "the disk of the raft log is full", "group", seed.Group)
	}
	if err := h.writeNow(func(b *raftlog.Batch) { h.plant(b, seed) }); err != nil {
		return err
	}
	infos := h.log.Groups()
	n := slices.IndexFunc(infos, func(i raftlog.GroupInfo) bool { return i.Group == seed.Group })
	if err := h.openGroup(infos[n]); err != nil {
		h.fail(err)
		return err
	}
	h.shareDirectory()
	h.opt.Logger.Info("group founded", "group", seed.Group, "replica", seed.Self, "slots", seed.Slots.Count())
	if err := h.groups[seed.Group].rn.Campaign(); err != nil {
		h.opt.Logger.Debug("not campaigning", "group", seed.Group, "error", err)
	}
	return nil
}
