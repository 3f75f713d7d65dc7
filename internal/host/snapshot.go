package host

import (
	"context"
	"encoding/binary"
	"io"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/engine"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/raftlog"
)

// Snapshots. A leader whose log no longer reaches back to a follower streams
// all records of its instance at one applied index. The follower writes them
// under a fresh instance, makes them durable, and hands raft the MsgSnap; when
// raft takes it, one fsynced log record switches instance, index and
// configuration, and only then is it acknowledged (DESIGN 5).

// snapshotAt describes the applied state to raft; the records follow when raft
// sends the message.
func (h *Host) snapshotAt(g *group) (*raftpb.Snapshot, error) {
	if h.snaps >= h.opt.MaxSnapshots && !g.hasWitness() { // those are sent at any time
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	s := *g.core.State()
	if s.Index == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	cs := &raftpb.ConfState{}
	invariant.Assert(proto.Unmarshal(s.ConfState, cs) == nil, "group %d: own configuration does not decode", g.id)
	g.snapState = &s
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: new(uint64(s.Index)), Term: new(uint64(s.Term)), ConfState: cs}}, nil
}

// sendSnapshot streams in the background and reports to raft in every case.
func (h *Host) sendSnapshot(g *group, node keyspace.NodeID, m *raftpb.Message) {
	to := m.GetTo()
	s := g.snapState
	witness := keyspace.ReplicaID(to).Witness()
	if s == nil || uint64(s.Index) != m.GetSnapshot().GetMetadata().GetIndex() || h.snaps >= h.opt.MaxSnapshots && !witness {
		g.rn.ReportSnapshot(to, raft.SnapshotFailure)
		return
	}
	p, err := g.acquire(h)
	if err != nil {
		g.rn.ReportSnapshot(to, raft.SnapshotFailure)
		return
	}
	header := &api.SnapshotHeader{FormatVersion: format.Version, ClusterId: h.opt.ClusterID, FromNode: string(h.opt.Node),
		ToNode: string(node), Group: uint32(g.id), FromReplica: uint64(g.replica), ToReplica: to, Raft: mustMarshal(m),
		State: format.AppendState(nil, s), Floor: h.floor.Load()}
	if witness {
		p.instance.release(h)
		h.sendPosition(g, header)
		return
	}
	view := h.opt.Store.View()
	h.snaps++
	c := h.beginCopy(g, keyspace.ReplicaID(to))
	h.opt.Logger.Info("sending a snapshot", "group", g.id, "to", node, "index", s.Index)
	h.opt.Go(func(ctx context.Context) {
		r := &snapshotReader{copy: c, scan: view.Scan(mvcc.ScanOptions{Instance: p.instance.id, At: s.LastRev, AllVersions: true})}
		err := h.opt.Snapshots.SendSnapshot(ctx, header, r.next)
		r.scan.Close()
		view.Close()
		p.instance.release(h)
		if f := h.opt.Hooks.Snapshot; f != nil {
			f(true, r.bytes)
		}
		h.control(func() {
			h.snaps--
			g.endCopy(keyspace.ReplicaID(to), c)
			status := raft.SnapshotFinish
			if err != nil {
				status = raft.SnapshotFailure
				h.opt.Logger.Warn("a snapshot was not taken", "group", g.id, "to", node, "error", err)
			}
			if h.groups[g.id] == g {
				g.rn.ReportSnapshot(to, status)
			}
		})
	})
}

// snapshotReader cuts a scan into chunks.
type snapshotReader struct {
	scan  *mvcc.Scanner
	bytes int64
	copy  *copying // nil in tests
}

const snapshotChunkBytes = 256 << 10

func (r *snapshotReader) next() ([]byte, error) {
	var b []byte
	for ; len(b) < snapshotChunkBytes && r.scan.Valid(); r.scan.Next() {
		value, err := r.scan.Value()
		if err != nil {
			return nil, err
		}
		b = format.AppendSnapshotRecord(b, r.scan.Key(), r.scan.Revision(), value, r.scan.Deleted())
	}
	if err := r.scan.Err(); err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, io.EOF
	}
	r.bytes += int64(len(b))
	if r.copy != nil {
		r.copy.sent.Store(r.bytes)
	}
	return b, nil
}

// Sink receives one snapshot into a fresh instance.
type Sink struct {
	h        *Host
	header   *api.SnapshotHeader
	message  *raftpb.Message
	state    format.State
	instance *instance
	closed   bool
	bytes    int64
}

// incoming is a complete, durable snapshot that raft is asked to take.
type incoming struct {
	sink *Sink
	done func(error)
	// switching: the loop's batch has the switch.
	switching bool
}

// ReceiveSnapshot starts to receive; the caller ends the Sink with Finish,
// FinishAsync or Abort.
func (h *Host) ReceiveSnapshot(header *api.SnapshotHeader) (*Sink, error) {
	if header.GetToNode() != string(h.opt.Node) {
		return nil, fault.New(fault.FailedPrecondition, "the snapshot is for another node", "to", header.GetToNode(), "node", h.opt.Node)
	}
	m := &raftpb.Message{}
	if err := proto.Unmarshal(header.GetRaft(), m); err != nil || m.GetType() != raftpb.MsgSnap {
		return nil, fault.New(fault.Corruption, "the snapshot's header is malformed", "group", header.GetGroup())
	}
	s, err := format.DecodeState(header.GetState())
	if err != nil {
		return nil, err
	}
	if at := m.GetSnapshot().GetMetadata().GetIndex(); at != uint64(s.Index) {
		return nil, fault.New(fault.Corruption, "the snapshot's state is of another index", "group", header.GetGroup(), "index", at, "actual", s.Index)
	}
	h.receiving.Add(1)
	return &Sink{h: h, header: header, message: m, state: s,
		instance: &instance{id: keyspace.InstanceID(h.nextInstance.Add(1))}}, nil
}

