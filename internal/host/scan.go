package host

import (
	"context"
	"fmt"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/replica"
)

func (h *Host) clock(ctx context.Context, id keyspace.GroupID, atLeast, limit keyspace.Revision) (keyspace.Revision, error) {
	if atLeast > limit {
		return 0, fault.New(fault.OutOfRange, "the revision lies too far in the future", "revision", uint64(atLeast), "limit", uint64(limit))
	}
	out := make(chan *replica.Request, 1)
	h.Submit(ctx, &replica.Request{Group: id, Clock: &replica.ClockOp{AtLeast: atLeast}, Deadline: h.deadline(ctx),
		Done: func(r *replica.Request) {
			if r.Err == nil { // on the loop; whoever waits may read at the closed revision at once
				h.publish(h.groups[id])
			}
			out <- r
		}})
	select {
	case r := <-out:
		if r.Err != nil {
			return 0, r.Err
		}
		return r.Clock.Result, nil
	case <-ctx.Done():
		return 0, fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "the group's clock was not confirmed in time", "group", id)
	}
}

// Default bounds of a page.
const (
	maxPageItems = 10000
	maxPageBytes = 4 << 20
)

// Scan returns one page of a group at a revision, bounded by items and bytes.
// The revision must be closed here; a leader closes it first.
func (h *Host) Scan(ctx context.Context, id keyspace.GroupID, r ScanRequest) (ScanPage, error) {
	p, err := h.PointAt(id, r.Revision)
	if fault.CodeOf(err) == fault.FailedPrecondition {
		if _, err = h.Clock(ctx, id, r.Revision); err != nil {
			return ScanPage{}, err
		}
		p, err = h.PointAt(id, r.Revision)
	}
	if err != nil {
		return ScanPage{}, err
	}
	g := h.lookup(id)
	if g == nil {
		return ScanPage{}, errNotHosted(id)
	}
	pub, err := g.acquire(h)
	if err != nil {
		return ScanPage{}, err
	}
	defer pub.instance.release(h)
	if pub.index < p.Index {
		return ScanPage{}, errYounger(p)
	}
	view := h.opt.Store.View()
	defer view.Close()
	s := scan{request: r, point: p, view: view, instance: pub.instance.id, records: h.opt.ScanRecords}
	return s.run(ctx)
}

type scan struct {
	request  ScanRequest
	point    ReadPoint
	view     *mvcc.View
	instance keyspace.InstanceID
	page     ScanPage
	bytes    int
	// records and visited bound what is looked at, matching or not.
	records int
	visited int
}

// maxPageVisit bounds the encoded bytes that one page visits.
const maxPageVisit = 64 << 20

func (s *scan) run(ctx context.Context) (ScanPage, error) {
	r := &s.request
	if r.Limit <= 0 || r.Limit > maxPageItems {
		r.Limit = maxPageItems
	}
	if r.MaxBytes <= 0 || r.MaxBytes > maxPageBytes {
		r.MaxBytes = maxPageBytes
	}
	it := s.view.Scan(s.options())
	defer it.Close()
	for n := 0; it.Valid(); n++ {
		if n&255 == 0 && ctx.Err() != nil {
			return ScanPage{}, fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "the scan did not finish in time")
		}
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
		it.Next()
	}
	return s.page, it.Err()
}

func (s *scan) options() mvcc.ScanOptions {
	r := &s.request
	o := mvcc.ScanOptions{Instance: s.instance, At: s.point.Rev, Reverse: r.Reverse}
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
	s.page.More, s.page.Next = true, slices.Clone(key)
	if !s.request.Reverse {
		s.page.Next = append(s.page.Next, 0)
	}
	return err
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
	rec, err := format.DecodeRecord(value, it.Revision())
	if err != nil {
		return false, fmt.Errorf("key %q: %w", key, err)
	}
	r := &s.request
	if !rec.Exists(s.point.Clock.UnixMilli()) || !hasTags(&rec, r.Tags) {
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
	if len(s.page.Items) > 0 && (len(s.page.Items) >= r.Limit || s.bytes+size > r.MaxBytes) {
		s.page.More = true
		last := s.page.Items[len(s.page.Items)-1].Key
		if s.page.Next = []byte(last); !r.Reverse {
			s.page.Next = append(s.page.Next, 0)
		}
		return true, nil
	}
	if err := s.load(&rec); err != nil {
		return false, fmt.Errorf("key %q: %w", key, err)
	}
	s.bytes += size
	s.page.Items = append(s.page.Items, ScanItem{Key: string(key), Record: rec})
	return false, nil
}

func (s *scan) load(rec *format.Record) error {
	if s.request.KeysOnly {
		rec.Value = nil
		return nil
	}
	if err := joinChunks(s.view, s.instance, rec); err != nil {
		return err
	}
	if rec.Flags&format.FlagChunked == 0 {
		rec.Value = slices.Clone(rec.Value)
	}
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
