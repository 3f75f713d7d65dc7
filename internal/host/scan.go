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
	_, err := h.PointAt(id, r.Revision)
	if fault.CodeOf(err) == fault.FailedPrecondition {
		if _, err = h.Clock(ctx, id, r.Revision); err != nil {
			return ScanPage{}, err
		}
		_, err = h.PointAt(id, r.Revision)
	}
	if err != nil {
		return ScanPage{}, err
	}
	return h.ScanTogether(ctx, []ScanPoint{{Group: id}}, r, each)
}

// ScanTogether is ScanGroup for one page of several groups merged by key. Each
// of them must be Readable at the request's revision.
func (h *Host) ScanTogether(ctx context.Context, at []ScanPoint, r ScanRequest, each func([]byte, *format.Record)) (ScanPage, error) {
	s := scan{request: r, records: h.opt.ScanRecords, each: each}
	defer s.close(h)
	for _, p := range at {
		if err := s.hold(h, p); err != nil {
			return ScanPage{}, err
		}
	}
	s.view = h.opt.Store.View() // after the replicas: it has what they published
	return s.run(ctx)
}

// Readable reports whether this node's replica has all of a group's state at
// rev, or comes to have it before ctx ends.
func (h *Host) Readable(ctx context.Context, p ScanPoint, rev keyspace.Revision) bool {
	_, err := h.PointAt(p.Group, rev)
	if fault.CodeOf(err) == fault.FailedPrecondition && p.Index > 0 {
		err = h.awaitIndex(ctx, p.Group, p.Index)
	}
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
	// given counts the records of the page, last is the key of the latest.
	given int
	last  []byte
	// records and visited bound what is looked at, matching or not.
	records int
	visited int
}

// source is one group of a scan; a heap of them has the next key on top.
type source struct {
	instance *instance
	it       *mvcc.Scanner
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
	pub, err := g.acquire(h)
	if err != nil {
		return err
	}
	s.sources = append(s.sources, source{instance: pub.instance})
	if pub.index < point.Index {
		return errYounger(point)
	}
	return nil
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
	return s.page, err
}

// open starts the scanners.
func (s *scan) open() (merge, error) {
	m := merge{reverse: s.request.Reverse, heap: make([]*mvcc.Scanner, 0, len(s.sources))}
	o := s.options()
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
	value, err := it.Value()
	if err != nil {
		return false, err
	}
	s.visited += len(value)
	_, key, err := keyspace.DecodeDataKey(it.Key())
	if err != nil {
		return false, err
	}
	s.record, err = format.DecodeRecord(value, it.Revision())
	if err != nil {
		return false, fmt.Errorf("key %q: %w", key, err)
	}
	r, rec := &s.request, &s.record
	if !rec.Exists(r.Revision.UnixMilli()) || !hasTags(rec, r.Tags) {
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
