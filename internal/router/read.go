package router

import (
	"bytes"
	"context"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/deadline"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// groupRead is all linearizable reads of one frame in one group: confirmed
// together, then executed by the frame's goroutine.
type groupRead struct {
	frame  *frame
	group  keyspace.GroupID
	parts  []*part
	cancel context.CancelFunc
}

// joinRead adds p to the read of its group.
func (p *part) joinRead(reads []*groupRead) []*groupRead {
	f := p.st.frame
	if maxAge := staleness(p.st.call.Op); maxAge > 0 {
		if point, err := f.r.o.Host.StaleRead(p.group, maxAge); err == nil {
			f.push(func(f *frame) {
				ctx, cancel := f.within(p.st.deadline)
				defer cancel()
				f.serve(ctx, point, p)
			})
			return reads
		}
		// Nothing fresh enough is closed here: a linearizable read is.
	}
	for _, gr := range reads {
		if gr.group == p.group {
			gr.parts = append(gr.parts, p)
			return reads
		}
	}
	return append(reads, &groupRead{frame: f, group: p.group, parts: []*part{p}})
}

func staleness(op *api.PipelineOp) time.Duration {
	level, ms := api.Consistency_CONSISTENCY_LINEARIZABLE, int64(0)
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Get:
		level, ms = o.Get.GetConsistency(), o.Get.GetMaxStalenessMs()
	case *api.PipelineOp_BatchGet:
		level, ms = o.BatchGet.GetConsistency(), o.BatchGet.GetMaxStalenessMs()
	}
	if level != api.Consistency_CONSISTENCY_BOUNDED_STALENESS {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

// start asks for the group's read point; the attempt is bounded so that a
// silently lost confirmation leads to another replica.
func (gr *groupRead) start() {
	f := gr.frame
	latest := gr.parts[0].st.deadline
	for _, p := range gr.parts {
		latest = max(latest, p.st.deadline)
	}
	left := latest - f.r.o.Clock.Mono()
	var ctx context.Context
	ctx, gr.cancel = deadline.WithTimeout(f.ctx, min(left, f.r.o.ReadAttempt))
	f.r.o.Host.ReadIndex(ctx, gr.group, func(point host.ReadPoint, err error) {
		f.push(func(f *frame) { gr.confirmed(point, err, latest) })
	})
}

// confirmed executes the reads, on the frame's goroutine.
func (gr *groupRead) confirmed(point host.ReadPoint, err error, latest time.Duration) {
	f := gr.frame
	gr.cancel()
	if err != nil {
		for _, p := range gr.parts {
			f.readFailed(p, err)
		}
		return
	}
	ctx, cancel := f.within(latest)
	defer cancel()
	for _, p := range gr.parts {
		f.serve(ctx, point, p)
	}
}

// readFailed tries a read again, or answers with err.
func (f *frame) readFailed(p *part, err error) {
	if retryableRead(err) && worthAnother(err, p.attempts) {
		f.retry(p, err)
		return
	}
	p.fail(err)
}

// serve answers a read part from this node's replica at point.
func (f *frame) serve(ctx context.Context, point host.ReadPoint, p *part) {
	if p.st.kind == kindBatchGet {
		f.serveBatch(ctx, point, p)
		return
	}
	q := p.st.call.Op.GetGet()
	point, err := f.r.pointAt(point, q.AtRevision)
	if err != nil {
		p.fail(err)
		return
	}
	rec, err := f.r.o.Host.Get(ctx, point, p.st.ns, q.Key, q.KeysOnly)
	if err != nil {
		f.readFailed(p, err)
		return
	}
	p.st.call.Result.Result = &api.PipelineResult_Get{Get: getResponse(q.Key, point, rec, q.KeysOnly)}
	p.finish()
}

// pointAt moves a confirmed point back to a revision the caller named; 0 means
// the point itself. Expiry is judged as it was then. A revision up to the
// confirmed one is final even where it is not closed yet: stamps grow in log
// order.
func (r *Router) pointAt(point host.ReadPoint, at uint64) (host.ReadPoint, error) {
	if at == 0 {
		return point, nil
	}
	rev := keyspace.Revision(at)
	old, err := r.o.Host.PointAt(point.Group, rev)
	switch {
	case fault.CodeOf(err) != fault.FailedPrecondition:
		return old, err
	case rev > point.Rev:
		return point, fault.New(fault.OutOfRange, "revision lies in the future of the key's group",
			"limit", uint64(point.Rev), "actual", at)
	}
	point.Rev, point.Clock, point.Physical = rev, rev, 0
	return point, nil
}

// serveBatch reads each key; a failure that another replica may not have sends
// the whole part there, so that all its items are of one moment.
func (f *frame) serveBatch(ctx context.Context, point host.ReadPoint, p *part) {
	b := p.st.call.Op.GetBatchGet()
	a := batchAnswer{part: p, keys: b.Keys, keysOnly: b.KeysOnly}
	err := f.r.o.Host.GetEach(ctx, point, p.st.ns, p.size(), a.key, b.KeysOnly, a.add)
	if err == nil {
		err = a.failed
	}
	if err != nil {
		p.st.bytes.Add(-a.total)
		f.readFailed(p, err)
		return
	}
	p.finish()
}

// batchAnswer fills the results of a part.
type batchAnswer struct {
	part     *part
	keys     []string
	keysOnly bool
	total    int64
	failed   error // what sends the part elsewhere
}

func (a *batchAnswer) key(n int) string { return a.keys[a.part.item(n)] }

// add takes the outcome for the part's n-th key.
func (a *batchAnswer) add(n int, rec *format.Record, err error) bool {
	if retryableRead(err) {
		a.failed = err
		return false
	}
	slot := &a.part.st.gets[a.part.item(n)]
	res := &slot.result
	res.Record, res.Status = nil, ErrorStatus(err)
	if err != nil {
		return true
	}
	if err := a.part.st.take(len(rec.Value)); err != nil {
		res.Status = ErrorStatus(err)
		return true
	}
	a.total += int64(len(rec.Value))
	fillRecord(&slot.record, a.key(n), rec, a.keysOnly)
	if !a.keysOnly {
		slot.record.Value = a.part.st.keep(rec)
	}
	res.Record = &slot.record
	return true
}

// maxSharedValue keeps large values apart, so that none keeps others in memory.
const maxSharedValue = 4 << 10

// keep copies a record's value, beside others of the call that have about its
// size.
func (st *callState) keep(rec *format.Record) []byte {
	value := rec.Value
	switch {
	case rec.Flags&format.FlagChunked != 0:
		return value // it was joined for this answer
	case len(value) > maxSharedValue:
		return bytes.Clone(value)
	}
	if cap(st.values)-len(st.values) < len(value) {
		st.values = make([]byte, 0, min(len(st.gets)*len(value), 16*maxSharedValue))
	}
	from := len(st.values)
	st.values = append(st.values, value...)
	return st.values[from:len(st.values):len(st.values)]
}

// take counts a value towards the answer's size; the value is left out of the
// answer on error.
func (st *callState) take(n int) error {
	if total := st.bytes.Add(int64(n)); total > MaxBatchBytes {
		st.bytes.Add(-int64(n))
		return fault.New(fault.MessageTooLarge, "values of the batch are too large together; ask for this key apart",
			"limit_bytes", MaxBatchBytes, "actual_bytes_at_least", total)
	}
	return nil
}
