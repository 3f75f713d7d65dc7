package host

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// readWaiter is somebody who waits for permission to read: a caller here, or
// (remote) a follower that asked this leader.
type readWaiter struct {
	group    keyspace.GroupID
	done     func(ReadPoint, error)
	deadline time.Duration
	calls    int // operations that wait with it, 0 for one
	// atLeast is the clock the reader needs; its ceiling must be applied.
	atLeast keyspace.Revision
}

func (w *readWaiter) several() bool { return w.calls > 1 }

// readBatch is one ReadIndex under way for all readers that waited.
type readBatch struct {
	waiters    []*readWaiter
	calls      int
	evaluation uint64
	term       keyspace.Term
	at         time.Duration
	remote     bool // asked of the leader on another node
	point      ReadPoint
}

// readState is a group's reads, by stage. A read goes from waiting, into a
// batch that one ReadIndex confirms, to applied, where it waits until the
// confirmed index is applied here. Batches that raft loses silently are asked
// again under a fresh id.
type readState struct {
	waiting    []*readWaiter
	batches    map[uint64]*readBatch
	applied    []*readBatch
	evaluation uint64 // refusals up to it wait for a ReadIndex
	count      int    // waiters in all stages
	// doubled counts how often in a row confirmations did not come in time; each
	// one doubles the patience with the next.
	doubled int
	// last is how many readers the last batch had, 0 where one had several operations;
	// since when the oldest of waiting came; held: they wait for others, or for what is
	// under way.
	last  int
	since time.Duration
	held  bool
}

// maxDoubled bounds the patience with a confirmation at eight times half an
// election timeout.
const maxDoubled = 3

// A next confirmation costs as much as the last, whatever it serves. Where few operations
// wait the machine has time to spare, and what counts is how long each waits; where many
// do, each confirmation is to serve all of a round trip. So one more may start while fewer
// than maxOverlap are under way, for fewer than overlapCalls operations together. Those
// older than confirmRecent do not count: the network is slow then.
const (
	maxOverlap    = 3
	overlapCalls  = 16
	confirmRecent = 5 * time.Millisecond
)

// gatherFor bounds how long the first of many readers waits for the others;
// gatherMany is how many they must be.
const (
	gatherFor  = time.Millisecond
	gatherMany = 8
)

// wanted reports whether somebody waits for a confirmation.
func (s *readState) wanted() bool { return len(s.waiting) > 0 || s.evaluation > 0 }

// dueIn is how long to wait at mono before a confirmation may start, 0 when one may now:
// until the oldest of the recent ones does not count.
func (s *readState) dueIn(mono time.Duration) time.Duration {
	recent, calls, left := 0, 0, confirmRecent
	for _, b := range s.batches {
		if age := mono - b.at; age < confirmRecent {
			recent, calls, left = recent+1, calls+b.calls, min(left, confirmRecent-age)
		}
	}
	if recent < maxOverlap && calls < overlapCalls {
		return 0
	}
	return left
}

// gather returns how long the readers that wait shall wait for others. Callers
// that were answered together come back together: the first of them would start
// a confirmation for itself alone, and the rest would wait for it to end. So as
// many as last time are awaited, for a moment. Few readers wait for nobody, and
// those with several operations neither: how many frames their callers come back
// in differs each time.
func (s *readState) gather(mono time.Duration) time.Duration {
	if s.evaluation > 0 || s.last < gatherMany || len(s.waiting) >= s.last || slices.ContainsFunc(s.waiting, (*readWaiter).several) {
		return 0
	}
	return max(0, s.since+gatherFor-mono)
}

func (s *readState) failAll(err error) {
	fail := func(b *readBatch) {
		for _, w := range b.waiters {
			w.done(ReadPoint{}, err)
		}
	}
	fail(&readBatch{waiters: s.waiting})
	for _, id := range slices.Sorted(maps.Keys(s.batches)) {
		fail(s.batches[id])
	}
	for _, b := range s.applied {
		fail(b)
	}
	*s = readState{}
}

// ReadIndex asks for a linearizable ReadPoint of a group hosted here, leader
// or follower. done is called once, on the loop or here, and must not block.
func (h *Host) ReadIndex(ctx context.Context, id keyspace.GroupID, done func(ReadPoint, error)) {
	h.readIndex(ctx, id, 0, done)
}

func (h *Host) readIndex(ctx context.Context, id keyspace.GroupID, atLeast keyspace.Revision, done func(ReadPoint, error)) {
	h.ask([]readWaiter{{group: id, done: done, deadline: h.deadline(ctx), atLeast: atLeast}})
}

