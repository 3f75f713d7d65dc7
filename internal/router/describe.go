package router

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// NewRequestID hands out an id for a request.
func (r *Router) NewRequestID(context.Context, *api.NewRequestIDRequest) (*api.NewRequestIDResponse, error) {
	return &api.NewRequestIDResponse{RequestId: r.newTxnID().String()}, nil
}

// DescribeRequest tells what became of a request that the client named. The records
// of all its attempts are looked for in all groups, at one moment. Is the newest
// attempt not decided, it is now, by poison; and after one that met locks only, which
// its coordinator would repeat, the next is poisoned. So what is answered stays true.
func (r *Router) DescribeRequest(ctx context.Context, q *api.DescribeRequestRequest) (*api.RequestOutcome, error) {
	id, err := r.parseRequestID(q.GetRequestId())
	if err != nil {
		return nil, err
	}
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	for n := 1; ; n++ {
		records, err := r.recordsOf(ctx, id)
		if err != nil {
			return nil, err
		}
		out, open := describe(id, records)
		if !open {
			if out.State == api.RequestOutcome_STATE_UNKNOWN && r.tooOld(id) {
				out.State = api.RequestOutcome_STATE_EXPIRED
			}
			return out, nil
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < r.o.ReadAttempt/2 && n > 1 {
			return out, nil
		}
		r.decide(ctx, records)
		if !r.pause(ctx, r.backoff(n)) {
			return out, nil
		}
	}
}

// txnRecord is what one group says of a transaction.
type txnRecord struct {
	key keyspace.TxnKey
	format.TxnRecord
}

// describe tells how a request stands by its records; open says that it may still
// change.
func describe(id keyspace.TxnID, records []txnRecord) (out *api.RequestOutcome, open bool) {
	out = &api.RequestOutcome{RequestId: id.String(), State: api.RequestOutcome_STATE_UNKNOWN}
	if len(records) == 0 {
		return out, false
	}
	for i := range records {
		rec := &records[i]
		if rec.State != twophase.Committed {
			continue
		}
		out.State, out.Revision, out.Succeeded = api.RequestOutcome_STATE_COMMITTED, uint64(rec.At), rec.Branch == twophase.Then
		if rec.Branch == twophase.Nothing {
			out.Revision = 0
			out.Error = ErrorStatus(fault.New(fault.ConditionFailed, "a condition of the operations did not hold; nothing was executed"))
		}
		if kept, err := outcomeKept(rec.Answer); err == nil && kept != nil {
			kept.RequestId = out.RequestId
			return kept, false
		}
	}
	if out.State == api.RequestOutcome_STATE_COMMITTED {
		return out, false
	}
	last := records[len(records)-1].key.Attempt
	for i := range records {
		if rec := &records[i]; rec.key.Attempt == last && rec.State == twophase.Aborted && rec.Cause == twophase.Poisoned {
			out.State = api.RequestOutcome_STATE_ABORTED
			out.Error = ErrorStatus(errAborted(id))
			return out, false
		}
	}
	out.State = api.RequestOutcome_STATE_PENDING
	return out, true
}

// decide brings the newest attempt of a request to its end: what is not prepared is
// poisoned, or, when it was refused, its first participant of the next attempt is.
func (r *Router) decide(ctx context.Context, records []txnRecord) {
	newest := records[len(records)-1]
	key := keyspace.TxnKey{ID: newest.key.ID, Attempt: newest.key.Attempt}
	var prepared *txnRecord
	for i := range records {
		if rec := &records[i]; rec.key.Attempt == key.Attempt {
			if rec.State == twophase.Prepared {
				prepared = rec
			}
			if rec.key.Slot < newest.key.Slot {
				newest = *rec
			}
		}
	}
	until := r.o.Clock.Mono() + r.timeout(ctx, 0)
	done := make(chan struct{})
	end := func() { close(done) }
	switch {
	case prepared != nil:
		a := r.newAttempt(key, slotNumbers(prepared.Participants))
		a.named, a.mark = markOf(prepared.Answer)
		a.send(a.shares, api.TxnOrder_KIND_POISON, until, nil, func() { r.settleAttempt(a, until, end) })
	default:
		key.Attempt++
		a := r.newAttempt(key, slotNumbers(newest.Participants))
		a.named, a.mark = markOf(newest.Answer)
		a.send(a.shares[:1], api.TxnOrder_KIND_POISON, until, nil, end)
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func slotNumbers(slots []keyspace.SlotID) []uint32 {
	out := make([]uint32, len(slots))
	for i, slot := range slots {
		out[i] = uint32(slot)
	}
	return out
}

// settleAttempt tells the participants of an attempt what its answers come to.
func (r *Router) settleAttempt(a *txnAttempt, until time.Duration, end func()) {
	switch c := a.conclude(); c.Verb {
	case twophase.DoCommit:
		a.commit(c, nil, until, end)
	case twophase.DoAbort:
		if shares := a.unsettled(false); len(shares) > 0 {
			a.send(shares, api.TxnOrder_KIND_ABORT, until, nil, end)
			return
		}
		end()
	case twophase.Wait:
		end()
	}
}

// recordsOf finds the records of a transaction, in the order of their keys.
func (r *Router) recordsOf(ctx context.Context, id keyspace.TxnID) (out []txnRecord, err error) {
	prefix := id.Append(nil)
	m := r.o.Directory.Map()
	if m.Groups == 0 {
		return nil, r.missing("")
	}
	l := &lister{r: r, req: &api.ListRequest{}, ns: keyspace.TxnNamespace, m: m, groups: slices.Clone(m.owning()), slot: -1,
		limit: MaxListLimit, index: make(map[keyspace.GroupID]keyspace.Index), lower: prefix, upper: keyspace.PrefixEnd(prefix)}
	defer l.close()
	if l.rev, err = l.snapshot(ctx); err != nil {
		return nil, err
	}
	for more := true; more; {
		page, err := l.page(ctx)
		if err != nil {
			return nil, err
		}
		if out, err = appendRecords(out, page.ProtoReflect().GetUnknown()); err != nil {
			return nil, err
		}
		more = page.ContinuationToken != ""
	}
	return out, nil
}

// appendRecords decodes the records of a page of TxnNamespace. Their keys are no
// text, so that a page is no message.
func appendRecords(out []txnRecord, page []byte) ([]txnRecord, error) {
	found, ok := findRecords(page)
	if !ok {
		return nil, fault.New(fault.Internal, "records of transactions cannot be decoded", "bytes", len(page))
	}
	for i := range found {
		w := &found[i]
		key, err := keyspace.ParseTxnKey(string(page[w.keyFrom:w.keyTo]))
		if err != nil {
			return nil, err
		}
		rec, err := format.DecodeTxnRecord(valueIn(page[w.body:w.to]))
		if err != nil {
			return nil, err
		}
		out = append(out, txnRecord{key, rec})
	}
	return out, nil
}

// valueIn is the value of a record in wire form, nil without one.
func valueIn(record []byte) []byte {
	for len(record) > 0 {
		number, typ, n := protowire.ConsumeTag(record)
		if n < 0 {
			return nil
		}
		length := protowire.ConsumeFieldValue(number, typ, record[n:])
		if length < 0 {
			return nil
		}
		if number == fieldRecordValue && typ == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(record[n : n+length])
			return value
		}
		record = record[n+length:]
	}
	return nil
}

// tooOld reports whether a request of which there is no record was created when its
// outcome would be dropped by now.
func (r *Router) tooOld(id keyspace.TxnID) bool {
	return time.Duration(r.o.Clock.Wall()-id.Created.UnixMilli())*time.Millisecond > RememberFor
}
