package host

import (
	"context"
	"encoding/json"
	"log/slog"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// ReplicaReport is what a replica knows of its group when nobody else can be
// asked.
type ReplicaReport struct {
	Group   keyspace.GroupID
	Replica keyspace.ReplicaID
	// Role and Quarantined are those of GroupStatus.
	Role        string
	Quarantined string
	// Leader is 0 unless one was heard of within an election timeout.
	Leader keyspace.ReplicaID
	// HeardMilli is when a leader was last known, by this node's clock in Unix
	// milliseconds; 0 for not since the start.
	HeardMilli int64
	Term       keyspace.Term
	// Last and LastTerm are those of the newest entry in the log.
	Last     keyspace.Index
	LastTerm keyspace.Term
	Commit   keyspace.Index
	Applied  keyspace.Index
	// LastRev is the highest revision in the log. Of what was acknowledged,
	// everything at or below KeptRev is applied here.
	LastRev, KeptRev keyspace.Revision
	Ceiling          keyspace.Revision
	// NextID is the next replica id to give.
	NextID keyspace.ReplicaID
	// Members, Voters and Outgoing are the applied membership; Outgoing is not
	// empty while it is joint. Changing: the log holds changes to come.
	Members          []format.Member
	Voters, Outgoing []keyspace.ReplicaID
	Changing         bool
}

// ReportReplicas describes the replicas here, with what is in their logs
// beyond what is committed.
func (h *Host) ReportReplicas(ctx context.Context) ([]ReplicaReport, error) {
	return onLoop(ctx, h, func() ([]ReplicaReport, error) {
		out := make([]ReplicaReport, 0, len(h.groups))
		for _, info := range h.log.Groups() {
			g := h.groups[info.Group]
			if g == nil {
				continue
			}
			if g.core == nil {
				out = append(out, ReplicaReport{Group: g.id, Replica: g.replica, Role: "quarantined", Quarantined: g.quarantined})
				continue
			}
			r, err := h.reportOf(g)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
		return out, nil
	})
}

func (h *Host) reportOf(g *group) (ReplicaReport, error) {
	t, err := readTail(g)
	if err != nil {
		return ReplicaReport{}, err
	}
	s, b := g.core.State(), g.rn.BasicStatus()
	r := ReplicaReport{Group: g.id, Replica: g.replica, Role: g.role(), Leader: h.leaderOf(g), HeardMilli: g.heard,
		Term: keyspace.Term(b.GetTerm()), Last: t.last, LastTerm: t.term, Commit: keyspace.Index(b.GetCommit()), Applied: s.Index,
		LastRev: t.lastRev, KeptRev: max(s.LastRev, g.core.Closed()), Ceiling: t.ceiling, NextID: t.next,
		Members: s.Members, Changing: len(t.changes) > 0}
	cs := appliedConf(g)
	for _, id := range cs.GetVoters() {
		r.Voters = append(r.Voters, keyspace.ReplicaID(id))
	}
	for _, id := range cs.GetVotersOutgoing() {
		r.Outgoing = append(r.Outgoing, keyspace.ReplicaID(id))
	}
	return r, nil
}

func appliedConf(g *group) *raftpb.ConfState { return confOf(g.core.State()) }

// confOf decodes the membership of an applied state.
func confOf(s *format.State) *raftpb.ConfState {
	cs := &raftpb.ConfState{}
	invariant.Assert(proto.Unmarshal(s.ConfState, cs) == nil, "group %d: own configuration does not decode", s.Group)
	return cs
}

// tail is what the entries that are not applied would make of the applied
// state, beside its records.
type tail struct {
	last    keyspace.Index
	term    keyspace.Term // of the last entry
	chain   uint64
	lastRev keyspace.Revision
	// ceiling is the highest of all, also where an entry lowers it.
	ceiling, closed keyspace.Revision
	next            keyspace.ReplicaID
	changes         []*raftpb.ConfChangeV2
}

// tailReadBytes bounds the entries read at once.
const tailReadBytes = 4 << 20

func readTail(g *group) (tail, error) {
	s := g.core.State()
	t := tail{last: s.Index, term: s.Term, chain: s.Chain, lastRev: s.LastRev, ceiling: s.Ceiling,
		closed: max(s.Closed, g.core.Closed()), next: s.NextID}
	end, err := g.storage.LastIndex()
	if err != nil {
		return t, err
	}
	for uint64(t.last) < end {
		entries, err := g.storage.Entries(uint64(t.last)+1, end+1, tailReadBytes)
		if err != nil {
			return t, fault.Wrap(fault.Corruption, err, "the end of the log cannot be read", "group", g.id, "index", t.last+1)
		}
		for _, e := range entries {
			if err := t.add(e); err != nil {
				return t, err
			}
		}
	}
	return t, nil
}

func (t *tail) add(e *raftpb.Entry) error {
	t.last, t.term = keyspace.Index(e.GetIndex()), keyspace.Term(e.GetTerm())
	if e.GetType() != raftpb.EntryNormal {
		return t.addChange(e)
	}
	if len(e.GetData()) == 0 || format.IsStripped(e.GetData()) {
		return nil
	}
	var d format.Entry
	if err := format.DecodeEntry(e.GetData(), &d); err != nil {
		return err
	}
	t.chain = format.ChainHash(t.chain, e.GetData())
	t.lastRev = max(t.lastRev, d.Stamp)
	t.ceiling, t.closed = max(t.ceiling, d.Ceiling), max(t.closed, d.Closed)
	return nil
}

func (t *tail) addChange(e *raftpb.Entry) error {
	cc, err := decodeConf(e)
	if err != nil {
		return fault.Wrap(fault.Corruption, err, "undecodable membership change", "index", e.GetIndex())
	}
	var cx confContext
	if raw := cc.GetContext(); len(raw) > 0 {
		if err := json.Unmarshal(raw, &cx); err != nil {
			return fault.Wrap(fault.Corruption, err, "undecodable context of a membership change", "index", e.GetIndex())
		}
	}
	t.changes = append(t.changes, cc)
	t.next = max(t.next, cx.Replica.Number()+1)
	return nil
}

// confState is the membership after the tail's changes.
func (t *tail) confState(g *group) (*raftpb.ConfState, error) {
	return confAfter(g.replica, appliedConf(g), t.changes...)
}

// confAfter is the membership after changes, as raft computes it: a node of its
// own that starts from the one before adopts them.
func confAfter(id keyspace.ReplicaID, cs *raftpb.ConfState, changes ...*raftpb.ConfChangeV2) (*raftpb.ConfState, error) {
	if len(changes) == 0 {
		return cs, nil
	}
	memory := raft.NewMemoryStorage()
	err := memory.ApplySnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(1)), Term: new(uint64(1)), ConfState: cs}})
	if err != nil {
		return nil, err
	}
	rn, err := raft.NewRawNode(&raft.Config{ID: uint64(id), ElectionTick: 10, HeartbeatTick: 1, Storage: memory,
		MaxSizePerMsg: 1, MaxInflightMsgs: 1, Logger: raftLogger{slog.New(slog.DiscardHandler)}})
	if err != nil {
		return nil, err
	}
	for _, cc := range changes {
		cs = rn.ApplyConfChange(cc)
	}
	return cs, nil
}