// Read asks for a linearizable ReadPoint of a group hosted here.
type Read struct {
	Group keyspace.GroupID
	// Calls is how many operations wait for it.
	Calls int
	// Deadline is when the wait for it ends, on env.Clock.Mono.
	Deadline time.Duration
	// Done is called once, on the loop, by ReadIndexAll or, with an error, on a
	// goroutine of the host, and must not block.
	Done func(ReadPoint, error)
}

// ReadIndexAll is ReadIndex for several groups. The loop takes them together,
// so that what it asks of a peer for all of them leaves in one frame.
func (h *Host) ReadIndexAll(reads []Read) {
	all := make([]readWaiter, 0, len(reads))
	for i := range reads {
		all = append(all, readWaiter{group: reads[i].Group, done: reads[i].Done, deadline: reads[i].Deadline, calls: reads[i].Calls})
	}
	h.ask(all)
}

// ask hands the loop those that it can serve and answers the others. It keeps
// the waiters.
func (h *Host) ask(all []readWaiter) {
	failed := h.Err() != nil
	asked := all[:0]
	for _, w := range all {
		switch {
		case failed:
			w.done(ReadPoint{}, fault.New(fault.Unavailable, "this node's storage failed"))
		case h.lookup(w.group) == nil:
			w.done(ReadPoint{}, errNotHosted(w.group))
		case h.watched.blocked.Load(), h.unfit.Load() && !h.leads(w.group):
			w.done(ReadPoint{}, errUnfit(w.group))
		default:
			asked = append(asked, w)
		}
	}
	if len(asked) == 0 || h.inbox.put(func(m *mail) {
		for i := range asked {
			m.reads = append(m.reads, &asked[i])
		}
	}) {
		return
	}
	for i := range asked {
		asked[i].done(ReadPoint{}, errStopped())
	}
}

// leads reports whether this node leads a group, as far as it published.
func (h *Host) leads(id keyspace.GroupID) bool {
	g := h.lookup(id)
	if g == nil {
		return false
	}
	p := g.published.Load()
	return p != nil && p.leading
}

// deadline converts a context's deadline to the monotonic clock; 0 for none.
func (h *Host) deadline(ctx context.Context) time.Duration {
	at, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return h.opt.Clock.Mono() + time.Until(at)
}

func (h *Host) admitRead(w *readWaiter) {
	g := h.groups[w.group]
	if g == nil || g.core == nil {
		w.done(ReadPoint{}, errNotHosted(w.group))
		return
	}
	if g.reads.count >= h.opt.MaxWaitingReads {
		w.done(ReadPoint{}, h.errManyReads(g))
		return
	}
	if len(g.reads.waiting) == 0 {
		g.reads.since = h.opt.Clock.Mono()
	}
	g.reads.waiting = append(g.reads.waiting, w)
	g.reads.count++
	g.dirty = true
}

func (h *Host) errManyReads(g *group) error {
	return fault.New(fault.Overloaded, "too many reads wait for this group",
		"group", g.id, "limit", h.opt.MaxWaitingReads).WithRetry(h.opt.TickInterval)
}

// confirmReads starts one ReadIndex for everything that waits: raft's own on
// the leader, a message to the leader on a follower.
func (h *Host) confirmReads(g *group) {
	s := &g.reads
	s.held = false
	if !s.wanted() {
		return
	}
	mono := h.opt.Clock.Mono()
	if left := max(s.dueIn(mono), s.gather(mono)); left > 0 {
		s.held = true
		h.lookAgain(left)
		return
	}
	term, leading := g.core.Leading()
	switch {
	case leading && g.core.Serving(h.now(g)):
		ready, early := splitByCeiling(s.waiting, g.core.ReadCeiling())
		if len(early) > 0 && g.core.RaiseCeiling(latest(early)) {
			g.dirty = true
		}
		if s.waiting = early; len(ready) == 0 && s.evaluation == 0 {
			return
		}
		id := h.newBatch(g, &readBatch{waiters: ready, evaluation: s.evaluation, term: term})
		s.evaluation = 0
		g.rn.ReadIndex(binary.BigEndian.AppendUint64(nil, id))
	case !leading && g.leader != 0 && g.nodes[g.leader] != "" && len(s.waiting) > 0:
		b := &readBatch{waiters: s.waiting, remote: true}
		s.waiting = nil
		id := h.newBatch(g, b)
		h.opt.Out.Send(g.nodes[g.leader], &api.GroupMessage{Group: uint32(g.id), Body: &api.GroupMessage_ReadIndex{
			ReadIndex: &api.ReadIndexRequest{Id: id, FromReplica: uint64(g.replica), AtLeast: uint64(latest(b.waiters)),
				Term: g.rn.BasicStatus().GetTerm()}}})
	}
}

