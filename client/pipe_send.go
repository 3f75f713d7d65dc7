package client

import (
	"context"
	"errors"
	"io"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/pipelink"
	"kvstore/internal/wirebuf"
)

const (
	// frameBytes and frameOps bound a frame. A larger operation goes alone.
	frameBytes = 512 << 10
	frameOps   = 4096
)

// frameStream carries encoded frames: a stream of gRPC, or a link.
type frameStream interface {
	// SendMsg takes a *[]byte of wirebuf.Pool.
	SendMsg(m any) error
	// RecvMsg fills a *frame.
	RecvMsg(m any) error
}

// pipeStream is one life of a pipe's stream.
type pipeStream struct {
	frameStream
	// head is the room that the stream wants before a frame.
	head   int
	cancel context.CancelFunc
	// ended is closed by the receiver, after err and received were set.
	ended    chan struct{}
	err      error
	received uint64
}

// run is the sender. It returns when ctx ends, with every call ended.
func (p *pipe) run(ctx context.Context) {
	var st *pipeStream
	defer func() {
		p.closeStream(st)
		p.failAll(func(sent bool) error { return &lostError{sent: sent, cause: errClientClosed()} }, true)
	}()
	for {
		var ended chan struct{}
		if st != nil {
			ended = st.ended
		}
		select {
		case <-ctx.Done():
			return
		case <-ended:
			p.streamLost(st)
			st = nil
		case <-p.wake:
			st = p.flush(ctx, st)
		}
	}
}

// flush sends until the queue is empty. It returns the stream, nil when it
// was lost or could not be opened.
func (p *pipe) flush(ctx context.Context, st *pipeStream) *pipeStream {
	if p.queued() == 0 {
		return st
	}
	if st == nil {
		opened, err := p.open(ctx)
		if err != nil {
			p.node.failed(err)
			p.failAll(func(bool) error { return &lostError{cause: err} }, false)
			return nil
		}
		st = opened
	}
	p.gather()
	for {
		batch := p.takeQueue()
		if len(batch) == 0 {
			return st
		}
		if err := p.sendBatch(st, batch); err != nil {
			p.sendFailed(st, err)
			return nil
		}
	}
}

// reasonWait is how long the receiver may take to get the reason after SendMsg
// saw the end of the stream.
const reasonWait = 100 * time.Millisecond

// sendFailed ends the stream after SendMsg failed. io.EOF means that the
// stream ended before and that the receiver gets the reason, except when gRPC
// lost the connection before it sent the headers: it then may have begun the
// stream anew for the receiver, which waits on it.
func (p *pipe) sendFailed(st *pipeStream, err error) {
	limit := time.AfterFunc(reasonWait, st.cancel)
	defer limit.Stop()
	if !errors.Is(err, io.EOF) {
		p.closeStream(st)
		st.err = err
	}
	<-st.ended
	p.streamLost(st)
}

// maxYields bounds how often the sender lets others go first.
const maxYields = 5

// gather lets the goroutines that the last answers woke run first, as long as more
// operations come of it: they join this frame, and fewer frames cost less at both
// ends. One yield is not enough where another processor takes the sender up at once.
// This waits for nothing.
func (p *pipe) gather() {
	for n, before := 0, 0; n < maxYields; n++ {
		runtime.Gosched()
		now := p.queued()
		if now == before {
			return
		}
		before = now
	}
}

func (p *pipe) queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

// takeQueue swaps the queue out.
func (p *pipe) takeQueue() []entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	batch := p.queue
	p.queue, p.spare = clearEntries(p.spare), batch
	p.queueBytes = 0
	return batch
}