// Write adds records of the stream, which come in key order.
func (s *Sink) Write(records []byte) error {
	if s.h.opt.Witness {
		return fault.New(fault.FailedPrecondition, "a witness takes no records", "group", s.header.GetGroup())
	}
	var writes []engine.Write
	s.bytes += int64(len(records))
	for len(records) > 0 {
		key, rev, value, del, rest, err := format.NextSnapshotRecord(records)
		if err != nil {
			return err
		}
		full := append(keyspace.AppendInstance(make([]byte, 0, 8+len(key)), s.instance.id), key...)
		writes = append(writes, engine.Write{Key: full, Revision: rev, Value: slices.Clone(value), Delete: del})
		records = rest
	}
	return s.h.opt.Engine.Write(s.h.ctx, writes)
}

// Finish makes the records durable and asks raft to take the snapshot. It
// returns nil once the switch is on disk.
func (s *Sink) Finish() error {
	out := make(chan error, 1)
	s.FinishAsync(func(err error) { out <- err })
	select {
	case err := <-out:
		return err
	case <-s.h.ctx.Done():
		return fault.New(fault.Unavailable, "this node is stopping")
	}
}

// FinishAsync is Finish with a callback.
func (s *Sink) FinishAsync(done func(error)) {
	if !s.h.opt.Bugs.Has(invariant.BugSnapshotUndurable) {
		if err := s.h.opt.Engine.Sync(); err != nil {
			s.Abort()
			done(err)
			return
		}
	}
	s.h.control(func() { s.h.offerSnapshot(&incoming{sink: s, done: done}) })
}

// Abort gives up what was received.
func (s *Sink) Abort() {
	if s.closed {
		return
	}
	s.closed = true
	s.h.receiving.Add(-1)
	s.h.deleteInstance(s.instance)
}

// offerSnapshot steps the MsgSnap; raft takes or ignores it at once.
func (h *Host) offerSnapshot(in *incoming) {
	s := in.sink
	m := &inMessage{from: keyspace.NodeID(s.header.GetFromNode()), group: keyspace.GroupID(s.header.GetGroup()), raft: s.message}
	g := h.groupFor(h.groups[m.group], m)
	// On a full disk raft would take it only later, when refuseOffered has
	// given it up.
	if g == nil || g.incoming != nil || h.stalled {
		s.Abort()
		in.done(fault.New(fault.FailedPrecondition, "the replica does not take this snapshot", "group", m.group))
		return
	}
	g.nodes[keyspace.ReplicaID(s.message.GetFrom())] = m.from
	g.incoming = in
	h.offered = append(h.offered, g)
	h.asLearner(g, s.message)
	h.stepRaft(g, s.message)
}

// writeSwitch records the switch to a received snapshot in this loop's write.
func (h *Host) writeSwitch(g *group, snap *raftpb.Snapshot) {
	meta := snap.GetMetadata()
	invariant.Assert(g.incoming != nil && uint64(g.incoming.sink.state.Index) == meta.GetIndex(),
		"group %d: raft takes a snapshot at %d that was not received", g.id, meta.GetIndex())
	s := g.incoming.sink
	if floor := s.header.GetFloor(); floor > h.floor.Load() {
		h.floor.Store(floor)
		h.batch.SetMeta(floorMeta, binary.BigEndian.AppendUint64(nil, floor))
	}
	g.incoming.switching = true
	h.batch.Switch(g.id, raftlog.Checkpoint{Instance: s.instance.id, State: s.header.GetState(),
		Index: s.state.Index, Term: s.state.Term, ConfState: confOf(&s.state)})
}

// switched adopts the snapshot whose switch is durable.
func (h *Host) switched(g *group, _ *raftpb.Snapshot) {
	in := g.incoming
	g.incoming = nil
	old := g.instance
	g.instance = in.sink.instance
	for _, m := range g.applying { // entries that the snapshot covers
		for _, r := range m.GetResponses() {
			h.stepRaft(g, r)
		}
	}
	g.applying = nil
	h.opt.Store.Flushed(g.instance.id, in.sink.state.LastRev)
	g.core.Reset(g.instance.id, in.sink.state)
	g.imported = importedBy(g.core.State())
	g.saved, g.savedRev = in.sink.state.Index, in.sink.state.LastRev
	g.learnNodes(in.sink.state.Members)
	g.feed.jump(g.core)
	g.ended = nil
	g.locks.add(g.core.State().Prepared)
	h.publish(g)
	g.locks.keep(g.core.State().Prepared, g.core.State().LastRev)
	h.retireInstance(old)
	in.sink.closed = true
	h.receiving.Add(-1)
	if f := h.opt.Hooks.Snapshot; f != nil {
		f(false, in.sink.bytes)
	}
	h.opt.Logger.Info("snapshot installed", "group", g.id, "index", in.sink.state.Index, "bytes", in.sink.bytes)
	in.done(nil)
}

// refuseOffered ends snapshots that raft ignored in this loop.
func (h *Host) refuseOffered() {
	for _, g := range h.offered {
		if in := g.incoming; in != nil {
			g.incoming = nil
			in.sink.Abort()
			in.done(fault.New(fault.FailedPrecondition, "raft ignored the snapshot; the replica is already further", "group", g.id))
		}
	}
	clear(h.offered)
	h.offered = h.offered[:0]
}
