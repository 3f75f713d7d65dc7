package client

import (
	"context"
	"errors"
	"io"
	"time"

	api "kvstore/api/kvstore/v1"
)

// ProfileInfo says how a profile came about.
type ProfileInfo struct {
	// Size is in bytes.
	Size uint64
	// Took is how long the node recorded.
	Took time.Duration
	// Cut says that the node ended early, at its bound of bytes.
	Cut bool
}

// profileGrace is what a profile may take beside its recording.
const profileGrace = 30 * time.Second

// Profile makes one node, by its id, name or gRPC address, record a profile of
// a type: cpu, heap, allocs, goroutine, mutex, block (pprof files) or trace
// (for go tool trace). cpu, mutex, block and trace record for d, at most 60 s;
// 0 is 10 s. What is written to w before an error is of no use.
func (c *Client) Profile(ctx context.Context, name, kind string, d time.Duration, w io.Writer) (ProfileInfo, error) {
	n := c.findNode(name)
	if n == nil {
		return ProfileInfo{}, newError(CodeNotFound, "no such node", "node", name)
	}
	ctx, cancel := context.WithTimeout(ctx, d+profileGrace)
	defer cancel()
	var info ProfileInfo
	o := &operation{from: Any, deadline: c.until(ctx)}
	err := c.try(ctx, o, n, func(n *node) (err error) {
		info, err = n.profile(ctx, &api.ProfileRequest{Type: kind, DurationMs: d.Milliseconds()}, w)
		return err
	})
	return info, err
}

// profile is not waited for like other requests: the node is silent while it
// records.
func (n *node) profile(ctx context.Context, q *api.ProfileRequest, w io.Writer) (info ProfileInfo, err error) {
	r := n.begin(ctx, false)
	defer r.end()
	r.waiting.Store(0)
	if err := r.conn.ready(ctx); err != nil {
		n.failed(err)
		return info, &lostError{cause: err}
	}
	stream, err := r.stub().Profile(r.ctx, q, n.client.callOptions()...)
	if err != nil {
		return info, r.failure(err)
	}
	for received := uint64(0); ; {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if received != info.Size {
				return info, newError(CodeInternal, "the profile has another size than announced", "expected", info.Size, "actual", received)
			}
			return info, r.failure(nil)
		}
		if err != nil {
			return info, r.failure(err)
		}
		if received == 0 {
			info = ProfileInfo{Size: chunk.GetSize(), Took: millis(chunk.GetRecordedMs()), Cut: chunk.GetCut()}
		}
		received += uint64(len(chunk.GetData()))
		if _, err := w.Write(chunk.GetData()); err != nil {
			return info, wrapError(CodeInternal, err, "cannot keep the profile")
		}
	}
}