// lookAgain bounds how long the loop waits for mail.
func (h *Host) lookAgain(left time.Duration) {
	if h.gathering == 0 || left < h.gathering {
		h.gathering = left
	}
}

// splitByCeiling sets those apart who need a clock beyond the applied ceiling:
// an entry has to raise it first (DESIGN 6).
func splitByCeiling(waiters []*readWaiter, ceiling keyspace.Revision) (ready, early []*readWaiter) {
	if latest(waiters) <= ceiling {
		return waiters, nil
	}
	for _, w := range waiters {
		if w.atLeast > ceiling {
			early = append(early, w)
		} else {
			ready = append(ready, w)
		}
	}
	return ready, early
}

func latest(waiters []*readWaiter) (t keyspace.Revision) {
	for _, w := range waiters {
		t = max(t, w.atLeast)
	}
	return t
}

func (h *Host) newBatch(g *group, b *readBatch) uint64 {
	h.nextRead++
	g.reads.last = len(b.waiters)
	b.at = h.opt.Clock.Mono()
	for _, w := range b.waiters {
		b.calls += max(1, w.calls)
	}
	if b.calls > len(b.waiters) {
		g.reads.last = 0
	}
	if f := h.opt.Hooks.ReadBatch; f != nil {
		f(len(b.waiters))
	}
	if g.reads.batches == nil {
		g.reads.batches = make(map[uint64]*readBatch)
	}
	g.reads.batches[h.nextRead] = b
	return h.nextRead
}

// readConfirmed takes raft's confirmation on the leader.
func (h *Host) readConfirmed(g *group, rs *raft.ReadState) {
	if len(rs.RequestCtx) != 8 {
		return
	}
	id := binary.BigEndian.Uint64(rs.RequestCtx)
	b := g.reads.batches[id]
	if b == nil {
		return
	}
	delete(g.reads.batches, id)
	if len(g.reads.batches) == 0 {
		clear(g.beats.held) // nobody waits for what they ask
	}
	if term, leading := g.core.Leading(); !leading || term != b.term {
		g.reads.waiting = append(g.reads.waiting, b.waiters...)
		g.dirty = true
		return
	}
	if b.evaluation > 0 {
		g.core.Confirmed(b.term, b.evaluation)
	}
	now := h.now(g)
	b.point = ReadPoint{Group: g.id, Index: keyspace.Index(rs.Index), Clock: g.core.ReadClock(now), Physical: now.Physical}
	g.reads.applied = append(g.reads.applied, b)
	g.reads.doubled = 0
	g.dirty = g.dirty || g.reads.wanted()
}

// completeReads answers batches whose index is applied and published.
func (h *Host) completeReads(g *group) {
	if len(g.reads.applied) == 0 {
		return
	}
	s := g.core.State()
	kept := g.reads.applied[:0]
	for _, b := range g.reads.applied {
		if b.point.Index > s.Index && (!b.remote || !h.opt.Bugs.Has(invariant.BugFollowerReadEarly)) {
			kept = append(kept, b)
			continue
		}
		b.point.Rev, b.point.Index = s.LastRev, min(b.point.Index, s.Index)
		if !h.opt.Bugs.Has(invariant.BugReadUnowned) {
			b.point.Slots = s.Slots
		}
		g.reads.count -= len(b.waiters)
		for _, w := range b.waiters {
			w.done(b.point, nil)
		}
	}
	clear(g.reads.applied[len(kept):])
	g.reads.applied = kept
}

// requeueReads asks again after a change of leader.
func (h *Host) requeueReads(g *group) {
	s := &g.reads
	for _, id := range slices.Sorted(maps.Keys(s.batches)) {
		s.waiting = append(s.waiting, s.batches[id].waiters...)
		delete(s.batches, id)
	}
	s.evaluation, s.doubled = g.core.Unconfirmed(), 0
}

// retryReads is due once per tick, after raft gave out what it confirmed: a
// loop that is slower than the patience with a confirmation still takes it.
func (h *Host) retryReads() {
	mono := h.opt.Clock.Mono()
	for _, g := range h.order {
		h.retryGroup(g, mono)
	}
}

