package replica

import (
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// ImportKey is a key that comes to the group, or goes, with a move of slots.
type ImportKey struct {
	format.ExportKey
	fetch   Fetched
	uploads []*upload // of versions with chunks, by number; nil without any
}

// SetFetched takes the result of a prefetch.
func (k *ImportKey) SetFetched(f Fetched) { k.fetch = f }

// bytes is what an import's keys take, without chunks: those count as uploads.
func (op *SlotOp) bytes() (n int) {
	for i := range op.Keys {
		k := &op.Keys[i]
		for v := range k.Versions {
			n += len(k.Key) + len(k.Versions[v].Value) + 64
		}
	}
	return n
}

// arrival is what an import finds of one key: its newest version here, and the
// first of the import's versions that is newer.
type arrival struct {
	key   *ImportKey
	cur   current
	first int
}

// evaluateImport adds the records of an import, or the deletions of a purge.
//
// Versions come in ascending order, over all imports of a move and of cancelled
// ones before it, and a key's history is the same wherever it was: what is not
// above the newest version here is here, and is skipped. So a page may be
// imported again whatever became of it, and versions of a key are inserted in
// order, which deltas need. The group's clock moves to what it takes, as a
// snapshot reaches up to it; nobody reads the slots before they are accepted, so
// that closed revisions do not bind these writes.
//
// Chunks are numbered by uploads, which are unique in a group only: each chunked
// version becomes an upload of this group, its chunks go ahead like those of any
// large value, but at the version's own revision, and this entry claims them.
func (c *Core) evaluateImport(r *Request, b *building) verdict {
	op := r.Slots
	found, known := c.lookForKeys(op)
	if !known {
		return verdictRefetch
	}
	if op.Change.Kind == format.SlotPurged {
		return c.refusing(r, c.purge(found, b))
	}
	if err := c.checkImport(found); err != nil {
		return c.refusing(r, err)
	}
	started, err := c.uploadImport(r, found, b.now)
	if err != nil {
		return c.refusing(r, err)
	}
	if started {
		return verdictUpload
	}
	for i := range found {
		c.arrive(&found[i], b)
	}
	c.releaseUploads(r, b)
	return verdictWrite
}

// refusing ends an import with an error, if there is one.
func (c *Core) refusing(r *Request, err error) verdict {
	if err == nil {
		return verdictWrite
	}
	c.abandon(r)
	r.Slots.Result.Err = err
	return verdictRefused
}

// lookForKeys finds the newest version of every data key; known is false when one
// has to be fetched again.
func (c *Core) lookForKeys(op *SlotOp) (found []arrival, known bool) {
	found = make([]arrival, 0, len(op.Keys))
	for i := range op.Keys {
		k := &op.Keys[i]
		if keyspace.KindOf(k.Key) == keyspace.KindChunk && op.Change.Kind == format.SlotPurged {
			continue // chunks go with their record
		}
		cur, ok := c.look(k.Key, &k.fetch)
		if !ok {
			return nil, false
		}
		found = append(found, arrival{key: k, cur: cur})
	}
	return found, true
}

// checkImport refuses what no sender sends, and finds what is new here.
func (c *Core) checkImport(found []arrival) error {
	in := c.slots().In
	for i := range found {
		a := &found[i]
		if err := inSlots(a.key.Key, &in.Slots); err != nil {
			return err
		}
		last := keyspace.Revision(0)
		for n := range a.key.Versions {
			v := &a.key.Versions[n]
			if v.Revision <= last || v.Revision == keyspace.MaxRevision {
				return fault.New(fault.InvalidArgument, "versions of an imported key do not ascend", "revision", uint64(v.Revision), "after", uint64(last))
			}
			if last = v.Revision; last <= a.cur.header.Revision {
				a.first = n + 1
			}
		}
	}
	return nil
}

// inSlots requires that a data key lies in one of the slots.
func inSlots(key []byte, slots *format.SlotSet) error {
	ns, name, err := keyspace.DecodeDataKey(key)
	if err != nil {
		return fault.Wrap(fault.InvalidArgument, err, "not a key of a record")
	}
	if slot := keyspace.SlotOf(ns, string(name)); !slots.Has(slot) {
		return fault.New(fault.InvalidArgument, "a key is not of the slots that move", "slot", slot)
	}
	return nil
}

// uploadImport begins to upload the chunks that are not; started when there are
// any. The clock moves to all that comes, so that uploads are stamped above it.
func (c *Core) uploadImport(r *Request, found []arrival, now Now) (started bool, err error) {
	l := c.lead
	for i := range found {
		a := &found[i]
		for n := range a.key.Versions {
			v := &a.key.Versions[n]
			h, err := headerOf(v)
			if err != nil {
				return false, err
			}
			l.clock = max(l.clock, v.Revision)
			switch {
			case n < a.first:
				c.dropUpload(a.key, n)
			case h.Flags&format.FlagChunked == 0 || a.key.upload(n) != nil && c.owns(a.key.upload(n)):
			default:
				u := &upload{req: r, parts: v.Chunks, at: v.Revision, stamp: l.stamp(now), count: h.Chunks.Count,
					size: sizeOf(v.Chunks), term: l.term}
				a.key.setUpload(n, u)
				l.uploads, l.open = append(l.uploads, u), append(l.open, u)
				started = true
			}
		}
	}
	return started, nil
}

// headerOf decodes what arrives of a version and requires its chunks.
func headerOf(v *format.ExportVersion) (h format.Header, err error) {
	if v.Delete {
		return format.Header{}, nil
	}
	if h, err = format.DecodeHeader(v.Value, v.Revision); err == nil && h.Flags&format.FlagChunked != 0 {
		_, err = format.DecodeRecord(v.Value, v.Revision) // it will be written anew
	}
	switch {
	case err != nil:
		return h, fault.Wrap(fault.InvalidArgument, err, "an imported record does not decode")
	case h.Flags&format.FlagChunked != 0 && len(v.Chunks) != int(h.Chunks.Count):
		return h, fault.New(fault.InvalidArgument, "an imported record lacks chunks", "chunks", len(v.Chunks), "need", h.Chunks.Count)
	}
	return h, nil
}

func sizeOf(parts [][]byte) (n int) {
	for _, p := range parts {
		n += len(p)
	}
	return n
}

func (k *ImportKey) upload(n int) *upload {
	if k.uploads == nil {
		return nil
	}
	return k.uploads[n]
}

func (k *ImportKey) setUpload(n int, u *upload) {
	if k.uploads == nil {
		k.uploads = make([]*upload, len(k.Versions))
	}
	k.uploads[n] = u
}

// dropUpload gives up chunks of a version that came here otherwise.
func (c *Core) dropUpload(k *ImportKey, n int) {
	if u := k.upload(n); u != nil {
		c.discard(u)
		k.uploads[n] = nil
	}
}

// arrive adds the versions of a key that are new here; the deadline of the newest
// goes into the index.
func (c *Core) arrive(a *arrival, b *building) {
	prev := a.cur.header
	var last keyspace.Revision
	versions := a.key.Versions[a.first:]
	for n := range versions {
		v := &versions[n]
		if v.Delete && prev.Version == 0 {
			continue // there is nothing to delete
		}
		b.deleteChunksOf(&prev, v.Revision)
		value, h := v.Value, format.Header{}
		if !v.Delete {
			value, h = rewritten(v, a.key.upload(a.first+n))
		}
		b.add(format.Write{Key: a.key.Key, Revision: v.Revision, Value: value, Delete: v.Delete})
		c.remember(pending{key: string(a.key.Key), value: value, rev: v.Revision, del: v.Delete}, b.p)
		prev, last = h, v.Revision
	}
	if last != 0 {
		b.indexDeadline(a.key.Key, a.cur.header.Expires, prev.Expires, last)
	}
}

// rewritten is an arriving record that names the upload its chunks have here.
func rewritten(v *format.ExportVersion, u *upload) ([]byte, format.Header) {
	h, err := format.DecodeHeader(v.Value, v.Revision)
	if err == nil && u == nil {
		return v.Value, h
	}
	rec, err := format.DecodeRecord(v.Value, v.Revision)
	invariant.Assert(err == nil, "an imported record at %v decoded before and does not now: %v", v.Revision, err)
	rec.Chunks = format.ChunkRef{Upload: u.stamp, Count: u.count}
	return format.AppendRecord(nil, &rec), rec.Header
}

// purge adds the deletion of keys that the group gave away.
func (c *Core) purge(found []arrival, b *building) error {
	gone := &c.slots().Gone
	for i := range found {
		if err := inSlots(found[i].key.Key, gone); err != nil {
			return err
		}
	}
	stamp := c.lead.stamp(b.now)
	b.p.first = min(b.p.first, stamp)
	for i := range found {
		a := &found[i]
		if a.cur.header.Version == 0 {
			continue
		}
		b.deleteChunksOf(&a.cur.header, stamp)
		b.indexDeadline(a.key.Key, a.cur.header.Expires, 0, stamp)
		b.add(format.Write{Key: a.key.Key, Revision: stamp, Delete: true})
		c.remember(pending{key: string(a.key.Key), rev: stamp, del: true}, b.p)
	}
	return nil
}
