package transport

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// streams knows the one stream or link of frames of each sending node.
type streams struct {
	mu sync.Mutex
	// current by sender; mu must be held.
	current map[keyspace.NodeID]*incoming
	// heard is when the last frame of a sender came, *atomic.Int64 on
	// env.Clock.Mono by keyspace.NodeID.
	heard sync.Map

	frames, messages, refused atomic.Int64
}

// incoming is one stream or link of frames being received.
type incoming struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when nothing of it is delivered any more
}

// claim makes in the stream of a sender. It ends the one before and waits
// until nothing of it is delivered any more.
func (s *streams) claim(from keyspace.NodeID, in *incoming) {
	s.mu.Lock()
	if s.current == nil {
		s.current = make(map[keyspace.NodeID]*incoming)
	}
	old := s.current[from]
	s.current[from] = in
	s.mu.Unlock()
	if old != nil {
		old.cancel()
		<-old.done
	}
}

func (s *streams) heardOf(from keyspace.NodeID) *atomic.Int64 {
	at, _ := s.heard.LoadOrStore(from, new(atomic.Int64))
	return at.(*atomic.Int64)
}

// Unheard returns for how long no frame came from a node; of one that never
// sent any, since this transport started.
func (t *Transport) Unheard(id keyspace.NodeID) time.Duration {
	last := t.startedAt.Load()
	if at, ok := t.streams.heard.Load(id); ok {
		last = max(last, at.(*atomic.Int64).Load())
	}
	return t.o.Clock.Mono() - time.Duration(last)
}

func (s *streams) leave(from keyspace.NodeID, in *incoming) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current[from] == in {
		delete(s.current, from)
	}
}

// enter counts a handler, unless the transport is not running.
func (t *Transport) enter() (Inbound, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	in := t.inbound.Load()
	if t.closed || in == nil || t.ctx.Err() != nil {
		return nil, fault.New(fault.Unavailable, "this node does not take peer streams now")
	}
	t.wg.Add(1)
	return *in, nil
}

// HandleFrames serves Peer.Frames: it delivers frames until the sender ends
// the stream, a frame is refused, a newer stream of the same sender comes, or
// the transport closes. Errors carry fault codes.
func (t *Transport) HandleFrames(stream api.Peer_FramesServer) error {
	in, err := t.enter()
	if err != nil {
		return err
	}
	defer t.wg.Done()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()

	r := &frameReader{t: t, in: in, ctx: ctx, recv: stream.Recv}
	ended := make(chan error, 1)
	t.wg.Go(func() { ended <- r.deliver(cancel) })
	select {
	case err := <-ended:
		if err != nil {
			return err
		}
		return stream.SendAndClose(&api.FramesDone{})
	case <-ctx.Done():
		return errReplaced()
	}
}

func errReplaced() error {
	return fault.New(fault.Unavailable, "the stream of frames is replaced or this node stops")
}

// frameReader hands the frames of one stream or link to the host. On a stream
// it has a goroutine of its own, because only the handler's return ends a stream that waits for
// its next frame; Close waits for it.
type frameReader struct {
	t    *Transport
	in   Inbound
	ctx  context.Context
	recv func() (*api.Frame, error)
}

func (r *frameReader) next() (*api.Frame, error) {
	f, err := r.recv()
	if r.ctx.Err() != nil {
		return nil, errReplaced()
	}
	return f, err
}

// deliver hands over frames until the stream ends.
func (r *frameReader) deliver(cancel context.CancelFunc) error {
	f, err := r.first()
	if err != nil {
		return endOfFrames(err)
	}
	return r.follow(f, cancel)
}

// first reads the frame that names the sender.
func (r *frameReader) first() (*api.Frame, error) {
	f, err := r.next()
	if err != nil {
		return nil, err
	}
	return f, r.check(f, "")
}

// follow hands over f and the frames after it. A newer stream of the same
// sender calls cancel.
func (r *frameReader) follow(f *api.Frame, cancel context.CancelFunc) (err error) {
	from := keyspace.NodeID(f.GetFromNode())
	in := &incoming{cancel: cancel, done: make(chan struct{})}
	defer r.t.streams.leave(from, in)
	defer close(in.done)
	r.t.streams.claim(from, in)
	r.t.heardFrom(from)
	heard := r.t.streams.heardOf(from)
	for {
		heard.Store(int64(r.t.o.Clock.Mono()))
		r.hand(from, f)
		if f, err = r.next(); err != nil {
			return endOfFrames(err)
		}
		if err := r.check(f, from); err != nil {
			return err
		}
	}
}

// hand delivers a frame, unless all it does is to name the sender.
func (r *frameReader) hand(from keyspace.NodeID, f *api.Frame) {
	msgs := f.GetMessages()
	if len(msgs) == 0 {
		return
	}
	r.t.streams.frames.Add(1)
	r.t.streams.messages.Add(int64(len(msgs)))
	r.in.Deliver(from, f.GetClockMs(), msgs)
}

// check refuses a frame that is not for us, or not from the stream's sender.
func (r *frameReader) check(f *api.Frame, from keyspace.NodeID) error {
	err := r.t.checkAddress(f.GetClusterId(), f.GetFromNode(), f.GetToNode(), f.GetFormatVersion())
	if err == nil {
		err = r.t.checkRecovery(f.GetRecoveryEpoch())
	}
	if err == nil && from != "" && string(from) != f.GetFromNode() {
		err = fault.New(fault.InvalidArgument, "sender changes within a stream of frames", "from", from, "actual", f.GetFromNode())
	}
	if err != nil {
		r.t.streams.refused.Add(1)
		r.t.o.Logger.Warn("refused a frame", "from", f.GetFromNode(), "error", err)
	}
	return err
}

// endOfFrames turns the sender's normal end into success.
func endOfFrames(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// heardFrom hastens our own connection to a node that has just connected.
func (t *Transport) heardFrom(id keyspace.NodeID) {
	if p := (*t.peers.Load())[id]; p != nil && !t.Up(id) {
		p.wakeUp()
	}
}