// retryGroup ends reads that are too late and repeats confirmations that were
// lost; raft drops ReadIndex requests silently.
func (h *Host) retryGroup(g *group, mono time.Duration) {
	s, late := &g.reads, false
	for _, id := range slices.Sorted(maps.Keys(s.batches)) {
		b := s.batches[id]
		if mono-b.at > h.opt.electionTimeout()/2<<s.doubled {
			late = true
			s.waiting = append(s.waiting, b.waiters...)
			s.evaluation = max(s.evaluation, g.core.Unconfirmed())
			delete(s.batches, id)
			g.dirty = true
		}
	}
	if late && s.doubled < maxDoubled {
		s.doubled++
	}
	s.waiting = s.dropLate(s.waiting, mono, g.id)
	g.dirty = g.dirty || s.wanted()
	for _, b := range s.applied {
		b.waiters = s.dropLate(b.waiters, mono, g.id)
	}
}

func (s *readState) dropLate(waiters []*readWaiter, mono time.Duration, id keyspace.GroupID) []*readWaiter {
	kept := waiters[:0]
	for _, w := range waiters {
		if w.deadline != 0 && mono > w.deadline {
			w.done(ReadPoint{}, fault.New(fault.DeadlineExceeded, "the deadline passed before the read was confirmed", "group", id))
			continue
		}
		kept = append(kept, w)
	}
	s.count -= len(waiters) - len(kept)
	clear(waiters[len(kept):])
	return kept
}

// serveReadIndex answers a follower that asks this leader.
func (h *Host) serveReadIndex(g *group, from keyspace.NodeID, r *api.ReadIndexRequest) {
	reply := func(p ReadPoint, err error) {
		h.releaseCommits(g, from)
		h.opt.Out.Send(from, &api.GroupMessage{Group: uint32(g.id), Body: &api.GroupMessage_ReadIndexReply{
			ReadIndexReply: &api.ReadIndexReply{Id: r.GetId(), Index: uint64(p.Index), Clock: uint64(p.Clock),
				Refused: err != nil, Physical: uint64(p.Physical)}}})
	}
	if _, leading := g.core.Leading(); !leading {
		reply(ReadPoint{}, errNotHosted(g.id))
		return
	}
	if p, ok := h.vouched(g, r); ok {
		reply(p, nil)
		return
	}
	// How many wait there is not known.
	h.admitRead(&readWaiter{group: g.id, done: reply, atLeast: keyspace.Revision(r.GetAtLeast()), calls: overlapCalls,
		deadline: h.opt.Clock.Mono() + h.opt.electionTimeout()})
}

// readReplied takes the leader's answer on a follower.
func (h *Host) readReplied(g *group, r *api.ReadIndexReply) {
	b := g.reads.batches[r.GetId()]
	if b == nil || !b.remote {
		return
	}
	if r.GetRefused() {
		b.at = h.opt.Clock.Mono() - h.opt.electionTimeout()<<maxDoubled // asked again at the next tick
		return
	}
	delete(g.reads.batches, r.GetId())
	b.point = ReadPoint{Group: g.id, Index: keyspace.Index(r.GetIndex()), Clock: keyspace.Revision(r.GetClock()),
		Physical: int64(r.GetPhysical())}
	g.reads.applied = append(g.reads.applied, b)
	g.reads.doubled = 0
	g.dirty = g.dirty || g.reads.wanted()
}

// awaitIndex waits until a replica here has applied index.
func (h *Host) awaitIndex(ctx context.Context, id keyspace.GroupID, index keyspace.Index) error {
	if g := h.lookup(id); g != nil {
		if p := g.published.Load(); p != nil && p.index >= index {
			return nil
		}
	}
	out := make(chan error, 1)
	w := &readWaiter{group: id, deadline: h.deadline(ctx), done: func(_ ReadPoint, err error) { out <- err }}
	h.control(func() { h.admitIndex(w, index) })
	select {
	case err := <-out:
		return err
	case <-ctx.Done():
		return fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "the replica did not catch up in time", "group", id, "index", index)
	case <-h.done:
		return fault.New(fault.Unavailable, "this node stopped", "group", id)
	}
}

// admitIndex lets w wait beside the confirmed reads for an index to be applied.
func (h *Host) admitIndex(w *readWaiter, index keyspace.Index) {
	g := h.groups[w.group]
	switch {
	case g == nil || g.core == nil:
		w.done(ReadPoint{}, errNotHosted(w.group))
	case g.reads.count >= h.opt.MaxWaitingReads:
		w.done(ReadPoint{}, h.errManyReads(g))
	default:
		g.reads.count++
		g.reads.applied = append(g.reads.applied, &readBatch{
			waiters: []*readWaiter{w}, point: ReadPoint{Group: g.id, Index: index}})
	}
}
