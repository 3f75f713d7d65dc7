package meta

import (
	"context"
	"fmt"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// RecordRecovery writes the epoch of a recovery and marks the nodes that were
// lost as removed, in one write. It needs the meta group, which has been
// recovered by then, and changes nothing when all of it is written already. The
// groups' own records follow from their leaders (package balancer).
func (s *Service) RecordRecovery(ctx context.Context, epoch uint64, lost []keyspace.NodeID) error {
	ctx = system(ctx)
	for range maxRaces {
		if err := s.dir.Refresh(ctx); err != nil {
			return err
		}
		err := s.recordRecovery(ctx, epoch, lost)
		if fault.CodeOf(err) == fault.ConditionFailed {
			continue
		}
		if err != nil {
			return err
		}
		return s.dir.Refresh(ctx)
	}
	return errRaces("recovery epoch", fmt.Sprint(epoch))
}

func (s *Service) recordRecovery(ctx context.Context, epoch uint64, lost []keyspace.NodeID) error {
	st := s.dir.current.Load()
	c := st.cluster
	if c.record.Groups == 0 {
		return fault.New(fault.Unavailable, "the cluster's layout is not known yet")
	}
	if c.record.RecoveryEpoch > epoch {
		return fault.New(fault.FailedPrecondition, "a later recovery is recorded", "limit", c.record.RecoveryEpoch, "actual", epoch)
	}
	var writes []*api.PutRequest
	if c.record.RecoveryEpoch < epoch {
		c.record.RecoveryEpoch = epoch
		writes = append(writes, item(format.SystemClusterKey, c.record, atVersion(c.version)))
	}
	for _, id := range lost {
		n := st.nodes[id] // a node may be lost before it wrote its record
		if n.record.Removed != "" || n.record.ReplacedBy != "" {
			continue
		}
		n.record.ID = id
		n.record.Removed, n.record.RemovedAt = fmt.Sprintf("recovered at epoch %d", epoch), s.o.Clock.Wall()
		writes = append(writes, item(format.SystemNodeKey(id), n.record, atVersion(n.version)))
	}
	if len(writes) == 0 {
		return nil
	}
	s.o.Logger.Warn("recording a recovery of the cluster", "epoch", epoch, "lost", lost)
	return s.putAll(ctx, writes...)
}