// sendBatch sends everything in batch, in as many frames as the bounds need.
func (p *pipe) sendBatch(st *pipeStream, batch []entry) error {
	for len(batch) > 0 {
		n, size := frameExtent(batch)
		p.markTaken(batch[:n])
		buf := wirebuf.Pool.Get(st.head + size)
		b := (*buf)[:st.head]
		ops := 0
		for _, e := range batch[:n] {
			if e.c != nil {
				b = appendOp(b, e.id, e.c.body, e.c.timeout)
				ops++
			}
		}
		*buf = b
		batch = batch[n:]
		if ops == 0 {
			wirebuf.Pool.Put(buf)
			continue
		}
		p.node.client.counters.frames.Add(1)
		p.sentFrame.Store(p.takenFrame)
		if err := st.SendMsg(buf); err != nil {
			return err
		}
	}
	return nil
}

// frameExtent says how many entries fit into the next frame and how many bytes
// that takes at most.
func frameExtent(batch []entry) (n, size int) {
	for n < len(batch) && n < frameOps {
		more := len(batch[n].c.body) + opOverheadBytes
		if n > 0 && size+more > frameBytes {
			break
		}
		size += more
		n++
	}
	return n, size
}

// markTaken gives the calls that are still wanted to the next frame and drops
// the others from batch.
func (p *pipe) markTaken(batch []entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takenFrame++
	for i := range batch {
		if s := p.lookup(batch[i].id); s != nil {
			s.frame = p.takenFrame
		} else {
			batch[i].c = nil
		}
	}
}

// pipelineDesc is the stream's description; the server's is generated.
var pipelineDesc = grpc.StreamDesc{StreamName: "Pipeline", ServerStreams: true, ClientStreams: true}

// open opens the stream; it fails within Config.ConnectTimeout.
func (p *pipe) open(ctx context.Context) (*pipeStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	st := &pipeStream{cancel: cancel, ended: make(chan struct{})}
	if err := p.connect(ctx, st); err != nil {
		cancel()
		return nil, err
	}
	p.conn.hear()
	// The sender waits for the receiver before it ends.
	go p.receive(st)
	return st, nil
}

// connect opens a link, or a stream of gRPC where the server, or what is between,
// knows no links.
func (p *pipe) connect(ctx context.Context, st *pipeStream) error {
	if p.node.linksKnown() {
		l, err := p.openLink(ctx)
		if !errors.Is(err, pipelink.ErrNoLinks) {
			st.frameStream, st.head = l, pipelink.HeadBytes
			return err
		}
		p.node.noLinks()
	}
	limit := time.AfterFunc(p.node.client.cfg.ConnectTimeout, st.cancel)
	options := append(p.node.client.callOptions(), grpc.ForceCodecV2(rawCodec{}))
	s, err := p.conn.cc.NewStream(ctx, &pipelineDesc, api.KVStore_Pipeline_FullMethodName, options...)
	if err == nil && !limit.Stop() {
		err = status.Error(codes.Unavailable, "connecting took too long")
	}
	st.frameStream = s
	return err
}

// closeStream ends the stream and its receiver.
func (p *pipe) closeStream(st *pipeStream) {
	if st == nil {
		return
	}
	st.cancel()
	<-st.ended
}

// streamLost ends every call of a stream whose receiver has ended.
func (p *pipe) streamLost(st *pipeStream) {
	st.cancel()
	if refusal := st.refused(); refusal != nil {
		p.failAll(func(bool) error { return refusal }, false)
		return
	}
	if !errors.Is(st.err, io.EOF) {
		p.node.failed(st.err)
	}
	p.failAll(func(sent bool) error { return &lostError{sent: sent, cause: st.err} }, false)
}

// refused returns the server's error when it says that what it did not answer
// was not executed: it is stopping, or it turned the whole stream down.
func (st *pipeStream) refused() *Error {
	e, answered := errorFromGRPC(st.err)
	switch e.Code {
	case CodeUnavailable:
		if answered {
			return e
		}
	case CodeOverloaded, CodeInvalidArgument:
		if answered && st.received == 0 {
			return e
		}
	case CodeUnauthenticated, CodePermissionDenied, CodeUnsupported:
		if st.received == 0 {
			return e
		}
	}
	return nil
}
