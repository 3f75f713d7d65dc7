package host

import (
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// duty says whether a leader lets its group's witnesses have appends, and how
// many copies there are.
//
//   - Off: all data voters acknowledge. Appends to witnesses are withheld, so the
//     quorum of every entry is data replicas, and with two of them both.
//     Heartbeats go on: a witness is loyal to the leader they come from.
//   - On: a data voter was silent, or has acknowledged nothing of what waits, for
//     half an election timeout, or is far behind; or the data voters are no quorum by
//     themselves. Witnesses get what they miss from the next heartbeat on, and count.
//     One that is slow and not far behind paces the writes instead: they would
//     otherwise go on with one copy for as long as it is slow.
//   - Leaving: the data voters are back and close. Nothing more goes to the
//     witnesses; it is off when each data voter has all that a witness may have
//     acknowledged. Waiting for that moment while entries went on to the witness
//     could take for ever under load.
//
// Safety does not depend on any of it (witness.go): a leader that is wrong makes a
// witness know more than it need, or writes wait.
//
// A snapshot may pass at any time if all data voters have what it covers: it
// lets a witness follow from afar, so that its first append needs no snapshot.
type duty struct {
	since  time.Duration // of this leadership
	on     bool
	left   uint64 // leaving: the last index that a witness may have; 0 for off
	acks   map[keyspace.ReplicaID]ack
	copies int
	single bool // said that there is one copy
}

// ack is what a data voter acknowledged, and when it was last of use: since then
// something waits for it.
type ack struct {
	match uint64
	at    time.Duration
}

const (
	// closeEntries is how far behind a data voter may be when duty begins to end.
	closeEntries = 128
	// farEntries behind is far. An entry is all that came during a sync.
	farEntries = 1024
)

// tickDuty judges the data voters.
func (h *Host) tickDuty(g *group, mono time.Duration) {
	data, witnesses := g.dataVoters()
	last, err := g.storage.LastIndex()
	if err != nil {
		return
	}
	d := &g.duty
	progress := g.rn.Status().Progress
	d.observe(data, progress, last, mono)
	known := d.left // what a witness may have: also from when it was a learner
	for _, id := range witnesses {
		known = max(known, progress[id].Match)
	}
	switch {
	case len(witnesses) == 0:
		d.on, d.left = false, 0
	case !g.quorum(append(data, uint64(g.replica))...), !h.acknowledging(g, data, progress, last, mono):
		if !d.on {
			h.opt.Logger.Info("the witness is needed", "group", g.id, "last_index", last)
		}
		d.on, d.left = true, 0
	case d.on && reached(data, progress, last-min(last, closeEntries)):
		d.on, d.left = false, last
	case !d.on && reached(data, progress, known):
		d.left = 0
	case !d.on:
		d.left = known
	}
	h.countCopies(g, data, progress, mono)
}

// dataVoters are the other voters that have data, and the witnesses, in both halves
// of a membership that is changing.
func (g *group) dataVoters() (data, witnesses []uint64) {
	v := g.membership()
	for _, id := range slices.Concat(v.GetVoters(), v.GetVotersOutgoing()) {
		switch r := keyspace.ReplicaID(id); {
		case r.Witness():
			witnesses = append(witnesses, id)
		case r != g.replica && !slices.Contains(data, id):
			data = append(data, id)
		}
	}
	return data, witnesses
}

// observe notes who acknowledged something, or had nothing to acknowledge.
func (d *duty) observe(data []uint64, progress map[uint64]tracker.Progress, last uint64, mono time.Duration) {
	if d.acks == nil {
		d.acks = make(map[keyspace.ReplicaID]ack)
	}
	maps.DeleteFunc(d.acks, func(r keyspace.ReplicaID, _ ack) bool { return !slices.Contains(data, uint64(r)) })
	for _, id := range data {
		match := progress[id].Match
		if a, known := d.acks[keyspace.ReplicaID(id)]; !known || match >= last || match != a.match {
			d.acks[keyspace.ReplicaID(id)] = ack{match, mono}
		}
	}
}

// acknowledging reports whether all data voters do. One that a new leader has not
// heard of yet gets the same time as one that is slow.
func (h *Host) acknowledging(g *group, data []uint64, progress map[uint64]tracker.Progress, last uint64, mono time.Duration) bool {
	patience := h.opt.electionTimeout() / 2
	settled := mono-g.duty.since > patience
	for _, id := range data {
		r := keyspace.ReplicaID(id)
		away := !h.active(g, r) || progress[id].Match+farEntries < last
		if mono-g.duty.acks[r].at > patience || away && settled {
			return false
		}
	}
	return true
}

func reached(data []uint64, progress map[uint64]tracker.Progress, index uint64) bool {
	return !slices.ContainsFunc(data, func(id uint64) bool { return progress[id].Match < index })
}

// countCopies counts the voters that have what was acknowledged: all of it as long
// as a witness may have acknowledged some, else what was committed an election
// timeout ago, as followers are always a little behind.
func (h *Host) countCopies(g *group, data []uint64, progress map[uint64]tracker.Progress, mono time.Duration) {
	d := &g.duty
	least := g.acked.older
	if d.on || d.left > 0 {
		least = g.rn.BasicStatus().GetCommit()
	}
	least = max(least, 1) // nothing is known of a member that has not answered
	copies := 1
	for _, id := range data {
		if h.active(g, keyspace.ReplicaID(id)) && progress[id].Match >= least {
			copies++
		}
	}
	if copies <= len(data) && mono-d.since <= h.opt.electionTimeout() {
		copies = 0 // not heard of all yet
	}
	d.copies = copies
	switch single := copies == 1 && len(data) > 0; {
	case single && !d.single:
		h.opt.Logger.Warn("the group has one copy only; a loss of this node's disk would lose data", "group", g.id)
		d.single = true
	case d.single && copies > 1:
		h.opt.Logger.Warn("the group has more than one copy again", "group", g.id, "copies", copies)
		d.single = false
	}
}

// withheld reports whether a message is not for a witness now.
func (h *Host) withheld(g *group, m *raftpb.Message) bool {
	t := m.GetType()
	if t != raftpb.MsgApp && t != raftpb.MsgSnap || g.duty.on || !g.votes(m.GetTo()) {
		return false
	}
	if t == raftpb.MsgSnap {
		data, _ := g.dataVoters()
		if reached(data, g.rn.Status().Progress, m.GetSnapshot().GetMetadata().GetIndex()) {
			return false
		}
		g.rn.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
		return true
	}
	if n := len(m.GetEntries()); n > 0 && h.opt.Bugs.Has(invariant.BugWitnessCounted) {
		h.stepRaft(g, &raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: m.To, To: m.From, Term: m.Term, Index: m.Entries[n-1].Index})
	}
	return true
}

// votes reports whether a replica is a voter, in either half of the membership.
func (g *group) votes(id uint64) bool {
	v := g.membership()
	return slices.Contains(v.GetVoters(), id) || slices.Contains(v.GetVotersOutgoing(), id)
}
