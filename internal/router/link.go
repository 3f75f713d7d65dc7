package router

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// link carries operations to one peer over one Forward stream. Operations
// queue; a sender takes all that wait and sends them as one frame, so frames
// grow with the load and nothing lingers. The receiver answers by operation
// id. What was handed to a stream that then breaks may or may not have been
// executed: reads go elsewhere, writes end with unknown_outcome. What was not
// handed to a stream is not executed.
type link struct {
	r    *Router
	node keyspace.NodeID
	wake chan struct{} // room for one signal to the sender
	// openUntil mirrors breaker.until, for usable without the mutex.
	openUntil atomic.Int64

	mu       sync.Mutex
	started  bool
	closed   bool
	queue    []*remoteOp          // not sent
	inflight map[uint64]*remoteOp // sent, not answered
	bytes    int64                // of queue and inflight
	nextID   uint64
	breaker  breaker
	stream   ForwardStream // nil while none is open
	gen      uint64        // counts streams, from 1
	answered bool          // the stream has answered at least once
	cancel   context.CancelFunc
	// sendingSince is when the running Send began, 0 while none runs.
	sendingSince time.Duration
}

// link returns the link to node, made on first use.
func (r *Router) link(node keyspace.NodeID) *link {
	if l, ok := r.links.Load(node); ok {
		return l.(*link)
	}
	l, _ := r.links.LoadOrStore(node, &link{
		r: r, node: node, wake: make(chan struct{}, 1), inflight: make(map[uint64]*remoteOp),
	})
	return l.(*link)
}

// usable reports whether the breaker lets an attempt through.
func (l *link) usable() bool {
	return int64(l.r.o.Clock.Mono()) >= l.openUntil.Load()
}

// enqueue takes op, or refuses it: overloaded when the link is full,
// unavailable when the breaker is open.
func (l *link) enqueue(op *remoteOp) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n := len(l.queue) + len(l.inflight); {
	case l.closed:
		return errClosed()
	case !l.breaker.allows(l.r.o.Clock.Mono()):
		return fault.New(fault.Unavailable, "peer does not answer", "node", l.node).WithRetry(DefaultBackoffMax)
	case n >= l.r.o.PeerInflight:
		return fault.New(fault.Overloaded, "too many operations wait for a peer",
			"node", l.node, "limit", l.r.o.PeerInflight, "actual", n).WithRetry(100 * time.Millisecond)
	case n > 0 && l.bytes+op.bytes > l.r.o.PeerBytes:
		return fault.New(fault.Overloaded, "too many bytes wait for a peer",
			"node", l.node, "limit_bytes", l.r.o.PeerBytes, "actual_bytes", l.bytes+op.bytes).WithRetry(100 * time.Millisecond)
	}
	if !l.started {
		// Not through hold: the frame this operation belongs to is open, so
		// wg is above zero and Close still waits.
		l.started = true
		l.r.wg.Add(1)
		go func() {
			defer l.r.wg.Done()
			l.send()
		}()
	}
	l.nextID++
	op.id = l.nextID
	op.op.Id = op.id
	l.queue = append(l.queue, op)
	l.bytes += op.bytes
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// send is the sender: one goroutine for the life of the router.
func (l *link) send() {
	defer l.close()
	for {
		select {
		case <-l.wake:
		case <-l.r.ctx.Done():
			return
		}
		// What is ready to run adds its operations to this frame first: each costs a
		// system call at both ends. This waits for nothing.
		runtime.Gosched()
		for l.waiting() {
			stream, gen, err := l.open()
			if err != nil {
				l.refuseQueue(err)
				break
			}
			frame := l.take(gen)
			if frame == nil {
				continue
			}
			err = stream.Send(frame)
			l.sent()
			if err != nil {
				l.broken(gen, rpcError(err, l.node))
			}
		}
	}
}

func (l *link) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) > 0
}

// openTimeout bounds how long a stream may take to open.
const openTimeout = 3 * time.Second

// open returns the open stream, or opens one.
func (l *link) open() (ForwardStream, uint64, error) {
	l.mu.Lock()
	open, gen := l.stream, l.gen
	l.mu.Unlock()
	if open != nil {
		return open, gen, nil
	}
	ctx, cancel := context.WithCancel(l.r.ctx)
	timer := time.AfterFunc(openTimeout, cancel)
	stream, err := l.r.o.Peers.Forward(ctx, l.node)
	if !timer.Stop() && err == nil {
		err = fault.New(fault.Unavailable, "peer took too long to open a stream",
			"node", l.node, "limit", openTimeout)
	}
	if err != nil {
		cancel()
		return nil, 0, l.openFailed(err)
	}
	l.mu.Lock()
	l.gen++
	l.stream, l.cancel, l.answered = stream, cancel, false
	gen = l.gen
	l.mu.Unlock()
	l.r.wg.Add(1) // the sender holds wg
	go func() {
		defer l.r.wg.Done()
		l.receive(stream, gen)
	}()
	return stream, gen, nil
}

// openFailed counts a failure; nothing that waits was executed.
func (l *link) openFailed(err error) error {
	l.mu.Lock()
	l.tripLocked()
	l.mu.Unlock()
	return fault.Wrap(fault.Unavailable, rpcError(err, l.node), "peer cannot be reached", "node", l.node)
}

func (l *link) tripLocked() {
	l.breaker.failed(l.r.o.Clock.Mono(), l.r.o.Rand.Uint64())
	l.openUntil.Store(int64(l.breaker.until))
}

// take moves the longest run of queued operations of one identity that fits a
// frame into flight. It returns nil when stream gen is gone.
func (l *link) take(gen uint64) *api.ForwardFrame {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream == nil || l.gen != gen || len(l.queue) == 0 {
		return nil
	}
	frame := &api.ForwardFrame{Identity: l.queue[0].identity}
	n, bytes := 0, int64(0)
	for _, op := range l.queue {
		if op.identity != frame.Identity || n > 0 && bytes+op.bytes > int64(l.r.o.ForwardBytes) {
			break
		}
		n++
		bytes += op.bytes
		op.stream = gen
		l.inflight[op.id] = op
		frame.Ops = append(frame.Ops, op.op)
		frame.Groups = append(frame.Groups, uint32(op.part.group))
	}
	rest := copy(l.queue, l.queue[n:])
	clear(l.queue[rest:])
	l.queue = l.queue[:rest]
	l.sendingSince = l.r.o.Clock.Mono()
	return frame
}

func (l *link) sent() {
	l.mu.Lock()
	l.sendingSince = 0
	l.mu.Unlock()
}

// refuseQueue answers everything that was not sent.
func (l *link) refuseQueue(err error) {
	l.mu.Lock()
	ops := l.queue
	l.queue = nil
	for _, op := range ops {
		l.bytes -= op.bytes
	}
	l.mu.Unlock()
	for _, op := range ops {
		op.part.forwarded(nil, err)
	}
}

// close ends the link with the router.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	gen := l.gen
	l.mu.Unlock()
	l.refuseQueue(errClosed())
	l.broken(gen, errClosed())
}
