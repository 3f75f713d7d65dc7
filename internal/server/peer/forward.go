package peer

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
	"kvstore/internal/server/status"
)

// Forward implements api.PeerServer: operations of a peer, executed here and
// answered in the order they end. One goroutine reads, one writes; results that
// wait while a frame is sent leave together in the next.
func (s *Server) Forward(stream api.Peer_ForwardServer) error {
	p, err := s.parts.get()
	if err != nil {
		return status.Error(err)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	f := &forward{
		stream: stream, sendBytes: s.o.SendBytes, wake: make(chan struct{}, 1),
		slots: make(chan struct{}, s.o.MaxForwards), ctx: ctx, cancel: cancel,
	}
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		f.write()
	}()
	err = f.read(p.router)
	f.end()
	return status.Error(err)
}

// forward is one Forward stream.
type forward struct {
	stream    api.Peer_ForwardServer
	sendBytes int
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	// slots has a place for each operation that is not answered.
	slots chan struct{}
	// wake has room for one signal to the writer.
	wake chan struct{}

	mu      sync.Mutex
	results []*api.PipelineResult // guarded by mu; bounded by slots
	closed  bool                  // guarded by mu: nothing more will come
}

// read hands over frames until the peer ends the stream or it breaks.
func (f *forward) read(r Router) error {
	for {
		frame, err := f.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f.execute(r, frame); err != nil {
			return err
		}
	}
}

// execute hands over a frame, in pieces when it has more operations than there
// are slots. A peer that does not read its answers is not read either.
func (f *forward) execute(r Router, frame *api.ForwardFrame) error {
	calls := make([]*router.Call, 0, len(frame.Ops))
	routed := len(frame.Groups) == len(frame.Ops)
	for i, op := range frame.Ops {
		select {
		case f.slots <- struct{}{}:
		default:
			r.Execute(f.ctx, calls, f.done)
			calls = make([]*router.Call, 0, len(frame.Ops))
			select {
			case f.slots <- struct{}{}:
			case <-f.ctx.Done():
				return f.ctx.Err()
			}
		}
		c := &router.Call{Op: op, Identity: frame.Identity, Forwarded: true, Routed: routed, Encoded: true}
		if routed {
			c.Group = keyspace.GroupID(frame.Groups[i])
		}
		calls = append(calls, c)
	}
	r.Execute(f.ctx, calls, f.done)
	return nil
}

// done queues a result for the writer.
func (f *forward) done(c *router.Call) {
	f.mu.Lock()
	f.results = append(f.results, c.Result)
	f.mu.Unlock()
	f.signal()
}

func (f *forward) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// end waits for the operations under way: their slots come back.
func (f *forward) end() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.signal()
	f.wg.Wait()
}

// write sends results until the stream is over and nothing is under way, or
// until a send fails.
func (f *forward) write() {
	broken := false
	for {
		results, over := f.take()
		switch {
		case len(results) == 0 && over:
			return
		case len(results) == 0:
			<-f.wake
			runtime.Gosched() // what is ready to answer joins this frame
		case broken:
			f.release(len(results))
		default:
			err := f.stream.Send(&api.PipelineResponse{Results: results})
			f.release(len(results))
			if err != nil {
				broken = true
				f.cancel() // the reader stops; what is under way ends unanswered
			}
		}
	}
}

// take returns the results of the next answer frame. over is true when nothing
// waits and nothing will come.
func (f *forward) take() (results []*api.PipelineResult, over bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, bytes := 0, 0
	for _, res := range f.results {
		size := atMost(res)
		if n > 0 && bytes+size > f.sendBytes {
			break
		}
		n++
		bytes += size
	}
	results = append(results, f.results[:n]...)
	rest := copy(f.results, f.results[n:])
	clear(f.results[rest:])
	f.results = f.results[:rest]
	return results, f.closed && rest == 0 && len(f.slots) == n
}

// smallResult is more than what a write's result takes.
const smallResult = 128

// atMost is the size of a result in bytes, or a bound of it where that is known
// without looking: who encodes it measures it anyway.
func atMost(res *api.PipelineResult) int {
	if res.GetStatus() == nil {
		switch res.GetResult().(type) {
		case *api.PipelineResult_Put, *api.PipelineResult_Delete, *api.PipelineResult_Touch:
			return smallResult
		}
	}
	return proto.Size(res)
}

func (f *forward) release(n int) {
	for range n {
		<-f.slots
	}
}
