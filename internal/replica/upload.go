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
	req   *Request
	op    *Op
	stamp keyspace.Revision
	next  uint32 // chunks proposed so far
	count uint32
	size  int
	// term is the leadership it belongs to; a later one cannot claim it.
	term      keyspace.Term
	claimed   bool // the write that names it is proposed
	discarded bool
}

// startUpload begins to upload the large values of r; false when there are
// none or all chunks are in the log.
func (c *Core) startUpload(r *Request, now Now) bool {
	started := false
	for i := range r.Ops {
		op := &r.Ops[i]
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
	lo := int(u.next) * c.cfg.ChunkBytes
	hi := min(lo+c.cfg.ChunkBytes, u.size)
	p := &proposal{first: l.clock + 1, chain: l.chain, closed: l.closed, ceiling: l.ceiling, upload: u, chunks: 1}
	e := &format.Entry{Type: format.EntryChunk, Upload: u.stamp, Stamp: l.clock, Ceiling: c.nextCeiling(now), Closed: c.nextClosed(p.first),
		Writes: []format.Write{{Key: keyspace.AppendChunkKey(nil, u.stamp, u.next), Revision: u.stamp, Value: u.op.Value[lo:hi]}}}
	u.next++
	return c.launch(e, p, hi-lo)
}

// abandon gives up what r uploaded.
func (c *Core) abandon(r *Request) {
	for i := range r.Ops {
		if u := r.Ops[i].upload; u != nil {
			c.discard(u)
			r.Ops[i].upload = nil
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
	for i := range r.Ops {
		if u := r.Ops[i].upload; u != nil {
			b.entry.Claims = append(b.entry.Claims, u.stamp)
			u.claimed = true
		}
	}
}
