package client

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"time"

	api "kvstore/api/kvstore/v1"
)

// streamChunkBytes is the size of the pieces of a streamed value.
const streamChunkBytes = 256 << 10

// PutReader writes a key with a value read from r, in pieces, so that memory
// does not hold it twice. size is the number of bytes r will give; a negative
// size makes PutReader read all of r first. The write is repeated after a
// failure that certainly left it unexecuted only if r is an io.Seeker.
func (c *Client) PutReader(ctx context.Context, key string, r io.Reader, size int64, opts ...PutOption) (PutResult, error) {
	p := &putCall{namespace: c.cfg.Namespace, item: PutItem{Key: key}}
	for _, opt := range opts {
		opt.applyPut(p)
	}
	if err := c.checkPut(&p.item); err != nil {
		return PutResult{}, err
	}
	r, size, err := c.sizedReader(key, r, size)
	if err != nil {
		return PutResult{}, err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	u := &upload{client: c, call: p, source: r, size: size}
	u.seeker, _ = r.(io.Seeker)
	if u.seeker != nil {
		if u.start, err = u.seeker.Seek(0, io.SeekCurrent); err != nil {
			u.seeker = nil
		}
	}
	o := &operation{write: true, namespace: p.namespace, key: key, deadline: c.until(ctx)}
	err = c.try(ctx, o, nil, func(n *node) error { return u.send(ctx, n) })
	return u.result, err
}

// sizedReader makes the size known and refuses one that is too large.
func (c *Client) sizedReader(key string, r io.Reader, size int64) (io.Reader, int64, error) {
	limit := int64(c.topology().limits.valueBytes) // far below 1<<63
	if size < 0 {
		b, err := io.ReadAll(io.LimitReader(r, limit+1))
		if err != nil {
			return nil, 0, readFailed(key, err)
		}
		r, size = bytes.NewReader(b), int64(len(b))
	}
	if size > limit {
		return nil, 0, newError(CodeValueTooLarge, "the value is too large", "key", quoteKey(key), "limit_bytes", limit, "actual_bytes", size)
	}
	return r, size, nil
}

func readFailed(key string, err error) *Error {
	return wrapError(CodeInvalidArgument, err, "cannot read the value", "key", quoteKey(key))
}

// upload is one PutReader over its attempts.
type upload struct {
	client *Client
	call   *putCall
	source io.Reader
	size   int64
	seeker io.Seeker
	start  int64
	// used is set once bytes were taken from source.
	used   bool
	result PutResult
}

// send is one attempt. Until the last piece was handed over the server cannot
// have executed anything.
func (u *upload) send(ctx context.Context, n *node) error {
	if err := u.rewind(); err != nil {
		return err
	}
	rpc := n.begin(ctx, true)
	defer rpc.end()
	stream, err := rpc.stub().PutStream(rpc.ctx, u.client.callOptions()...)
	if err != nil {
		return u.unsent(rpc.failure(err))
	}
	sum, err := u.sendPieces(rpc, stream)
	if err != nil && !errors.Is(err, io.EOF) {
		return u.unsent(err)
	}
	complete := err == nil
	r, err := stream.CloseAndRecv()
	if err = rpc.failure(err); err != nil {
		if !complete {
			err = u.unsent(err)
		}
		return err
	}
	return u.finish(r, sum)
}

// unsent marks a lost attempt as not executed.
func (u *upload) unsent(err error) error {
	var lost *lostError
	if errors.As(err, &lost) {
		return &lostError{cause: lost.cause}
	}
	return err
}

// rewind goes back to the start of the value before a second attempt.
func (u *upload) rewind() error {
	if !u.used {
		return nil
	}
	key := u.call.item.Key
	if u.seeker == nil {
		return newError(CodeFailedPrecondition, "the write was not executed and its reader cannot be read again", "key", quoteKey(key))
	}
	if _, err := u.seeker.Seek(u.start, io.SeekStart); err != nil {
		return readFailed(key, err)
	}
	return nil
}

// pieceSender is the part of the stream that sendPieces needs.
type pieceSender interface {
	Send(*api.PutChunk) error
}

// sendPieces sends the request and the value, and returns its checksum. io.EOF
// means that the server ended the stream and has said why.
func (u *upload) sendPieces(rpc *rpc, stream pieceSender) (sum uint32, err error) {
	rpc.repeatable.Store(u.size > 0)
	if err := stream.Send(&api.PutChunk{Request: u.request(), Size: uint64(u.size)}); err != nil {
		return 0, sendFailure(rpc, err)
	}
	for left := u.size; left > 0; {
		// gRPC may hold on to a message after Send; the buffer is not reused.
		b := make([]byte, min(left, streamChunkBytes))
		u.used = true
		rpc.waiting.Store(0) // the source's turn
		if _, err := io.ReadFull(u.source, b); err != nil {
			return 0, readFailed(u.call.item.Key, err)
		}
		sum = crc32.Update(sum, castagnoli, b)
		left -= int64(len(b))
		rpc.repeatable.Store(left > 0)
		rpc.wait()
		if err := stream.Send(&api.PutChunk{Data: b}); err != nil {
			return 0, sendFailure(rpc, err)
		}
	}
	return sum, nil
}

func sendFailure(rpc *rpc, err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return rpc.failure(err)
}

func (u *upload) request() *api.PutRequest {
	i := &u.call.item
	return &api.PutRequest{
		Namespace: u.call.namespace, Key: i.Key, ContentType: i.ContentType, Encoding: i.Encoding, Checksum: i.Checksum,
		TtlSeconds: int64(i.TTL / time.Second), ExpiresAtMs: expiryMillis(i.ExpiresAt), Tags: i.Tags, Metadata: i.Metadata,
		Condition: conditionToAPI(&i.Condition), Lease: i.Lease, Fence: i.fence.toAPI(),
	}
}

func conditionToAPI(c *Condition) *api.Condition {
	if c.isZero() {
		return nil
	}
	out := &api.Condition{VersionMatch: c.Version, RevisionMatch: c.Revision, MustExist: c.MustExist, MustNotExist: c.MustNotExist, CreatedMatch: c.Created}
	if c.Lease != "" {
		out.LeaseMatch = &c.Lease
	}
	if c.HasValueEquals {
		out.ValueEquals = append([]byte{}, c.ValueEquals...)
	}
	return out
}

// finish takes the answer; sum is of the bytes that were sent.
func (u *upload) finish(r *api.PutResponse, sum uint32) error {
	u.result = PutResult{
		Version: r.GetVersion(), Revision: r.GetRevision(), CreatedAt: milliTime(r.GetCreatedAtMs()),
		UpdatedAt: milliTime(r.GetUpdatedAtMs()), ExpiresAt: milliTime(r.GetExpiresAtMs()), Checksum: r.GetChecksum(),
	}
	if r.GetChecksum() != 0 && r.GetChecksum() != sum {
		return newError(CodeCorruption, "the value was stored with another checksum than it was sent with", "key", quoteKey(u.call.item.Key), "expected", sum, "actual", r.GetChecksum())
	}
	return nil
}
