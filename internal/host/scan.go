package host

import (
	"context"
	"fmt"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
)

// Default bounds of a page.
const (
	maxPageItems = 10000
	maxPageBytes = 4 << 20
)

// Scan returns one page of a group at a revision, bounded by items and bytes.
// The revision must be closed here; a leader closes it first.
func (h *Host) Scan(ctx context.Context, id keyspace.GroupID, r ScanRequest) (ScanPage, error) {
	var items []ScanItem
	page, err := h.ScanGroup(ctx, id, r, func(key []byte, rec *format.Record) {
		own := *rec
		own.Value = slices.Clone(rec.Value)
		items = append(items, ScanItem{Key: string(key), Record: own})
	})
	page.Items = items
	return page, err
}

// ScanGroup is Scan that calls each with the page's records instead of keeping
// them; key and the record's value are valid during the call only. After an
// error the page is void.
func (h *Host) ScanGroup(ctx context.Context, id keyspace.GroupID, r ScanRequest, each func([]byte, *format.Record)) (ScanPage, error) {
	at := ScanPoint{Group: id}
	_, err := h.PointAt(id, r.Revision)
	if fault.CodeOf(err) == fault.FailedPrecondition {
		var c ClockReading
		c, err = h.Clock(ctx, id, r.Revision)
		at.Index = c.Index
	}
	if err != nil {
		return ScanPage{}, err
	}
	return h.ScanTogether(ctx, []ScanPoint{at}, r, each)
}

// ScanTogether is ScanGroup for one page of several groups merged by key. Each
// of them must be Readable at the request's revision.
//
// A page ends before the first key that a prepared transaction may write at or
// below the revision. Where that is the first of all, the transaction's end is
// waited for.
func (h *Host) ScanTogether(ctx context.Context, at []ScanPoint, r ScanRequest, each func([]byte, *format.Record)) (ScanPage, error) {
	for {
		page, wait, err := h.scanOnce(ctx, at, r, each)
		if err != nil || wait.by == nil {
			return page, err
		}
		if err := h.await(ctx, wait.group, wait.by); err != nil {
			return ScanPage{}, err
		}
	}
}

// scanOnce returns a page, or what has to be waited for before there is one; it
// has then given nothing to each.
func (h *Host) scanOnce(ctx context.Context, at []ScanPoint, r ScanRequest, each func([]byte, *format.Record)) (ScanPage, scanStop, error) {
	s := scan{request: r, records: h.opt.ScanRecords, each: each}
	defer s.close(h)
	for _, p := range at {
		if err := s.hold(h, p); err != nil {
			return ScanPage{}, scanStop{}, err
		}
	}
	s.view = h.opt.Store.View() // after the replicas: it has what they published
	page, err := s.run(ctx)
	if late := s.aboveFloor(h); late != nil {
		return ScanPage{}, scanStop{}, late
	}
	if err == nil && s.waits {
		return ScanPage{}, s.stop, nil
	}
	return page, scanStop{}, err
}

// aboveFloor refuses a page that history did not outlast: what was replaced may
// be missing.
func (s *scan) aboveFloor(h *Host) error {
	rev := s.request.Revision
	for i := range s.sources {
		if slots := s.sources[i].slots; slots != nil && rev < slots.Floor {
			return belowFloor(rev, slots.Floor)
		}
	}
	return h.aboveFloor(rev)
}

// Readable reports whether this node's replica has all of a group's state at
// rev, or comes to have it before ctx ends.
func (h *Host) Readable(ctx context.Context, p ScanPoint, rev keyspace.Revision) bool {
	_, err := h.PointBehind(ctx, p, rev)
	return err == nil
}

type scan struct {
	request ScanRequest
	each    func([]byte, *format.Record)
	view    *mvcc.View
	sources []source
	page    ScanPage
	bytes   int
	// record is the present one, here so that it is not allocated for each.
	record format.Record
	// passed: there was a record before where the scan stands.
	passed bool
	// given counts the records of the page, last is the key of the latest.
	given int
	last  []byte
	// records and visited bound what is looked at, matching or not.
	records int
	visited int
	// stop is the nearest key that is locked; waits: the page would begin there.
	stop  scanStop
	waits bool
	// mixed: some source may meet records of slots that its group does not own.
	mixed bool
}

// source is one group of a scan; a heap of them has the next key on top.
type source struct {
	group    *group
	instance *instance
	// locked: something is prepared in the group that the scan has to know.
	locked bool
	slots  *format.SlotState
	it     *mvcc.Scanner
}

// maxPageVisit bounds the encoded bytes that one page visits.
const maxPageVisit = 64 << 20

// hold keeps a replica's data for the scan, if it has all of the revision.
func (s *scan) hold(h *Host, p ScanPoint) error {
	point, err := h.PointAt(p.Group, s.request.Revision)
	if fault.CodeOf(err) == fault.FailedPrecondition && p.Index > 0 {
		point, err = ReadPoint{Group: p.Group, Index: p.Index}, nil
	}
	if err != nil {
		return err
	}
	g := h.lookup(p.Group)
	if g == nil {
		return errNotHosted(p.Group)
	}
	if pub := g.published.Load(); pub == nil || pub.index < point.Index {
		return errYounger(point)
	}
	locked := s.meet(g)
	pub, err := g.acquire(h) // after the locks: it has what they were let go for
	if err != nil {
		return err
	}
	s.sources = append(s.sources, source{group: g, instance: pub.instance, locked: locked, slots: pub.slots})
	s.cover(p.Group, pub.slots)
	if pub.index < point.Index {
		return errYounger(point)
	}
	return nil
}

