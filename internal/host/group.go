package host

import (
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/raftlog"
	"kvstore/internal/replica"
)

// group is one replica hosted here. Only the loop touches it, except for the
// atomic fields.
type group struct {
	id      keyspace.GroupID
	replica keyspace.ReplicaID
	core    *replica.Core
	rn      *raft.RawNode
	storage *raftlog.GroupStorage

	// published is what readers on other goroutines may use.
	published atomic.Pointer[published]
	// locks are those of what is prepared, for readers; ended is the loop's: whose
	// end is applied and not published.
	locks  lockTable
	ended  []*format.Prepared
	status atomic.Pointer[GroupStatus]

	leader   keyspace.ReplicaID
	raftRole raft.StateType
	term     keyspace.Term
	// replayTo is what was committed at the start: before that is applied, the
	// membership is one of the past.
	replayTo keyspace.Index
	heard    int64     // Unix milliseconds of the last tick at which a leader was known
	hard     hardState // what raft holds, kept is what the log does
	kept     hardState
	commits  commitNotes
	beats    readBeats
	nodes    map[keyspace.ReplicaID]keyspace.NodeID

	applying []*raftpb.Message // MsgStorageApply that wait for room in the delta
	dirty    bool
	unsynced int // appends that wait for their sync
	lagging  int // of those, see lag
	batched  int // requests of the last entry proposed here
	// promptUntil: nothing lags before.
	promptUntil time.Duration
	dropped     bool // raft refused a proposal; wait for progress or a tick
	// proposed is when the entries of this term were proposed that are not
	// applied yet, in log order.
	proposed []time.Duration
	reads    readState
	voters   *voters // of the applied membership, nil until they are asked for
	conf     *confWaiter

	snapState    *format.State // state at the last Snapshot()
	copies       map[keyspace.ReplicaID]*copying
	incoming     *incoming
	saved        keyspace.Index // index of the last checkpoint
	savedRev     keyspace.Revision
	instance     *instance
	transferAt   time.Duration // when a running transfer is given up
	transferring bool
	transferNext time.Duration
	// guide is where voters should be, the leader first; see Guide.
	guide []keyspace.NodeID
	// activeAt is when members were last known to be alive, on leaders.
	activeAt map[keyspace.ReplicaID]time.Duration
	// echo is the first index of this leader's that was proposed after it applied
	// the last membership change, 0 while nobody asks; see quorumKnows.
	echo keyspace.Index
	// leaderless counts ticks since a leader spoke to this replica.
	leaderless  int
	fleeNext    time.Duration // not giving up again before
	planned     bool          // a transfer was asked for that leads here
	acked       commitSamples
	duty        duty // of witnesses, on leaders
	raisedAt    time.Duration
	digests     atomic.Pointer[[]Digest] // the last few, oldest first
	digestAsked []func(keyspace.Index, error)
	quarantined string
	lost        map[keyspace.ReplicaID]bool // members that reported damage
	feed        *feed                       // nil while nobody follows the group
	freeze      freezeWatch
	sweep       sweeping
	// imported: no record that was written elsewhere came with a later stamp; see
	// Past.
	imported keyspace.Revision
}

// hardState is what was last written of raft's HardState.
type hardState struct{ term, vote, commit uint64 }

// published is one consistent picture of a replica for readers. ReadRev moves
// only after the whole entry that stamped it is in the delta.
type published struct {
	instance   *instance
	index      keyspace.Index
	term       keyspace.Term
	readRev    keyspace.Revision
	closed     keyspace.Revision
	settled    keyspace.Revision // replica.Core.Settled
	ceiling    keyspace.Revision
	leader     keyspace.ReplicaID
	leaderNode keyspace.NodeID
	leading    bool
	serving    bool
	slots      *format.SlotState
	imported   keyspace.Revision
	progress   replica.Progress
}

// instance is one life of a replica's data. It is deleted when its last reader
// ends after it was retired.
type instance struct {
	id      keyspace.InstanceID
	readers atomic.Int64
	retired atomic.Bool
	// deleting makes the deletion happen once.
	deleting atomic.Bool
}

// learnNodes takes the replica -> node mapping of a descriptor.
func (g *group) learnNodes(members []format.Member) {
	for _, m := range members {
		g.nodes[m.Replica] = m.Node
	}
}

// importedBy is the revision up to which a state may have records that were
// written elsewhere, as far as one can tell without the log before it.
func importedBy(s *format.State) keyspace.Revision {
	if s.Slots == nil || s.Slots.Accepted == 0 && s.Slots.In == nil && s.Slots.EndedIn == 0 {
		return 0
	}
	return s.LastRev
}

// publish makes the applied state visible to readers.
func (h *Host) publish(g *group) {
	s := g.core.State()
	_, leading := g.core.Leading()
	p := &published{
		instance: g.instance, index: s.Index, term: s.Term, readRev: s.LastRev,
		closed: g.core.Closed(), settled: g.core.Settled(), ceiling: s.Ceiling, leader: h.leaderOf(g), leaderNode: g.nodes[h.leaderOf(g)],
		leading: leading, serving: leading && g.core.Serving(h.now(g)), slots: s.Slots, imported: g.imported, progress: g.core.Progress(),
	}
	if old := g.published.Load(); old == nil || *old != *p {
		g.published.Store(p)
		g.feed.show(p)
	}
	g.locks.remove(g.ended, p.readRev)
	g.ended = nil
}
