package client

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
)

// ValueReader reads one value in pieces. It must be closed. When the node it
// reads from fails, it goes on at another one with the same version.
type ValueReader struct {
	// Record is the record without its value.
	Record Record

	client  *Client
	ctx     context.Context // bounds the reads, as it bounded GetReader
	request *api.GetRequest
	from    ReadFrom
	stream  grpc.ServerStreamingClient[api.GetChunk]
	rpc     *rpc
	piece   []byte
	offset  uint64
	// skip is what accept still drops after a resume.
	skip    uint64
	sum     uint32
	resumes int
	err     error
}

// maxResumes bounds how often a value is continued on another node without a
// byte in between.
const maxResumes = 8

// GetReader reads a key whose value may be large. ctx bounds all reading; the
// checksum is verified when the end is reached.
func (c *Client) GetReader(ctx context.Context, key string, opts ...GetOption) (*ValueReader, error) {
	if err := c.checkKey(key); err != nil {
		return nil, err
	}
	r := readCall{namespace: c.cfg.Namespace, from: c.cfg.Read}
	for _, opt := range opts {
		opt.applyGet(&r)
	}
	if r.at.err != nil {
		return nil, r.at.err
	}
	v := &ValueReader{client: c, ctx: ctx, from: r.source(), request: &api.GetRequest{
		Namespace: r.namespace, Key: key, Consistency: api.Consistency(r.consistency),
		MaxStalenessMs: ceilMillis(r.maxAge), KeysOnly: r.keysOnly, AtRevision: r.at.revision, AtTimeMs: -r.at.agoMs,
	}}
	head, err := v.open()
	if err != nil {
		return nil, err
	}
	if err := r.at.served(head.GetReadRevision()); err != nil {
		v.rpc.end()
		return nil, err
	}
	v.Record = recordFromAPI(head.GetRecord())
	v.Record.Read = ReadInfo{Consistency: Consistency(head.GetConsistency()), Revision: head.GetReadRevision(), Age: millis(head.GetAgeMs())}
	return v, nil
}

// open starts a stream and returns its head, within the client's timeout.
func (v *ValueReader) open() (*api.GetResponse, error) {
	deadline := v.client.now() + v.client.cfg.Timeout
	if d, ok := v.ctx.Deadline(); ok {
		deadline = v.client.now() + time.Until(d)
	}
	o := &operation{namespace: v.request.GetNamespace(), key: v.request.GetKey(), from: v.from, deadline: deadline}
	var head *api.GetResponse
	err := v.client.try(v.ctx, o, nil, func(n *node) (err error) {
		head, err = v.openOn(n, deadline)
		return err
	})
	return head, err
}

func (v *ValueReader) openOn(n *node, deadline time.Duration) (*api.GetResponse, error) {
	r := n.begin(v.ctx, true)
	limit := time.AfterFunc(deadline-v.client.now(), func() { r.cancel(context.DeadlineExceeded) })
	stream, err := r.stub().GetStream(r.ctx, v.request, v.client.callOptions()...)
	var first *api.GetChunk
	if err == nil {
		first, err = stream.Recv()
	}
	if err == nil && !limit.Stop() {
		err = context.DeadlineExceeded
	}
	if err = r.failure(err); err != nil {
		r.end()
		return nil, err
	}
	v.stream, v.rpc = stream, r
	v.accept(first.GetData())
	return first.GetResponse(), nil
}

// Read implements io.Reader.
func (v *ValueReader) Read(p []byte) (int, error) {
	for len(v.piece) == 0 && v.err == nil {
		v.err = v.next()
	}
	if len(v.piece) == 0 {
		return 0, v.err
	}
	n := copy(p, v.piece)
	v.sum = crc32.Update(v.sum, castagnoli, v.piece[:n])
	v.piece = v.piece[n:]
	v.offset += uint64(n)
	v.resumes = 0
	return n, nil
}

// next gets the next piece, from another node if this one fails.
func (v *ValueReader) next() error {
	v.rpc.wait()
	chunk, err := v.stream.Recv()
	v.rpc.waiting.Store(0)
	switch {
	case err == nil:
		v.rpc.conn.hear()
		v.accept(chunk.GetData())
		return nil
	case errors.Is(err, io.EOF):
		return v.end()
	}
	if v.ctx.Err() != nil {
		return contextError(v.ctx.Err())
	}
	failure := v.rpc.failure(err)
	if e := (*Error)(nil); errors.As(failure, &e) && !notExecuted(e.Code) {
		return e
	}
	if v.resumes++; v.resumes > maxResumes {
		return wrapError(CodeUnavailable, err, "reading the value failed too often", "limit", maxResumes)
	}
	return v.resume()
}

// accept takes a piece without the bytes that were read before a resume.
func (v *ValueReader) accept(piece []byte) {
	n := min(v.skip, uint64(len(piece)))
	v.piece, v.skip = piece[n:], v.skip-n
}

// end is io.EOF when the value is whole.
func (v *ValueReader) end() error {
	if v.request.GetKeysOnly() {
		return io.EOF
	}
	if v.offset != v.Record.Size {
		return newError(CodeCorruption, "the value read has another size than its record", "key", quoteKey(v.Record.Key), "expected", v.Record.Size, "actual", v.offset)
	}
	if err := v.Record.verifySum(v.sum); err != nil {
		return err
	}
	return io.EOF
}

// resume opens the same version again; accept skips what was read of it.
func (v *ValueReader) resume() error {
	v.rpc.end()
	v.skip = v.offset
	v.request.AtRevision, v.request.AtTimeMs = v.Record.Revision, 0
	v.request.Consistency, v.request.MaxStalenessMs = api.Consistency_CONSISTENCY_LINEARIZABLE, 0
	head, err := v.open()
	if err != nil {
		return err
	}
	if got := head.GetRecord().GetRevision(); got != v.Record.Revision {
		return newError(CodeCorruption, "the version being read was not found again", "key", quoteKey(v.Record.Key), "expected", v.Record.Revision, "actual", got)
	}
	return nil
}

// Close ends reading. It returns nil.
func (v *ValueReader) Close() error {
	v.rpc.end()
	if v.err == nil {
		v.err = newError(CodeClosed, "the reader was closed")
	}
	v.piece = nil
	return nil
}
