package rpc

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/guard"
	"kvstore/internal/server/status"
)

// maxExecute bounds the operations handed to the backend at once, and with it
// what a stream may add beyond its bound in one step.
const maxExecute = 1024

// Pipeline carries many operations over one stream.
//
// The reader takes frames and hands their operations to the backend, which
// answers in any order from any goroutine (pipeline.answer: append, signal).
// The handler's own goroutine sends whatever has been answered since its last
// frame: under load frames grow by themselves, without load an answer leaves
// at once. There is no linger and no goroutine per operation.
//
// In flight are the operations read and not yet sent back, and their bytes. At
// the bound the reader stops reading; flow control then stops the client.
func (s *Service) Pipeline(ss grpc.BidiStreamingServer[api.PipelineRequest, api.PipelineResponse]) error {
	if !s.hold() {
		return errDraining()
	}
	p := &pipeline{
		s: s, ctx: ss.Context(), identity: guard.Identity(ss.Context()),
		wake: make(chan struct{}, 1), space: make(chan struct{}, 1), readDone: make(chan struct{}),
	}
	// The reader ends when this handler has returned: its Recv fails then.
	// Close of the service waits for it.
	go func() {
		defer s.readers.Done()
		defer close(p.readDone)
		p.readErr = p.read(ss)
	}()
	return p.write(ss)
}

func errDraining() error {
	return fault.New(fault.Unavailable, "this node is stopping; what was not answered was not executed").WithRetry(retryDraining)
}

const retryDraining = 50 * time.Millisecond

// pipeline is one stream.
type pipeline struct {
	s        *Service
	ctx      context.Context
	identity string
	// wake says that there are answers, or that the stream may be finished;
	// space that the reader may look at its bound again.
	wake, space chan struct{}
	readDone    chan struct{}
	readErr     error // valid when readDone is closed

	mu       sync.Mutex
	answers  []*api.PipelineResult // guarded by mu: not sent yet
	inflight int                   // guarded by mu: read and not sent
	bytes    int64                 // guarded by mu: their charge
	draining bool                  // guarded by mu: nothing more is begun
	recent   int64                 // guarded by mu: what a read is expected to return
}

// read hands the stream's operations to the backend until the stream ends.
func (p *pipeline) read(ss grpc.BidiStreamingServer[api.PipelineRequest, api.PipelineResponse]) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = p.s.o.Guard.Recovered("Pipeline", r)
		}
	}()
	for {
		req, err := ss.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for ops := range slices.Chunk(req.GetOps(), maxExecute) {
			if err := p.execute(ops); err != nil {
				return err
			}
		}
	}
}

// execute waits for room and hands ops to the backend.
func (p *pipeline) execute(ops []*api.PipelineOp) error {
	f := p.newFrame(ops)
	for {
		ok, err := p.begin(f)
		if err != nil {
			return err
		}
		if ok {
			break
		}
		select {
		case <-p.space:
		case <-p.s.drained:
			return nil // never begun: the stream's status says so
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
	}
	calls := f.calls(ops)
	if err := p.s.o.Guard.Acquire(p.ctx, len(ops), f.bytes); err != nil {
		f.refuse(calls, err)
		return nil
	}
	f.held = true
	p.s.b.Execute(p.ctx, calls, f.done)
	return nil
}

// begin counts a frame as in flight when there is room for it. One larger than
// the bound goes alone.
func (p *pipeline) begin(f *frame) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return false, errDraining()
	}
	full := p.inflight+f.open > p.s.o.MaxInflight || p.bytes+f.charge > p.s.o.MaxInflightBytes
	if full && p.inflight > 0 {
		return false, nil
	}
	p.inflight += f.open
	p.bytes += f.charge
	return true, nil
}

// answer queues results; it is called by the backend and does not block.
func (p *pipeline) answer(res *api.PipelineResult, charged int64) {
	size := resultBytes(res)
	p.mu.Lock()
	p.answers = append(p.answers, res)
	p.bytes += size - charged
	if _, ok := res.Result.(*api.PipelineResult_Get); ok {
		p.recent = max(size, p.recent-p.recent>>4)
	}
	p.mu.Unlock()
	signal(p.wake)
}

// write sends answers until the stream is finished.
func (p *pipeline) write(ss grpc.BidiStreamingServer[api.PipelineRequest, api.PipelineResponse]) error {
	drained := p.s.drained
	readDone := p.readDone
	for {
		select {
		case <-p.wake:
		case <-readDone:
			readDone = nil
			if err := p.ended(); err != nil {
				return err
			}
		case <-drained:
			drained = nil
			p.mu.Lock()
			p.draining = true
			p.mu.Unlock()
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
		if err := p.send(ss); err != nil {
			return err
		}
		switch idle := p.idle(); {
		case idle && drained == nil:
			return errDraining()
		case idle && readDone == nil:
			return nil
		}
	}
}

// ended returns why the reader ended, nil when the client closed its side.
func (p *pipeline) ended() error {
	if err := p.readErr; err != nil && status.Fault(err).Code != fault.Unavailable {
		return err
	}
	return nil
}

func (p *pipeline) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inflight == 0
}

// send sends what has been answered, in frames of bounded size.
func (p *pipeline) send(ss grpc.BidiStreamingServer[api.PipelineRequest, api.PipelineResponse]) error {
	for {
		p.mu.Lock()
		answers := p.answers
		p.answers = nil
		p.mu.Unlock()
		if len(answers) == 0 {
			return nil
		}
		for len(answers) > 0 {
			n, size := cut(answers, p.s.o.FrameBytes)
			if err := ss.Send(&api.PipelineResponse{Results: answers[:n:n]}); err != nil {
				return err
			}
			answers = answers[n:]
			p.mu.Lock()
			p.inflight -= n
			p.bytes -= size
			p.mu.Unlock()
			signal(p.space)
		}
	}
}

// signal leaves one token in c.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
