package host

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"slices"
	"sort"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/replica"
)

// PastRequest asks for what was written of user data between two revisions.
type PastRequest struct {
	Group keyspace.GroupID
	// After is exclusive, Until inclusive; what is not settled here is left out.
	After, Until keyspace.Revision
	// Spans are ranges of disk keys, in order and apart; none means all.
	Spans []Span
	// Slots are those whose keys are asked for, all of which the group has to own;
	// nil asks for all that it owns.
	Slots *format.SlotSet
	// Own asks instead for what the group's own log wrote, whoever owns it now. Where
	// the log does not reach back so far, records that were written elsewhere come
	// too.
	Own bool
	// MaxBytes bounds the page in bytes of keys and values, unless one revision
	// alone is larger.
	MaxBytes int
}

// Span is a range of disk keys; Upper is exclusive, empty means to the end.
type Span = replica.Span

// PastPage is the answer to a PastRequest.
type PastPage struct {
	// Writes are in the order of their revisions; those of one request have the
	// same and are all there. They must not be changed.
	Writes []format.Write
	// Upto: the page has all that was asked for up to this revision. It is After
	// where nothing further is settled here yet.
	Upto keyspace.Revision
	// Slots is what the replica's log says of its slots; nil when the group owns
	// all that is routed to it. Writes are of those that it owns, unless Own was
	// asked for.
	Slots *format.SlotState
	// Scanned: the page was made from the stored versions, which costs a walk over
	// all keys of the spans, and not from the log.
	Scanned bool
}

// Past returns a page of what was written in a group, from any replica. It reads
// the log while that reaches back to After, where work is proportional to what
// was written since; else it walks the stored versions of the keys in Spans once
// per page and sorts them by revision.
//
// A page has the keys of slots that the group owns in the state that is read, and
// of these all writes: those of former owners came with the slots, at their own
// revisions. The log tells them only from the last import on; before that it is
// history, and that is whole above the floor that came with the slots.
//
// Errors: out_of_range below the history floor, wrong_group when the group does
// not own the slots here and now, wrong_leader without a replica here.
func (h *Host) Past(ctx context.Context, r PastRequest) (PastPage, error) {
	g := h.lookup(r.Group)
	if g == nil || g.replica.Witness() {
		return PastPage{}, errNotHosted(r.Group)
	}
	p, err := g.acquire(h)
	if err != nil {
		return PastPage{}, err
	}
	defer p.instance.release(h)
	if r.Slots != nil && p.slots != nil && !p.slots.Owned.Contains(r.Slots) {
		return PastPage{}, fault.New(fault.WrongGroup, "the group does not own all of the slots", "group", r.Group, "owned", p.slots.Owned.String())
	}
	page, err := h.pastPage(ctx, g, p, &r)
	if err != nil {
		return PastPage{}, err
	}
	if p.slots != nil && !r.Own {
		page.Writes = slices.DeleteFunc(page.Writes, func(w format.Write) bool { return !p.slots.Owns(slotOf(w.Key)) })
	}
	page.Slots = p.slots
	return page, nil
}

func (h *Host) pastPage(ctx context.Context, g *group, p *published, r *PastRequest) (page PastPage, err error) {
	if err := h.aboveFloor(r.After); err != nil {
		return page, err
	}
	r.Until = min(r.Until, p.settled)
	if r.Until <= r.After {
		return PastPage{Upto: r.After}, nil
	}
	if r.MaxBytes <= 0 {
		r.MaxBytes = maxPageBytes
	}
	found := false
	if r.Own || r.After >= p.imported {
		page, found, err = h.pastOfLog(ctx, g, p, r)
	}
	if err == nil && !found {
		if p.slots != nil && r.After < p.slots.Floor {
			return page, belowFloor(r.After, p.slots.Floor)
		}
		page, err = h.pastOfHistory(ctx, p, r)
	}
	if err == nil {
		err = h.aboveFloor(r.After) // it may have risen meanwhile
	}
	return page, err
}

// slotOf is the slot of the disk key of a user's record.
func slotOf(key []byte) keyspace.SlotID {
	ns, name, err := keyspace.DecodeDataKey(key)
	invariant.Assert(err == nil, "the disk key %x was written and does not decode: %v", key, err)
	return keyspace.SlotOf(ns, string(name))
}

func (h *Host) aboveFloor(rev keyspace.Revision) error {
	if floor := keyspace.Revision(h.floor.Load()); rev < floor {
		return belowFloor(rev, floor)
	}
	return nil
}

func belowFloor(rev, floor keyspace.Revision) error {
	return fault.New(fault.OutOfRange, "the revision is older than the history that is kept",
		"revision", uint64(rev), "floor", uint64(floor))
}

