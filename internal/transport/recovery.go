package transport

import (
	"fmt"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Recovery is the last recovery of the cluster that a node has taken part in
// (DESIGN 11). Every one has a higher epoch. What is left of the cluster before
// it must not speak to the cluster after it: each Hello and each frame carries
// the sender's epoch, frames of another epoch are refused, and the node of the
// lower epoch learns from Hello that it has to go (Options.OnOutdated), unless
// it is one of the survivors, whom the recovery has only not reached yet.
type Recovery struct {
	// Epoch is 0 when there was none.
	Epoch     uint64            `json:"epoch"`
	Survivors []keyspace.NodeID `json:"survivors"`
}

// SetRecovery says which recovery this node has taken part in; from now on
// peers of others are refused.
func (t *Transport) SetRecovery(r Recovery) {
	t.recovery.Store(&r)
	t.forwards.end(func(l *forwardLink) bool { return l.epoch != r.Epoch })
}

// Recovery returns what SetRecovery said last.
func (t *Transport) Recovery() Recovery {
	if r := t.recovery.Load(); r != nil {
		return *r
	}
	return Recovery{}
}

// survivors in their wire form.
func (r Recovery) survivors() []string {
	out := make([]string, len(r.Survivors))
	for i, id := range r.Survivors {
		out[i] = string(id)
	}
	return out
}

// Outdated is the error of a node that is left from before a recovery.
func Outdated(epoch uint64) error {
	return fault.New(fault.FailedPrecondition,
		fmt.Sprintf("this node belongs to the cluster before its recovery at epoch %d; delete its data directory to join again", epoch))
}

// judgeRecovery compares what a peer says in Hello with this node's recovery.
func (t *Transport) judgeRecovery(epoch uint64, survivors []string) error {
	mine := t.Recovery().Epoch
	switch {
	case epoch == mine:
		return nil
	case epoch < mine:
		return fault.New(fault.FailedPrecondition, "peer belongs to the cluster before its recovery", "recovery_epoch", mine, "actual", epoch)
	case slices.Contains(survivors, string(t.o.Node)):
		return fault.New(fault.Unavailable, "the recovery of the cluster has not reached this node yet; run kvctl cluster recover again",
			"recovery_epoch", epoch, "actual", mine)
	}
	if t.o.OnOutdated != nil {
		t.o.OnOutdated(epoch)
	}
	return Outdated(epoch)
}

// checkRecovery refuses a frame or snapshot of another epoch; Hello tells which
// side has to go.
func (t *Transport) checkRecovery(epoch uint64) error {
	if mine := t.Recovery().Epoch; epoch != mine {
		return fault.New(fault.FailedPrecondition, "message is from before or after a recovery of the cluster", "recovery_epoch", mine, "actual", epoch)
	}
	return nil
}
