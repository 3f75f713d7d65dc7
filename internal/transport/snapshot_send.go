package transport

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// maxSnapshotRecords bounds the records of one chunk.
const maxSnapshotRecords = MaxMessageBytes - 64<<10

var (
	errStalled = errors.New("no progress for the time allowed")
	errClosing = errors.New("the peer was removed or the transport closes")
)

// castagnoli is the polynomial of SnapshotChunk.crc32c.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SendSnapshot streams one replica's state to the node h.ToNode and returns
// when the receiver has made it durable. next returns the records chunk by
// chunk (up to maxSnapshotRecords bytes, valid until its next call) and io.EOF
// at the end; it is called on this goroutine. Cluster, sender, recovery, and,
// when zero, the format version of h are filled in.
//
// At most Options.SendSnapshots run at the same time; others wait here. Errors:
// those of next and ctx, Unavailable for a peer that is unknown or lost,
// Overloaded when the receiver is busy, FailedPrecondition when it refuses.
// After an error nothing of the snapshot counts at the receiver.
func (t *Transport) SendSnapshot(ctx context.Context, h *api.SnapshotHeader, next func() ([]byte, error)) error {
	p := (*t.peers.Load())[keyspace.NodeID(h.GetToNode())]
	if p == nil {
		return fault.New(fault.Unavailable, "node is not known here", "node_id", h.GetToNode())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(errClosing) })() //nolint:contextcheck // the peer's end ends the caller's context too

	select {
	case t.snapSend <- struct{}{}:
		defer func() { <-t.snapSend }()
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, context.Cause(ctx), "snapshot did not get its turn")
	}
	t.snapStats.sending.Add(1)
	defer t.snapStats.sending.Add(-1)

	stall := time.AfterFunc(t.o.SnapshotStall, func() { cancel(errStalled) })
	defer stall.Stop()
	err := p.sendSnapshot(ctx, stall, t.snapshotHeader(h), next)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fault.Wrap(fault.Unavailable, cause, "stream of the snapshot was ended")
		}
		t.snapStats.sendFailed.Add(1)
		return fmt.Errorf("snapshot of group %d to node %s: %w", h.GetGroup(), h.GetToNode(), err)
	}
	t.snapStats.sent.Add(1)
	return nil
}

// SetSnapshotRate bounds all outgoing snapshots together, in bytes per second;
// one under way follows with its next chunk. Negative means no limit.
func (t *Transport) SetSnapshotRate(perSecond int64) { t.snapPace.perSecond.Store(perSecond) }

func (t *Transport) snapshotHeader(h *api.SnapshotHeader) *api.SnapshotHeader {
	h = proto.CloneOf(h)
	h.ClusterId = t.Cluster()
	h.FromNode = string(t.o.Node)
	h.RecoveryEpoch = t.Recovery().Epoch
	if h.FormatVersion == 0 {
		h.FormatVersion = format.Version
	}
	return h
}

// sendSnapshot is the sending side of one stream. The stall timer cancels it
// when neither next, nor the pace, nor the receiver lets it go on.
func (p *peer) sendSnapshot(ctx context.Context, stall *time.Timer, h *api.SnapshotHeader, next func() ([]byte, error)) error {
	stream, err := api.NewPeerClient(p.snapshots).Snapshot(ctx)
	if err != nil {
		return lostPeer(err)
	}
	if err := p.sendChunks(ctx, stream, h, next, stall); err != nil {
		if !errors.Is(err, io.EOF) {
			return err // returning cancels the stream: the receiver aborts
		}
		// The receiver has ended the stream; its answer says why.
	}
	// Making a large snapshot durable may take longer than a stall; the
	// receiver's node is watched by keepalive.
	stall.Stop()
	done, err := stream.CloseAndRecv()
	if err != nil {
		return lostPeer(err)
	}
	if !done.GetAccepted() {
		return fault.New(fault.FailedPrecondition, "receiver refused the snapshot", "reason", done.GetReason())
	}
	return nil
}

// sendChunks sends the header, the records and the end mark. io.EOF means that
// the receiver ended the stream.
func (p *peer) sendChunks(ctx context.Context, stream api.Peer_SnapshotClient, h *api.SnapshotHeader, next func() ([]byte, error), stall *time.Timer) error {
	if err := p.sendChunk(stream, &api.SnapshotChunk{Header: h}, stall); err != nil {
		return err
	}
	for {
		records, err := next()
		if errors.Is(err, io.EOF) {
			return p.sendChunk(stream, &api.SnapshotChunk{Last: true}, stall)
		}
		if err != nil {
			return fmt.Errorf("reading the state: %w", err)
		}
		if len(records) > maxSnapshotRecords {
			return fault.New(fault.MessageTooLarge, "snapshot chunk is too large", "limit", maxSnapshotRecords, "actual", len(records))
		}
		if err := p.t.snapPace.wait(ctx, len(records)); err != nil {
			return lostPeer(err)
		}
		chunk := &api.SnapshotChunk{Records: records, Crc32C: crc32.Checksum(records, castagnoli)}
		if err := p.sendChunk(stream, chunk, stall); err != nil {
			return err
		}
		p.t.snapStats.bytesSent.Add(int64(len(records)))
	}
}

func (p *peer) sendChunk(stream api.Peer_SnapshotClient, c *api.SnapshotChunk, stall *time.Timer) error {
	if err := stream.Send(c); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return lostPeer(err)
	}
	stall.Reset(p.t.o.SnapshotStall)
	return nil
}

func lostPeer(err error) error {
	return fault.Wrap(fault.Unavailable, err, "stream of the snapshot broke")
}
