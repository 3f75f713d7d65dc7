package router

import (
	"bytes"
	"context"
	"math"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// groupReads are the linearizable reads that a frame dispatches together, by
// group.
//
// Each group's reads share one confirmation, which only marks them: a call is
// served when the last of its reads is confirmed, so that a batch over several
// groups wakes the driver once, and what is ready by then is read with one view
// for each group. The driver starts when there is a call to serve, or a read
// that failed and goes elsewhere.
type groupReads struct {
	frame *frame
	reads []*groupRead
	few   [4]*groupRead
}

// groupRead is all reads of one group.
type groupRead struct {
	frame *frame
	group keyspace.GroupID
	// first to last are the parts that wait, linked by next, and later those that
	// the driver is serving.
	first, last *part
	calls       int
	// Set when it is confirmed.
	point host.ReadPoint
	err   error
}

// add appends p, whose next is nil.
func (gr *groupRead) add(p *part) {
	if gr.first == nil {
		gr.first = p
	} else {
		gr.last.next = p
	}
	gr.last = p
}

// join adds p to the read of its group.
func (rs *groupReads) join(f *frame, p *part) {
	if p.st.at != 0 {
		f.joinPast(p)
		return
	}
	if maxAge := staleness(p.st.call.Op); maxAge > 0 {
		if point, err := f.r.o.Host.StaleRead(p.group, maxAge); err == nil {
			p.read, p.next = &groupRead{frame: f, group: p.group, point: point}, nil
			f.push(func(f *frame) { f.serveReads(p) })
			return
		}
		// Nothing fresh enough is closed here: a linearizable read is.
	}
	if rs.frame == nil {
		rs.frame, rs.reads = f, rs.few[:0]
	}
	p.next = nil
	for _, gr := range rs.reads {
		if gr.group == p.group {
			p.read = gr
			gr.add(p)
			return
		}
	}
	p.read = &groupRead{frame: f, group: p.group, first: p, last: p}
	rs.reads = append(rs.reads, p.read)
}

// start asks for the read points.
func (rs *groupReads) start() {
	if len(rs.reads) == 0 {
		return
	}
	f := rs.frame
	f.mu.Lock()
	for _, gr := range rs.reads {
		for p := gr.first; p != nil; p = p.next {
			p.st.waiting++
			gr.calls++
		}
	}
	f.mu.Unlock()
	var few [4]host.Read
	asks := few[:0]
	now := f.r.o.Clock.Mono()
	for _, gr := range rs.reads {
		// The attempt is bounded so that a silently lost confirmation leads to
		// another replica.
		asks = append(asks, host.Read{Group: gr.group, Calls: gr.calls, Deadline: min(gr.latest(), now+f.r.o.ReadAttempt), Done: gr.done})
	}
	f.r.o.Host.ReadIndexAll(asks)
}

// latest is the last deadline of the parts.
func (gr *groupRead) latest() (until time.Duration) {
	for p := gr.first; p != nil; p = p.next {
		until = max(until, p.st.deadline)
	}
	return until
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
	return ageOf(ms)
}

// ageOf is a staleness of so many milliseconds, the longest one where they are more
// than a duration holds.
func ageOf(ms int64) time.Duration {
	return time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}

// done takes the confirmation of the group and hands the driver what can be
// served now: calls that wait for nothing else, and reads that failed.
func (gr *groupRead) done(point host.ReadPoint, err error) {
	f := gr.frame
	gr.point, gr.err = point, err
	var ready *part
	f.mu.Lock()
	for p := gr.first; p != nil; {
		next, st := p.next, p.st
		st.waiting--
		switch {
		case err != nil:
			p.next, ready = ready, p
		default:
			p.next, st.confirmed = st.confirmed, p
		}
		for st.waiting == 0 && st.confirmed != nil {
			q := st.confirmed
			st.confirmed = q.next
			q.next, ready = ready, q
		}
		p = next
	}
	gr.first, gr.last = nil, nil
	f.mu.Unlock()
	if ready != nil {
		f.push(func(f *frame) { f.serveReads(ready) })
	}
}

// want is an item of a batch that is being read.
type want struct {
	part *part
	item int
}

// serveReads executes confirmed reads, on the frame's goroutine. Keys are read
// together as far as their group and namespace are the same.
func (f *frame) serveReads(ready *part) {
	var latest time.Duration
	for p := ready; p != nil; p = p.next {
		latest = max(latest, p.st.deadline)
	}
	ctx, cancel := f.within(latest)
	defer cancel()
	var few [4]*groupRead
	groups := few[:0]
	for p := ready; p != nil; {
		next, gr := p.next, p.read
		p.next = nil
		switch {
		case gr.err != nil:
			f.readFailed(p, gr.err)
		default:
			if gr.first == nil {
				groups = append(groups, gr)
			}
			gr.add(p)
		}
		p = next
	}
	for _, gr := range groups {
		if gr.lone() || f.r.o.Host.Locked(gr.point) {
			gr.serveGets(ctx)
		}
		gr.serveTogether(ctx)
	}
}

// readFailed tries a read again, or answers with err.
func (f *frame) readFailed(p *part, err error) {
	if retryableRead(err) && worthAnother(err, p.attempts) || p.st.at != 0 && f.keptElsewhere(p, err) {
		f.retry(p, err)
		return
	}
	p.fail(err)
}

// serve answers the read of one key from this node's replica at point.
func (f *frame) serve(ctx context.Context, point host.ReadPoint, p *part) {
	q := p.st.call.Op.GetGet()
	rec, err := f.r.o.Host.Get(ctx, point, p.st.ns, q.Key, q.KeysOnly)
	if late := f.r.stillKept(p.group, p.st.at); late != nil {
		err = late
	}
	if err != nil {
		f.readFailed(p, err)
		return
	}
	p.st.call.Result.Result = answerGet(q.Key, point, rec, q.KeysOnly)
	p.finish()
}

// lone reports whether there is one call only, and its caller did not ask for bytes.
func (gr *groupRead) lone() bool { return gr.first.next == nil && !gr.first.st.call.Encoded }

// serveGets reads the keys of gets one by one and leaves the batches: one may have to
// wait for a transaction that the others have nothing to do with.
func (gr *groupRead) serveGets(ctx context.Context) {
	first := gr.first
	gr.first, gr.last = nil, nil
	for p := first; p != nil; {
		next := p.next
		p.next = nil
		switch {
		case p.st.kind != kindBatchGet:
			gr.frame.serve(ctx, gr.point, p)
		default:
			gr.add(p)
		}
		p = next
	}
}

// maxForms bounds how often the parts are gone through for those of one namespace and form;
// what is left then is read part by part.
const maxForms = 8

// serveTogether reads the keys of the parts from first on, those of the same
// namespace and form together.
func (gr *groupRead) serveTogether(ctx context.Context) {
	for forms := 0; gr.first != nil; forms++ {
		head := gr.first
		b := &batchAnswer{read: gr, keysOnly: head.keysOnly()}
		b.parts = append(b.one[:0], head)
		rest := head.next
		head.next = nil
		if gr.first = rest; forms < maxForms {
			gr.takeLike(head, b)
		}
		b.serve(ctx)
	}
	gr.last = nil
}

// takeLike moves the parts that can be read with head to b.
func (gr *groupRead) takeLike(head *part, b *batchAnswer) {
	p := gr.first
	gr.first, gr.last = nil, nil
	for p != nil {
		next := p.next
		p.next = nil
		switch {
		case p.st.ns == head.st.ns && p.keysOnly() == b.keysOnly:
			b.parts = append(b.parts, p)
		default:
			gr.add(p)
		}
		p = next
	}
}

func (p *part) keysOnly() bool {
	if p.st.kind == kindGet {
		return p.st.call.Op.GetGet().GetKeysOnly()
	}
	return p.st.call.Op.GetBatchGet().GetKeysOnly()
}

// batchAnswer fills the results of parts whose keys are read together, gets and
// batches. A failure that another replica may not have sends a whole part there, so
// that all its items are of one moment.
type batchAnswer struct {
	read     *groupRead
	parts    []*part
	keysOnly bool
	at       []want
	one      [1]*part
	few      [2]want
	gets     int    // that come later
	encoded  []byte // the rest of the memory for their answers

	total  int64 // of values taken for the part being filled
	failed error // what sends that part elsewhere
}

func (b *batchAnswer) serve(ctx context.Context) {
	n := 0
	for _, p := range b.parts {
		n += p.size()
	}
	if b.at = b.few[:0]; n > len(b.few) {
		b.at = make([]want, 0, n)
	}
	for _, p := range b.parts {
		if p.st.kind == kindGet {
			b.gets++
		}
		for i := range p.size() {
			b.at = append(b.at, want{p, p.item(i)})
		}
	}
	f := b.read.frame
	err := f.r.o.Host.GetEach(ctx, b.read.point, b.parts[0].st.ns, n, b.key, b.keysOnly, b.add)
	if err == nil {
		return
	}
	for _, p := range b.parts { // nothing was read
		f.readFailed(p, err)
	}
}

func (b *batchAnswer) key(n int) string {
	w := &b.at[n]
	return keyOf(w.part.st.call.Op, w.item)
}

// add takes the outcome for the n-th key, and ends its part with the last one.
func (b *batchAnswer) add(n int, rec *format.Record, err error) bool {
	w := b.at[n]
	if w.part.st.kind == kindGet {
		b.answer(n, rec, err)
		return true
	}
	if b.failed == nil {
		b.fill(w, b.key(n), rec, err)
	}
	if n+1 < len(b.at) && b.at[n+1].part == w.part {
		return true
	}
	failed, total := b.failed, b.total
	b.failed, b.total = nil, 0
	if failed != nil {
		w.part.st.bytes.Add(-total)
		b.read.frame.readFailed(w.part, failed)
	} else {
		w.part.finish()
	}
	return true
}

// answer ends a get, the n-th key.
func (b *batchAnswer) answer(n int, rec *format.Record, err error) {
	f, p := b.read.frame, b.at[n].part
	b.gets--
	if late := f.r.stillKept(p.group, p.st.at); late != nil {
		err = late
	}
	if err != nil {
		f.readFailed(p, err)
		return
	}
	key, point := b.key(n), b.read.point
	if p.st.call.Encoded {
		p.st.call.Result.Result = b.encodeGet(key, rec)
	} else {
		a := answerGet(key, point, rec, b.keysOnly)
		if rec.Flags&format.FlagChunked == 0 {
			a.Get.Record.Value = bytes.Clone(a.Get.Record.Value)
		}
		p.st.call.Result.Result = a
	}
	p.finish()
}

func (b *batchAnswer) fill(w want, key string, rec *format.Record, err error) {
	st := w.part.st
	if st.at != 0 {
		if late := b.read.frame.r.stillKept(b.read.group, st.at); late != nil {
			err = late
		}
	}
	if retryableRead(err) || st.at != 0 && fault.CodeOf(err) == fault.OutOfRange {
		b.failed = err
		return
	}
	if err == nil {
		err = st.take(len(rec.Value))
	}
	if err == nil {
		b.total += int64(len(rec.Value))
	}
	if st.encoded != nil {
		if err != nil {
			st.encoded[w.item] = encodeResult(&api.BatchGetResult{Status: ErrorStatus(err)})
		} else {
			st.encode(w.item, key, rec, b.keysOnly)
		}
		return
	}
	slot := &st.gets[w.item]
	res := &slot.result
	res.Record, res.Status = nil, ErrorStatus(err)
	if err != nil {
		return
	}
	fillRecord(&slot.record, key, rec, b.keysOnly)
	if !b.keysOnly {
		slot.record.Value = st.keep(rec)
	}
	res.Record = &slot.record
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
