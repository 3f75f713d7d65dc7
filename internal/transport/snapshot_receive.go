package transport

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// HandleSnapshot serves Peer.Snapshot: it hands the stream to a sink of the
// host, and answers once the sink has finished. A refusal by policy (wrong
// cluster, node, format, a sink that does not want it) is an answer with
// accepted false; a broken stream is an error. Whatever goes wrong, the sink
// is aborted.
func (t *Transport) HandleSnapshot(stream api.Peer_SnapshotServer) error {
	in, err := t.enter()
	if err != nil {
		return err
	}
	defer t.wg.Done()
	select {
	case t.snapRecv <- struct{}{}:
		defer func() { <-t.snapRecv }()
	default:
		t.snapStats.refused.Add(1)
		return fault.New(fault.Overloaded, "this node receives as many snapshots as it may",
			"limit", t.o.ReceiveSnapshots).WithRetry(time.Second)
	}
	t.snapStats.receiving.Add(1)
	defer t.snapStats.receiving.Add(-1)

	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	r := &snapshotReader{t: t, ctx: ctx, chunks: receiveAhead(ctx, t, stream.Recv)}

	if err := r.run(in); err != nil {
		return t.refuseSnapshot(stream, err)
	}
	t.snapStats.received.Add(1)
	return stream.SendAndClose(&api.SnapshotDone{Accepted: true})
}

// refusal is an error that is told to the sender as an answer.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func (t *Transport) refuseSnapshot(stream api.Peer_SnapshotServer, err error) error {
	t.snapStats.refused.Add(1)
	t.o.Logger.Warn("snapshot was not taken", "error", err)
	var r refusal
	if errors.As(err, &r) {
		return stream.SendAndClose(&api.SnapshotDone{Reason: r.Error()})
	}
	return err
}

// snapshotReader hands the chunks of one stream to a sink.
type snapshotReader struct {
	t      *Transport
	ctx    context.Context
	chunks ahead[*api.SnapshotChunk]
}

// next returns the next chunk, or why there is none.
func (r *snapshotReader) next() (*api.SnapshotChunk, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "stream of a snapshot ended")
	}
	timer := time.NewTimer(r.t.o.SnapshotStall)
	defer timer.Stop()
	select {
	case c := <-r.chunks.messages:
		return c, nil
	case err := <-r.chunks.err:
		if errors.Is(err, io.EOF) {
			return nil, refusal{fault.New(fault.InvalidArgument, "snapshot ends without its end mark")}
		}
		return nil, fault.Wrap(fault.Unavailable, err, "stream of a snapshot broke")
	case <-timer.C:
		return nil, fault.New(fault.DeadlineExceeded, "sender of a snapshot made no progress", "limit", r.t.o.SnapshotStall)
	case <-r.ctx.Done():
		return nil, fault.Wrap(fault.Unavailable, r.ctx.Err(), "stream of a snapshot ended")
	}
}

// run takes a whole snapshot.
func (r *snapshotReader) run(in Inbound) error {
	h, err := r.header()
	if err != nil {
		return err
	}
	sink, err := in.SnapshotSink(h)
	if err != nil {
		return refusal{err}
	}
	if err := r.records(sink); err != nil {
		sink.Abort()
		return err
	}
	if err := sink.Finish(); err != nil {
		return refusal{err}
	}
	return nil
}

func (r *snapshotReader) header() (*api.SnapshotHeader, error) {
	c, err := r.next()
	if err != nil {
		return nil, err
	}
	h := c.GetHeader()
	if h == nil {
		return nil, refusal{fault.New(fault.InvalidArgument, "snapshot begins without a header")}
	}
	if err := r.t.checkAddress(h.GetClusterId(), h.GetFromNode(), h.GetToNode(), h.GetFormatVersion()); err != nil {
		return nil, refusal{err}
	}
	if err := r.t.checkRecovery(h.GetRecoveryEpoch()); err != nil {
		return nil, refusal{err}
	}
	return h, nil
}

// records fills the sink up to the end mark.
func (r *snapshotReader) records(sink SnapshotSink) error {
	for {
		c, err := r.next()
		if err != nil {
			return err
		}
		if c.GetHeader() != nil {
			return refusal{fault.New(fault.InvalidArgument, "snapshot has a second header")}
		}
		b := c.GetRecords()
		if got := crc32.Checksum(b, castagnoli); len(b) > 0 && got != c.GetCrc32C() {
			return refusal{fault.New(fault.Corruption, "snapshot chunk is damaged", "crc32c", c.GetCrc32C(), "actual", got)}
		}
		if len(b) > 0 {
			if err := sink.Write(b); err != nil {
				return refusal{err}
			}
			r.t.snapStats.bytesRecv.Add(int64(len(b)))
		}
		if c.GetLast() {
			return nil
		}
	}
}
