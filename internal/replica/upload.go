package replica

import (
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// upload is a large value on its way: its chunks are proposed as entries of
// their own between other entries, and the write that claims them follows in
// the same term (DESIGN 4). What is never claimed is deleted: by this leader
// in a later entry, else by the first entry of the next term.
type upload struct {
	req *Request
	op  *Op // nil for chunks that come with a move of slots
	// parts are those chunks, and at is the revision of their record.
	parts [][]byte
	at    keyspace.Revision
	stamp keyspace.Revision
	next  uint32 // chunks proposed so far
	count uint32
	size  int
	// term is the leadership it belongs to; a later one cannot claim it.
	term      keyspace.Term
	claimed   bool // the write that names it is proposed
	discarded bool
}

// startUpload begins to upload the large values of operations of r; false when
// there are none or all chunks are in the log.
func (c *Core) startUpload(r *Request, ops []Op, now Now) bool {
	started := false
	for i := range ops {
		op := &ops[i]
		if op.Delete || len(op.Value) <= c.cfg.ChunkBytes || c.owns(op.upload) {
			continue
		}
		n := (len(op.Value) + c.cfg.ChunkBytes - 1) / c.cfg.ChunkBytes
		op.upload = &upload{req: r, op: op, stamp: c.lead.stamp(now), count: uint32(n), size: len(op.Value), term: c.lead.term}
		c.lead.uploads = append(c.lead.uploads, op.upload)
		c.lead.open = append(c.lead.open, op.upload)
		started = true
	}
	return started
}

// owns reports whether u was made in the present term. The chunks of an earlier
// one were deleted by the first entry of this term.
func (c *Core) owns(u *upload) bool { return u != nil && u.term == c.lead.term }

// NextChunk builds the next chunk entry; nil when there is none. The host
// proposes it and calls Proposed or Dropped.
func (c *Core) NextChunk(now Now) []byte {
	l := c.lead
	if l == nil || l.transferTo != 0 && len(l.uploads) == 0 {
		return nil
	}
	for len(l.uploads) > 0 {
		u := l.uploads[0]
		if u.req.finished || u.discarded {
			l.uploads = l.uploads[1:]
			c.discard(u)
			continue
		}
		if u.next < u.count {
			// Round-robin over uploads, so that a large one does not hold up others.
			l.uploads = append(l.uploads[1:], u)
			return c.buildChunk(u, now)
		}
		l.uploads = l.uploads[1:]
		if r := u.req; !r.uploading(l) {
			c.requeue([]*Request{r})
		}
	}
	return nil
}

// uploading reports whether chunks of r are still to be proposed.
func (r *Request) uploading(l *leadership) bool {
	for _, u := range l.uploads {
		if u.req == r {
			return true
		}
	}
	return false
}

func (c *Core) buildChunk(u *upload, now Now) []byte {
	l := c.lead
	chunk, at := u.chunk(c.cfg.ChunkBytes)
	p := l.newProposal(l.clock + 1)
	p.upload, p.chunks = u, 1
	e := &format.Entry{Type: format.EntryChunk, Upload: u.stamp, Stamp: l.clock, Ceiling: c.nextCeiling(now), Closed: c.nextClosed(p.first),
		Writes: []format.Write{{Key: keyspace.AppendChunkKey(nil, u.stamp, u.next), Revision: at, Value: chunk}}}
	u.next++
	return c.launch(e, p, len(chunk))
}

// chunk is the next one, and the revision that it is written at: readers of the
// record look for it at that of the record.
func (u *upload) chunk(size int) ([]byte, keyspace.Revision) {
	if u.op == nil {
		return u.parts[u.next], u.at
	}
	lo := int(u.next) * size
	return u.op.Value[lo:min(lo+size, u.size)], u.stamp
}

// abandon gives up what r uploaded.
func (c *Core) abandon(r *Request) {
	for u := range r.uploads {
		c.discard(u)
	}
	for _, ops := range r.Sets() {
		for i := range ops {
			ops[i].upload = nil
		}
	}
	if r.Slots != nil {
		for i := range r.Slots.Keys {
			r.Slots.Keys[i].uploads = nil
		}
	}
}

func (c *Core) discard(u *upload) {
	if u.discarded || !c.owns(u) {
		return
	}
	u.discarded = true
	if u.next > 0 {
		c.lead.garbage = append(c.lead.garbage, u)
	}
}

// sweepUploads discards what requests uploaded that ended before their write,
// wherever they were then.
func (c *Core) sweepUploads() {
	kept := c.lead.open[:0]
	for _, u := range c.lead.open {
		switch {
		case u.claimed || u.discarded:
		case u.req.finished:
			c.discard(u)
		default:
			kept = append(kept, u)
		}
	}
	clear(c.lead.open[len(kept):])
	c.lead.open = kept
}

// dropGarbage adds the deletion of abandoned chunks to the entry.
func (c *Core) dropGarbage(b *building) {
	for _, u := range c.lead.garbage {
		c.lead.clock = max(c.lead.clock, u.stamp+1)
		b.deleteChunks(u.stamp, u.next, u.stamp+1)
		b.entry.Claims = append(b.entry.Claims, u.stamp)
	}
	b.p.garbage = append(b.p.garbage, c.lead.garbage...)
	c.lead.garbage = nil
}

// releaseUploads claims the chunks of a request that is being written.
func (c *Core) releaseUploads(r *Request, b *building) {
	for u := range r.uploads {
		b.entry.Claims = append(b.entry.Claims, u.stamp)
		u.claimed = true
	}
}
