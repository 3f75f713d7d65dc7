package replica

import (
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// Outcome is what an evaluation asks of the host.
type Outcome struct {
	// Payload, when not nil, must be proposed at once, followed by Proposed or
	// Dropped.
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
	now   Now
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
	b := building{now: now, p: &proposal{first: keyspace.MaxRevision, chain: l.chain, closed: l.closed, ceiling: l.ceiling}}
	taken, refused := c.evaluateQueue(&b, &out)
	c.queue.take(taken)
	c.dropGarbage(&b)
	if len(b.entry.Writes) > 0 || l.digest || b.pin || c.mustRaise(now) {
		out.Payload = c.seal(&b)
	}
	c.park(refused, &b, &out)
	return out
}

// evaluateQueue evaluates requests until the entry is full.
func (c *Core) evaluateQueue(b *building, out *Outcome) (taken int, refused []*Request) {
	for _, r := range c.queue.items {
		if b.bytes >= c.cfg.MaxEntryBytes || len(b.entry.Writes) >= c.cfg.MaxEntryOps {
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
		case verdictUpload:
		}
	}
	return taken, refused
}

type verdict uint8

const (
	verdictWrite verdict = iota
	verdictRefused
	verdictRefetch
	verdictUpload
)

// evaluate judges one request and, when it may happen, adds its writes.
func (c *Core) evaluate(r *Request, b *building) verdict {
	if r.Clock != nil {
		c.evaluateClock(r, b)
		return verdictRefused
	}
	curs := make([]current, len(r.Ops))
	for i := range r.Ops {
		cur, ok := c.look(&r.Ops[i])
		if !ok {
			return verdictRefetch
		}
		curs[i] = cur
	}
	judged := max(keyspace.RevisionAt(b.now.Physical), c.lead.clock+1)
	failed := false
	for i := range r.Ops {
		known, err := c.judge(&r.Ops[i], &curs[i], judged.UnixMilli())
		if !known {
			return verdictRefetch
		}
		r.Ops[i].Result = OpResult{Err: err}
		failed = failed || err != nil
	}
	if failed {
		c.abandon(r)
		abortOthers(r)
		c.pinExpiry(curs, judged, b)
		return verdictRefused
	}
	if c.startUpload(r, b.now) {
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
func abortOthers(r *Request) {
	if len(r.Ops) == 1 {
		return
	}
	for i := range r.Ops {
		if r.Ops[i].Result.Err == nil {
			r.Ops[i].Result.Err = fault.New(fault.BatchAborted, "another operation of the same atomic set failed")
		}
	}
}

// commit adds the finished records of a request under one stamp.
func (c *Core) commit(r *Request, curs []current, b *building, nowMilli int64) verdict {
	l := c.lead
	before := len(b.entry.Writes)
	for i := range r.Ops {
		op, h := &r.Ops[i], &curs[i].header
		if op.Delete && !h.Exists(nowMilli) {
			op.Result = OpResult{}
			continue
		}
		if len(b.entry.Writes) == before {
			stamp := l.stamp(b.now)
			b.p.first = min(b.p.first, stamp)
		}
		c.write(op, h, l.clock, b)
	}
	c.releaseUploads(r, b)
	if len(b.entry.Writes) == before {
		return verdictRefused // deletes of absent keys: an answer without a write
	}
	return verdictWrite
}

func (c *Core) write(op *Op, old *format.Header, stamp keyspace.Revision, b *building) {
	rec := newRecord(op, old, stamp)
	value := format.AppendRecord(make([]byte, 0, len(rec.Value)+len(rec.ContentType)+64), &rec)
	b.add(format.Write{Key: op.diskKey, Revision: stamp, Value: value})
	if old.Flags&format.FlagChunked != 0 && old.Flags&format.FlagTombstone == 0 {
		b.deleteChunks(old.Chunks.Upload, old.Chunks.Count, stamp)
	}
	c.remember(string(op.diskKey), pendingWrite{value: value, rev: stamp, seq: c.lead.proposed + 1}, b.p)
	op.Result = OpResult{Existed: old.Exists(stamp.UnixMilli()), Version: rec.Version, Revision: stamp,
		Created: rec.Created, Expires: rec.Expires}
}

// remember puts a version into the overlay, with what undoes it.
func (c *Core) remember(key string, w pendingWrite, p *proposal) {
	old, had := c.lead.overlay[key]
	p.undo = append(p.undo, undo{key: key, old: old, had: had})
	p.keys = append(p.keys, key)
	c.lead.overlay[key] = w
}

func newRecord(op *Op, old *format.Header, stamp keyspace.Revision) format.Record {
	rec := format.Record{Header: format.Header{Version: 1, Revision: stamp, Created: stamp}}
	if old.Exists(stamp.UnixMilli()) {
		rec.Version, rec.Created = old.Version+1, old.Created
	}
	if op.Delete {
		rec.Flags = format.FlagTombstone
		return rec
	}
	rec.ContentType, rec.Encoding, rec.Tags, rec.Metadata = op.ContentType, op.Encoding, op.Tags, op.Metadata
	rec.Size, rec.Checksum = uint64(len(op.Value)), op.Checksum
	switch {
	case op.TTL > 0:
		rec.Expires = stamp.UnixMilli() + op.TTL.Milliseconds()
	case op.ExpiresAt > 0:
		rec.Expires = op.ExpiresAt
	}
	if op.upload != nil {
		rec.Flags |= format.FlagChunked
		rec.Chunks = format.ChunkRef{Upload: op.upload.stamp, Count: op.upload.count}
		return rec
	}
	rec.Value = op.Value
	return rec
}

func (b *building) add(w format.Write) {
	b.entry.Writes = append(b.entry.Writes, w)
	b.bytes += len(w.Key) + len(w.Value) + 16
}

func (b *building) deleteChunks(upload keyspace.Revision, count uint32, at keyspace.Revision) {
	for n := range count {
		b.add(format.Write{Key: keyspace.AppendChunkKey(nil, upload, n), Revision: at, Delete: true})
	}
}