// isUserKey reports whether a disk key is that of a record of a user's namespace.
func isUserKey(key []byte) bool {
	return bytes.Compare(key, userKeys.Lower) >= 0 && bytes.Compare(key, userKeys.Upper) < 0
}

// userKeys are the records of all namespaces between the cluster's own and those
// that are the store's.
var userKeys = Span{
	Lower: keyspace.AppendDataPrefix(nil, keyspace.SystemNamespace+1, nil),
	Upper: keyspace.AppendDataPrefix(nil, keyspace.FirstReservedNamespace, nil),
}

// within reports whether a key is in one of the spans.
func within(spans []Span, key []byte) bool {
	if len(spans) == 0 {
		return true
	}
	i := sort.Search(len(spans), func(i int) bool { return bytes.Compare(spans[i].Lower, key) > 0 }) - 1
	return i >= 0 && (len(spans[i].Upper) == 0 || bytes.Compare(key, spans[i].Upper) < 0)
}

// logSlice are entries of a group's log that are applied.
type logSlice struct {
	first   uint64 // kept
	applied uint64
	entries []*raftpb.Entry
}

// pastReadBytes bounds what the loop reads of a log at once.
const pastReadBytes = 512 << 10

// readLog reads applied entries from index on, on the loop, which owns the log.
// With one it reads a single entry.
func (h *Host) readLog(ctx context.Context, g *group, index uint64, one bool) (logSlice, error) {
	return onLoop(ctx, h, func() (s logSlice, err error) {
		if h.groups[g.id] != g {
			return s, errNotHosted(g.id)
		}
		s.applied = uint64(g.core.State().Index)
		if s.first, err = g.storage.FirstIndex(); err != nil || index < s.first || index > s.applied {
			return s, err
		}
		end := s.applied + 1
		if one {
			end = index + 1
		}
		s.entries, err = g.storage.Entries(index, end, pastReadBytes)
		if errors.Is(err, raft.ErrCompacted) {
			s.first, err = s.applied+1, nil
		}
		return s, err
	})
}

// pastOfLog makes a page from the log; found is false when the log does not tell
// all that was written since After.
//
// An entry may write below what earlier ones wrote, when it commits a transaction
// over several groups. So the page has the lowest revisions, and ends where an
// entry says that nothing is written any more up to its highest.
func (h *Host) pastOfLog(ctx context.Context, g *group, p *published, r *PastRequest) (page PastPage, found bool, err error) {
	next, found, err := h.findInLog(ctx, g, r.After)
	if err != nil || !found {
		return page, false, err
	}
	c := collector{limit: r.Until, maxBytes: r.MaxBytes}
	for next <= uint64(p.index) {
		s, err := h.readLog(ctx, g, next, false)
		if err != nil || len(s.entries) == 0 {
			return page, false, err
		}
		for _, raw := range s.entries {
			e, err := decodeLogged(raw)
			if err != nil {
				return page, false, err
			}
			next = raw.GetIndex() + 1
			if e == nil {
				continue
			}
			for _, w := range userWrites(e) {
				if w.Revision > r.After && w.Revision <= c.limit && within(r.Spans, w.Key) {
					c.add(w)
				}
			}
			if e.Closed >= c.limit {
				return c.page(), true, nil
			}
		}
	}
	return c.page(), true, nil // the limit is settled at p.index
}

// decodeLogged returns a normal entry, nil for one without a payload.
func decodeLogged(raw *raftpb.Entry) (*format.Entry, error) {
	if raw.GetType() != raftpb.EntryNormal || len(raw.GetData()) == 0 {
		return nil, nil
	}
	e := new(format.Entry)
	return e, format.DecodeEntry(raw.GetData(), e)
}

// findInLog returns the index of the first entry that may be stamped above rev.
// No entry writes above its stamp, so that those before it wrote nothing above rev.
// It is found only behind one that is not: entries that are gone may have been.
func (h *Host) findInLog(ctx context.Context, g *group, rev keyspace.Revision) (index uint64, found bool, err error) {
	s, err := h.readLog(ctx, g, 0, true)
	if err != nil {
		return 0, false, err
	}
	lo, hi := s.first, s.applied+1 // stamped at or below rev: those before lo; above: from hi on
	for lo < hi {
		mid := lo + (hi-lo)/2
		at, stamp, ok, err := h.stampBehind(ctx, g, mid, hi)
		if err != nil || !ok {
			return 0, false, err
		}
		if at < hi && stamp <= rev {
			lo, found = at+1, true
		} else {
			hi = mid
		}
	}
	return lo, found || s.first <= bootstrapIndex+1, nil
}