// cover notes what a source owns.
func (s *scan) cover(g keyspace.GroupID, slots *format.SlotState) {
	if slots == nil {
		s.page.AnySlots, s.page.Silent = true, append(s.page.Silent, g)
		return
	}
	s.page.Overlap = s.page.Overlap || s.page.Slots.Meets(&slots.Owned)
	s.page.Slots = s.page.Slots.With(&slots.Owned)
	s.mixed = s.mixed || slots.Filtered()
}

// owned reports whether the group of a scanner owns the slot of its current key.
func (s *scan) owned(it *mvcc.Scanner, ns keyspace.NamespaceID, key []byte) bool {
	for i := range s.sources {
		if src := &s.sources[i]; src.it == it {
			return !src.slots.Filtered() || src.slots.Owns(keyspace.SlotOf(ns, string(key)))
		}
	}
	return true
}

func (s *scan) close(h *Host) {
	for i := range s.sources {
		if s.sources[i].it != nil {
			s.sources[i].it.Close()
		}
	}
	if s.view != nil {
		s.view.Close()
	}
	for i := range s.sources {
		s.sources[i].instance.release(h)
	}
}

// run makes a page, unless the scan waits.
func (s *scan) run(ctx context.Context) (ScanPage, error) {
	r := &s.request
	if r.Limit <= 0 || r.Limit > maxPageItems {
		r.Limit = maxPageItems
	}
	if r.MaxBytes <= 0 || r.MaxBytes > maxPageBytes {
		r.MaxBytes = maxPageBytes
	}
	m, err := s.open()
	for n := 0; err == nil && len(m.heap) > 0; n++ {
		if n&255 == 0 && ctx.Err() != nil {
			return ScanPage{}, fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "the scan did not finish in time")
		}
		it := m.heap[0]
		full, err := s.take(it)
		if err != nil {
			return ScanPage{}, err
		}
		if full {
			return s.page, nil
		}
		if n+1 >= s.records || s.visited >= maxPageVisit {
			return s.page, s.endAfter(it)
		}
		if err := m.next(); err != nil {
			return s.page, err
		}
	}
	if err == nil && s.stop.key != nil {
		err = s.endAtLock(s.stop)
	}
	return s.page, err
}

// open starts the scanners.
func (s *scan) open() (merge, error) {
	m := merge{reverse: s.request.Reverse, heap: make([]*mvcc.Scanner, 0, len(s.sources))}
	o := s.options()
	s.clip(&o)
	for i := range s.sources {
		src := &s.sources[i]
		o.Instance = src.instance.id
		src.it = s.view.Scan(o)
		if err := m.add(src.it); err != nil {
			return m, err
		}
	}
	return m, nil
}

func (s *scan) options() mvcc.ScanOptions {
	r := &s.request
	o := mvcc.ScanOptions{At: r.Revision, Reverse: r.Reverse}
	prefix := keyspace.AppendDataPrefix(nil, r.Namespace, nil)
	o.Lower, o.Upper = prefix, keyspace.PrefixEnd(prefix)
	if len(r.Start) > 0 {
		o.Lower = keyspace.AppendDataKey(nil, r.Namespace, r.Start)
	}
	if len(r.End) > 0 {
		o.Upper = keyspace.AppendDataKey(nil, r.Namespace, r.End)
	}
	return o
}

// endAfter ends a page that has looked at enough after the present record.
func (s *scan) endAfter(it *mvcc.Scanner) error {
	_, key, err := keyspace.DecodeDataKey(it.Key())
	s.endBehind(key)
	return err
}

// endBehind makes the next page start behind key.
func (s *scan) endBehind(key []byte) {
	s.page.More, s.page.Next = true, slices.Clone(key)
	if !s.request.Reverse {
		s.page.Next = append(s.page.Next, 0)
	}
}

// take adds the scanner's record to the page; full when the page ends before it.
func (s *scan) take(it *mvcc.Scanner) (full bool, err error) {
	ns, key, err := keyspace.DecodeDataKey(it.Key())
	if err != nil {
		return false, err
	}
	if s.mixed && !s.owned(it, ns, key) {
		return false, nil
	}
	value, err := it.Value()
	if err != nil {
		return false, err
	}
	s.visited += len(value)
	s.record, err = format.DecodeRecord(value, it.Revision())
	if err != nil {
		return false, fmt.Errorf("key %q: %w", key, err)
	}
	r, rec := &s.request, &s.record
	s.page.Ends = s.page.Ends || rec.Expires > r.EndsAfter && rec.Expires <= r.EndsBy && rec.Flags&format.FlagTombstone == 0
	if !rec.Exists(r.Revision.UnixMilli()) {
		return s.expires(it, rec)
	}
	s.passed = true
	if !hasTags(rec, r.Tags) {
		return false, nil
	}
	if r.CountOnly {
		s.page.Count++
		return false, nil
	}
	size := len(key) + 128
	if !r.KeysOnly {
		size += int(rec.Size)
	}
	if s.given > 0 && (s.given >= r.Limit || s.bytes+size > r.MaxBytes) {
		s.endBehind(s.last)
		return true, nil
	}
	return false, s.give(it, key, rec, size)
}

func (s *scan) give(it *mvcc.Scanner, key []byte, rec *format.Record, size int) error {
	if s.request.KeysOnly {
		rec.Value = nil
	} else if err := joinChunks(s.view, it.Instance(), rec); err != nil {
		return fmt.Errorf("key %q: %w", key, err)
	}
	s.bytes += size
	s.given++
	s.last = append(s.last[:0], key...)
	s.each(key, rec)
	return nil
}

func hasTags(rec *format.Record, want map[string]string) bool {
	for k, v := range want {
		if got, ok := rec.Tags[k]; !ok || got != v {
			return false
		}
	}
	return true
}
