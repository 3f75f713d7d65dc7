package raftlog

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Batch collects what one loop of the host wants to be durable. Records take
// effect in the order of the calls, all or none. What is passed in is kept
// without copying until Commit, entries and checkpoints longer: it must not be
// changed any more.
type Batch struct {
	ops  []op
	size int64 // bytes of the records
}

type opKind uint8

const (
	opEntries opKind = iota + 1
	opHardState
	opCheckpoint
	opCreate
	opSwitch
	opRemove
	opMeta
	opAdopt
)

type op struct {
	kind       opKind
	group      keyspace.GroupID
	replica    keyspace.ReplicaID
	entries    []*raftpb.Entry
	hard       hardState
	checkpoint Checkpoint
	key        string
	value      []byte

	// Set by Commit: the group, and where the first record went.
	target *groupLog
	offset int64
}

// NewBatch returns an empty batch; Reset makes it ready for use again.
func (l *Log) NewBatch() *Batch { return &Batch{} }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops = b.ops[:0]
	b.size = 0
}

// Empty reports whether there is nothing to write.
func (b *Batch) Empty() bool { return len(b.ops) == 0 }

// Bytes is the size of the batch on disk, without padding.
func (b *Batch) Bytes() int64 { return b.size }

// next appends an operation in place, since it is large.
func (b *Batch) next(kind opKind, group keyspace.GroupID, bodies int64) *op {
	b.ops = append(b.ops, op{kind: kind, group: group})
	b.size += recordHeaderBytes + bodies
	return &b.ops[len(b.ops)-1]
}

// Create starts a new replica whose log begins after c.Index. It replaces an
// older replica of the group, which counts as removed. Commit refuses a
// replica id that is not above every one that lived here (FailedPrecondition),
// and any one where damage hides which did (Corruption): ask MayCreate first.
func (b *Batch) Create(group keyspace.GroupID, replica keyspace.ReplicaID, c Checkpoint) {
	o := b.next(opCreate, group, 8+int64(checkpointBytes(&c)))
	o.replica, o.checkpoint = replica, c
}

// Remove ends the group's replica here. Its id never lives here again.
func (b *Batch) Remove(group keyspace.GroupID) {
	b.next(opRemove, group, 8)
}

// Adopt lets a new replica take over checkpoint, entries and hard state of the
// one that lives here, which counts as removed. Commit refuses a replica id
// that is not above every one that lived here (FailedPrecondition).
func (b *Batch) Adopt(group keyspace.GroupID, replica keyspace.ReplicaID) {
	b.next(opAdopt, group, 8).replica = replica
}

// Entries appends consecutive entries, in place of what the log has from the
// first one's index on.
func (b *Batch) Entries(group keyspace.GroupID, entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	bytes := int64(-recordHeaderBytes) // next counts one header
	for _, e := range entries {
		bytes += entryBytes(e)
	}
	b.next(opEntries, group, bytes).entries = entries
}

// HardState replaces the group's hard state; nil changes nothing.
func (b *Batch) HardState(group keyspace.GroupID, h *raftpb.HardState) {
	if h != nil {
		b.next(opHardState, group, 24).hard = hardStateOf(h)
	}
}

// Checkpoint notes what the engine holds durably. Entries stay until Compact.
func (b *Batch) Checkpoint(group keyspace.GroupID, c Checkpoint) {
	b.next(opCheckpoint, group, int64(checkpointBytes(&c))).checkpoint = c
}

// Switch replaces everything before c.Index by a received snapshot: instance,
// state and configuration change, and the log restarts after c.Index.
func (b *Batch) Switch(group keyspace.GroupID, c Checkpoint) {
	b.next(opSwitch, group, int64(checkpointBytes(&c))).checkpoint = c
}

// SetMeta stores a small fact of the node. Facts live as long as the log.
func (b *Batch) SetMeta(key string, value []byte) {
	o := b.next(opMeta, 0, int64(4+len(key)+len(value)))
	o.key, o.value = key, value
}

// plan is what a group's log will be after the operations seen so far of the
// batch being committed, so that a batch is checked before anything is written.
type plan struct {
	epoch       uint64
	replica     keyspace.ReplicaID
	first, last uint64
	checkpoint  uint64
}

// check resolves the groups of a batch and checks its operations in order.
// Misuse by the caller panics; what a peer can cause is an error.
func (l *Log) check(b *Batch) error {
	l.epoch++
	var created []*groupLog
	for i := range b.ops {
		o := &b.ops[i]
		if o.kind == opMeta {
			continue
		}
		g := l.groups[o.group]
		if g == nil && l.unscoped && o.kind == opCreate {
			return errHiddenReplica(o.group)
		}
		for _, c := range created {
			if c.id == o.group {
				g = c
			}
		}
		if g == nil {
			g = &groupLog{id: o.group, first: 1}
			created = append(created, g)
		}
		if g.plan.epoch != l.epoch {
			g.plan = plan{l.epoch, g.replica, g.first, g.last(), uint64(g.checkpoint.Index)}
		}
		o.target = g
		if err := g.check(o); err != nil {
			return err
		}
	}
	return nil
}

// errHiddenReplica: a replica made now could be one that voted before.
func errHiddenReplica(group keyspace.GroupID) error {
	return fault.New(fault.Corruption, "damage hides which replica lived here; the data directory must be deleted", "group", group)
}