// stampBehind returns the first stamped entry at or behind index and before end;
// end when there is none.
func (h *Host) stampBehind(ctx context.Context, g *group, index, end uint64) (at uint64, stamp keyspace.Revision, ok bool, err error) {
	for ; index < end; index++ {
		s, err := h.readLog(ctx, g, index, true)
		if err != nil || len(s.entries) == 0 {
			return 0, 0, false, err
		}
		e, err := decodeLogged(s.entries[0])
		if err != nil {
			return 0, 0, false, err
		}
		if e != nil {
			return index, e.Stamp, true, nil
		}
	}
	return end, 0, true, nil
}

// pastOfHistory makes a page from the stored versions.
func (h *Host) pastOfHistory(ctx context.Context, p *published, r *PastRequest) (PastPage, error) {
	spans := r.Spans
	if len(spans) == 0 {
		spans = []Span{userKeys}
	}
	view := h.opt.Store.View()
	defer view.Close()
	c := collector{limit: r.Until, maxBytes: r.MaxBytes}
	for _, s := range spans {
		it := view.Scan(mvcc.ScanOptions{Instance: p.instance.id, Lower: s.Lower, Upper: s.Upper, At: r.Until, AllVersions: true})
		err := c.walk(ctx, it, r.After)
		it.Close()
		if err != nil {
			return PastPage{}, err
		}
	}
	page := c.page()
	page.Scanned = true
	return page, nil
}

// collector keeps the writes of the lowest revisions that fit maxBytes. Whole
// revisions go from the top; limit is the highest that is complete.
type collector struct {
	writes   byRevision
	bytes    int
	limit    keyspace.Revision
	lowest   keyspace.Revision
	maxBytes int
}

// walk adds what is above after.
func (c *collector) walk(ctx context.Context, it *mvcc.Scanner, after keyspace.Revision) error {
	for n := 0; it.Valid(); n++ {
		if n&1023 == 0 && ctx.Err() != nil {
			return fault.Wrap(fault.Canceled, ctx.Err(), "reading history was given up")
		}
		if rev := it.Revision(); rev > after && rev <= c.limit && !it.Deleted() && isUserKey(it.Key()) {
			value, err := it.Value()
			if err != nil {
				return err
			}
			c.add(format.Write{Key: slices.Clone(it.Key()), Revision: rev, Value: slices.Clone(value)})
		}
		it.Next()
	}
	return it.Err()
}

func (c *collector) add(w format.Write) {
	if len(c.writes) == 0 || w.Revision < c.lowest {
		c.lowest = w.Revision
	}
	heap.Push(&c.writes, w)
	c.bytes += writeBytes(&w)
	for c.bytes > c.maxBytes && c.writes[0].Revision > c.lowest {
		c.limit = c.writes[0].Revision - 1
		for c.writes[0].Revision > c.limit {
			gone := heap.Pop(&c.writes).(format.Write)
			c.bytes -= writeBytes(&gone)
		}
	}
}

// page is what was kept, in order.
func (c *collector) page() PastPage {
	slices.SortFunc(c.writes, func(a, b format.Write) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), bytes.Compare(a.Key, b.Key))
	})
	return PastPage{Writes: c.writes, Upto: c.limit}
}

// byRevision is a heap with the highest revision on top.
type byRevision []format.Write

func (w byRevision) Len() int           { return len(w) }
func (w byRevision) Less(i, j int) bool { return w[i].Revision > w[j].Revision }
func (w byRevision) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *byRevision) Push(x any)        { *w = append(*w, x.(format.Write)) }
func (w *byRevision) Pop() any {
	old := *w
	last := old[len(old)-1]
	old[len(old)-1] = format.Write{}
	*w = old[:len(old)-1]
	return last
}

// VersionAt returns the record that a disk key had at a revision that is settled
// here, with its value unless keysOnly; nil when there was none. One whose time was
// over and that was not swept yet is returned too. It is out_of_range below the
// history floor.
func (h *Host) VersionAt(id keyspace.GroupID, diskKey []byte, rev keyspace.Revision, keysOnly bool) (*format.Record, error) {
	g := h.lookup(id)
	if g == nil {
		return nil, errNotHosted(id)
	}
	r, err := h.lookAt(g, ReadPoint{Group: id, Rev: rev, Fixed: true})
	if err != nil {
		return nil, err
	}
	defer r.close()
	if g.published.Load().settled < rev {
		return nil, fault.New(fault.Unavailable, "the replica on this node has not come so far", "group", id, "revision", uint64(rev))
	}
	rec := new(format.Record)
	found, err := r.read(diskKey, string(diskKey), keysOnly, rec)
	if err == nil {
		err = h.aboveFloor(rev)
	}
	if err != nil || !found || rec.Flags&format.FlagTombstone != 0 {
		return nil, err
	}
	if !keysOnly && rec.Flags&format.FlagChunked == 0 {
		rec.Value = slices.Clone(rec.Value)
	}
	return rec, nil
}
