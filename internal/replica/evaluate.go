package replica

import (
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// Outcome is what an evaluation asks of the host.
type Outcome struct {
	// Payload, when not nil, must be proposed at once, followed by Proposed or
	// Dropped. It may be changed by what is evaluated after it.
	Payload []byte
	// Refetch are requests whose prefetch is missing or was overtaken; the
	// host fetches again and enqueues them again.
	Refetch []*Request
	// Confirm, when not 0: refusals wait for a ReadIndex that starts now; the
	// host calls Confirmed with it once leadership is confirmed.
	Confirm uint64
}

// building collects one entry.
type building struct {
	entry format.Entry
	p     *proposal
	bytes int
	// values is the block for records, and room how much the request at hand may still
	// need.
	values []byte
	room   int
	now    Now
	// pin asks for an entry even without writes: a refusal was judged at a time
	// that no applied ceiling covers.
	pin bool
}

// Evaluate takes waiting requests in order and builds at most one entry from
// them. It evaluates nothing before Serving and nothing during a transfer.
func (c *Core) Evaluate(now Now) Outcome {
	var out Outcome
	l := c.lead
	if l == nil || !l.appliedOwn || (!c.Serving(now) && !c.cfg.Bugs.Has(invariant.BugEvaluateEarly)) {
		return out
	}
	if l.transferTo != 0 {
		out.Payload = c.buildLowering()
		return out
	}
	c.letThrough(now.Mono)
	b := building{now: now, p: l.newProposal(keyspace.MaxRevision)}
	l.spare.lend(&b)
	refused := c.evaluateQueue(&b, &out)
	if c.letThrough(now.Mono) {
		refused = append(refused, c.evaluateQueue(&b, &out)...)
	}
	if b.entry.Slots == nil {
		c.dropGarbage(&b)
	}
	if b.entry.Slots != nil || len(b.entry.Writes) > 0 || b.entry.LowWater != 0 || l.digest || b.pin || c.mustRaise(now) {
		out.Payload = c.seal(&b)
	}
	l.spare.takeBack(&b)
	c.park(refused, &b, &out)
	return out
}

// evaluateQueue evaluates requests until the entry is full, and takes them from
// the queue.
func (c *Core) evaluateQueue(b *building, out *Outcome) (refused []*Request) {
	taken := 0
	for taken < len(c.queue.items) {
		r := c.queue.items[taken]
		if b.bytes >= c.cfg.MaxEntryBytes || len(b.entry.Writes) >= c.cfg.MaxEntryOps || !b.takes(r) {
			break
		}
		taken++
		if r.finished {
			c.abandon(r)
			continue
		}
		switch c.evaluate(r, b) {
		case verdictWrite:
			b.p.requests = append(b.p.requests, r)
		case verdictRefused:
			r.refused = true
			refused = append(refused, r)
		case verdictRefetch:
			out.Refetch = append(out.Refetch, r)
		case verdictHeld:
			c.lead.holds.keep(r)
		case verdictUpload, verdictParked, verdictEnded:
		}
		c.forgetSeen()
		c.queue.insert(taken, c.lead.parking.takeWoken())
	}
	c.queue.take(taken)
	return refused
}

// takes reports whether a request may join the entry: a step of a move of slots
// is alone in its own.
func (b *building) takes(r *Request) bool {
	return b.entry.Slots == nil && (r.Slots == nil || len(b.entry.Writes) == 0 && b.entry.LowWater == 0)
}

type verdict uint8

const (
	verdictWrite verdict = iota
	verdictRefused
	verdictRefetch
	verdictUpload
	verdictParked
	verdictEnded // and answered
	verdictHeld
)

// evaluate judges one request and, when it may happen, adds its writes.
func (c *Core) evaluate(r *Request, b *building) verdict {
	r.denied = nil
	switch {
	case r.Clock != nil:
		c.evaluateClock(r, b)
		return verdictRefused
	case r.Low != nil:
		return c.evaluateLow(r, b)
	case r.Slots != nil:
		return c.evaluateSlots(r, b)
	case r.Order != nil:
		return c.evaluateOrder(r, b)
	case r.Forget != nil:
		return c.evaluateForget(r, b)
	}
	if r.Sweep != nil {
		return c.evaluateSweep(r, b)
	}
	if err := c.mayWrite(r); err != nil {
		return c.refuse(r, err)
	}
	if c.lead.holds.keeps(r, b.now.Mono) {
		return verdictHeld
	}
	if !r.ID.Zero() {
		if v, over := c.evaluateOnce(r, b); over {
			return v
		}
	}
	if locks := &c.lead.locks; len(locks.keys) > 0 {
		if holder, key := locks.holderOf(r); holder != nil {
			return c.parkBehind(r, holder, key, b.now)
		}
	}
	v := c.evaluateOps(r, b)
	if !r.ID.Zero() {
		return c.rememberOutcome(r, v, b)
	}
	return v
}

// evaluateOps judges operations, or a transaction, that nothing else keeps from
// happening.
func (c *Core) evaluateOps(r *Request, b *building) verdict {
	if r.Txn != nil {
		return c.evaluateTxn(r, b)
	}
	curs := c.currents(len(r.Ops))
	for i := range r.Ops {
		ok := false
		if curs[i], ok = c.look(r.Ops[i].diskKey, &r.Ops[i].fetch); !ok {
			return verdictRefetch
		}
	}
	return c.execute(r, curs, max(keyspace.RevisionAt(b.now.Physical), c.lead.clock+1), b)
}

// execute judges the operations of a request against what was seen of their
// keys, and adds their writes when all may happen.
func (c *Core) execute(r *Request, curs []current, judged keyspace.Revision, b *building) verdict {
	failed := false
	for i := range r.Ops {
		known, err := c.judge(&r.Ops[i], &curs[i], judged.UnixMilli())
		if !known {
			return verdictRefetch
		}
		if err == nil {
			err = r.Ops[i].late(judged.UnixMilli())
		}
		r.Ops[i].Result = OpResult{Err: err}
		failed = failed || err != nil
	}
	if failed {
		c.abandon(r)
		abortOthers(r.Ops)
		c.pinExpiry(curs, judged, b)
		return verdictRefused
	}
	if c.startUpload(r, r.Ops, b.now) {
		return verdictUpload
	}
	v := c.commit(r, curs, b, judged.UnixMilli())
	if v == verdictRefused {
		c.pinExpiry(curs, judged, b)
	}
	return v
}

// pinExpiry makes a refusal hold that took a record for expired at judged:
// group time must not be behind that again, here or on a later leader. What
// the applied ceiling does not cover takes an entry (DESIGN 6).
func (c *Core) pinExpiry(curs []current, judged keyspace.Revision, b *building) {
	l := c.lead
	known := max(l.read, l.floor, c.state.LastRev).UnixMilli()
	for i := range curs {
		h := &curs[i].header
		if h.Version == 0 || h.Exists(judged.UnixMilli()) || !h.Exists(known) {
			continue
		}
		l.clock = max(l.clock, judged)
		if judged <= c.ReadCeiling() {
			l.read = max(l.read, judged)
		} else {
			b.pin = true
		}
		return
	}
}

// abortOthers marks the operations that would have succeeded.
func abortOthers(ops []Op) {
	if len(ops) == 1 {
		return
	}
	for i := range ops {
		if ops[i].Result.Err == nil {
			ops[i].Result.Err = fault.New(fault.BatchAborted, "another operation of the same atomic set failed")
		}
	}
}

// commit adds the finished records of a request under one stamp.
func (c *Core) commit(r *Request, curs []current, b *building, nowMilli int64) verdict {
	l := c.lead
	before := len(b.entry.Writes)
	b.reserve(r)
	for i := range r.Ops {
		op, h := &r.Ops[i], &curs[i].header
		if op.Read {
			op.Result = readResult(h, nowMilli)
			continue
		}
		if op.Delete && !h.Exists(nowMilli) && !endsExpired(op, h) {
			op.Result = OpResult{}
			continue
		}
		if len(b.entry.Writes) == before {
			stamp := l.stamp(b.now)
			b.p.first = min(b.p.first, stamp)
		}
		c.write(op, &curs[i], l.clock, b)
	}
	c.releaseUploads(r, b)
	if len(b.entry.Writes) == before {
		return verdictRefused // reads and deletes of absent keys: an answer without a write
	}
	return verdictWrite
}

// endsExpired reports whether an end of a lease deletes a version that only expired.
func endsExpired(op *Op, h *format.Header) bool {
	return op.Ended != LeaseHolds && h.Version != 0 && h.Flags&format.FlagTombstone == 0
}

func (c *Core) write(op *Op, cur *current, stamp keyspace.Revision, b *building) {
	old := &cur.header
	var rec format.Record
	if op.Touch {
		rec = c.touched(op, cur, stamp)
	} else {
		rec = newRecord(op, old, stamp)
		b.deleteChunksOf(old, stamp)
	}
	value := c.encode(&rec, b)
	b.add(format.Write{Key: op.diskKey, Revision: stamp, Value: value})
	b.indexDeadline(op.diskKey, old.Expires, rec.Expires, stamp)
	key := op.diskKeyText()
	c.remember(pending{key: key, value: value, rev: stamp}, b.p)
	c.lead.recent.add(stamp, key)
	op.Result = OpResult{Existed: old.Exists(stamp.UnixMilli()), Version: rec.Version, Revision: stamp,
		Created: rec.Created, Expires: rec.Expires, Checksum: rec.Checksum, Detached: op.detaches(old)}
}

// detaches is the lease that the version which the operation replaces was attached
// to and the new one is not, "" for none.
func (op *Op) detaches(old *format.Header) string {
	if old.Flags&format.FlagTombstone != 0 || op.Touch || op.Ended != LeaseHolds || !op.Delete && old.Lease == op.Lease {
		return ""
	}
	return old.Lease
}

// forget takes the versions of p out of the overlay.
func (l *leadership) forget(p *proposal) {
	l.overlay.remove(p.pending)
	p.pending = nil
	l.spare.takeBlocks(p)
}

// remember puts a version into the overlay, for as long as p is in flight.
func (c *Core) remember(w pending, p *proposal) {
	w.next = p.pending
	p.pending = c.lead.overlay.push(w, c.lead.proposed+1)
}

func newRecord(op *Op, old *format.Header, stamp keyspace.Revision) format.Record {
	rec := nextVersion(old, stamp)
	rec.Lease = op.Lease
	if op.Delete {
		rec.Flags = format.FlagTombstone
		if op.Ended == LeaseExpired {
			rec.Flags |= format.FlagExpired
		}
		return rec
	}
	rec.ContentType, rec.Encoding, rec.Tags, rec.Metadata = op.ContentType, op.Encoding, op.Tags, op.Metadata
	rec.Size, rec.Checksum = uint64(len(op.Value)), op.Checksum
	rec.Expires = op.deadline(stamp)
	if op.upload != nil {
		rec.Flags |= format.FlagChunked
		rec.Chunks = format.ChunkRef{Upload: op.upload.stamp, Count: op.upload.count}
		return rec
	}
	rec.Value = op.Value
	return rec
}

// nextVersion is a record of nothing yet.
func nextVersion(old *format.Header, stamp keyspace.Revision) format.Record {
	rec := format.Record{Header: format.Header{Version: 1, Revision: stamp, Created: stamp}}
	if old.Exists(stamp.UnixMilli()) {
		rec.Version, rec.Created = old.Version+1, old.Created
	}
	return rec
}

// headerRoom is what a record has beside its value and texts, mostly.
const headerRoom = 48

// reserve makes room for the writes of a request.
func (b *building) reserve(r *Request) {
	n := 0
	b.room = 0
	for i := range r.Ops {
		if op := &r.Ops[i]; !op.Read {
			n++
			b.room += len(op.Value) + len(op.ContentType) + headerRoom
		}
	}
	if n == 0 {
		return
	}
	if !r.ID.Zero() {
		n++ // its record
	}
	b.entry.Writes = slices.Grow(b.entry.Writes, n)
}

// encode encodes a record, into a block of the proposal: records come and go together,
// in the log and in the overlay.
func (c *Core) encode(rec *format.Record, b *building) []byte {
	size := format.RecordSize(rec)
	if cap(b.values)-len(b.values) < size {
		b.values = c.lead.spare.block(size, b.room)
		b.p.blocks = append(b.p.blocks, b.values)
	}
	b.room -= size
	from := len(b.values)
	b.values = format.AppendRecord(b.values, rec)
	return b.values[from:len(b.values):len(b.values)]
}

func (b *building) add(w format.Write) {
	b.entry.Writes = append(b.entry.Writes, w)
	b.bytes += len(w.Key) + len(w.Value) + 16
}

// deleteChunksOf deletes what a replaced record referred to.
func (b *building) deleteChunksOf(old *format.Header, at keyspace.Revision) {
	if old.Flags&format.FlagChunked != 0 && old.Flags&format.FlagTombstone == 0 {
		b.deleteChunks(old.Chunks.Upload, old.Chunks.Count, at)
	}
}

func (b *building) deleteChunks(upload keyspace.Revision, count uint32, at keyspace.Revision) {
	for n := range count {
		b.add(format.Write{Key: keyspace.AppendChunkKey(nil, upload, n), Revision: at, Delete: true})
	}
}