func (g *groupLog) check(o *op) error {
	p := &g.plan
	switch o.kind {
	case opCreate:
		if g.damaged && p.replica == 0 {
			return errHiddenReplica(g.id)
		}
		if err := g.checkUnused(o.replica); err != nil {
			return err
		}
		p.replica = o.replica
		p.restart(&o.checkpoint)
		return nil
	case opRemove:
		if g.damaged && p.replica == 0 {
			return errHiddenReplica(g.id)
		}
		o.replica = p.replica
		p.replica = 0
		p.restart(&Checkpoint{})
		return nil
	default: // the rest needs a replica that is there
	}
	if p.replica == 0 {
		panic(fmt.Sprintf("raftlog: group %d has no replica here (operation %d)", g.id, o.kind))
	}
	switch o.kind {
	case opAdopt:
		if g.damaged {
			return fault.New(fault.Corruption, "the log of the replica is damaged", "group", g.id, "replica", p.replica)
		}
		if err := g.checkUnused(o.replica); err != nil {
			return err
		}
		p.replica = o.replica
	case opEntries:
		p.append(g.id, o.entries)
	case opCheckpoint:
		if at := uint64(o.checkpoint.Index); at < p.checkpoint || at > p.last {
			panic(fmt.Sprintf("raftlog: group %d: checkpoint at %d is outside %d..%d", g.id, at, p.checkpoint, p.last))
		}
		p.checkpoint = uint64(o.checkpoint.Index)
	case opSwitch:
		p.restart(&o.checkpoint)
	default: // leaves the positions of the log as they are
	}
	return nil
}

// checkUnused refuses the id of a replica that lived here, or lives.
func (g *groupLog) checkUnused(r keyspace.ReplicaID) error {
	if lived := max(g.removed, g.plan.replica); r <= lived {
		return fault.New(fault.FailedPrecondition, "replica ids are never used again on a node",
			"group", g.id, "replica", r, "highest", lived)
	}
	return nil
}

func (p *plan) restart(c *Checkpoint) {
	p.checkpoint = uint64(c.Index)
	p.first, p.last = p.checkpoint+1, p.checkpoint
}

func (p *plan) append(group keyspace.GroupID, entries []*raftpb.Entry) {
	index := entries[0].GetIndex()
	if index < p.first || index > p.last+1 || index <= p.checkpoint {
		panic(fmt.Sprintf("raftlog: group %d: entry %d does not follow the log %d..%d with checkpoint %d",
			group, index, p.first, p.last, p.checkpoint))
	}
	for i, e := range entries {
		if e.GetIndex() != index+uint64(i) {
			panic(fmt.Sprintf("raftlog: group %d: entry %d is where %d should be", group, e.GetIndex(), index+uint64(i)))
		}
	}
	p.last = index + uint64(len(entries)) - 1
}

// encode appends the records. base is the place in the segment of b[0].
func (b *Batch) encode(buf []byte, base int64) []byte {
	for i := range b.ops {
		o := &b.ops[i]
		o.offset = base + int64(len(buf))
		switch o.kind {
		case opEntries:
			for _, e := range o.entries {
				buf = appendEntry(buf, o.group, e)
			}
		case opHardState:
			buf = appendHardState(buf, o.group, o.hard)
		case opCheckpoint:
			buf = appendCheckpointRecord(buf, recordCheckpoint, o.group, &o.checkpoint)
		case opSwitch:
			buf = appendCheckpointRecord(buf, recordSwitch, o.group, &o.checkpoint)
		case opCreate:
			buf = appendCreate(buf, o.group, o.replica, &o.checkpoint)
		case opRemove:
			buf = appendRemove(buf, o.group, o.replica)
		case opAdopt:
			buf = appendAdopt(buf, o.group, o.replica)
		case opMeta:
			buf = appendMeta(buf, o.key, o.value)
		}
	}
	return buf
}

// apply brings memory in step with what encode wrote to segment s.
func (b *Batch) apply(l *Log, s *segment) {
	for i := range b.ops {
		o := &b.ops[i]
		g := o.target
		switch o.kind {
		case opEntries:
			g.applyEntries(o, s, &l.cache)
		case opHardState:
			g.setHardState(o.hard)
		case opCheckpoint:
			g.setCheckpoint(o.checkpoint)
		case opSwitch:
			g.restart(o.checkpoint, &l.cache)
		case opCreate:
			l.groups[g.id] = g
			g.create(o.replica, o.checkpoint, &l.cache)
		case opRemove:
			l.groups[g.id] = g
			g.remove(&l.cache)
		case opAdopt:
			g.adopt(o.replica)
		case opMeta:
			l.setMeta(o.key, o.value)
		}
	}
}

func (g *groupLog) applyEntries(o *op, s *segment, cache *entryCache) {
	offset := o.offset
	for _, e := range o.entries {
		r := refOf(s, offset, e.GetTerm(), e.Data, isStripped(e))
		g.append(e.GetIndex(), r, cache)
		cache.add(g, e)
		offset += r.recordBytes()
	}
}

// setMeta copies value.
func (l *Log) setMeta(key string, value []byte) {
	l.metaMu.Lock()
	defer l.metaMu.Unlock()
	l.meta[key] = append([]byte{}, value...)
}

// confState never returns nil, and never what the caller of Checkpoint holds.
func (c *Checkpoint) confState() *raftpb.ConfState {
	if c.ConfState == nil {
		return raftpb.EnsureConfState(nil)
	}
	return raftpb.EnsureConfState(proto.CloneOf(c.ConfState))
}
