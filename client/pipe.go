package client

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pipe carries operations over one Pipeline stream of one connection.
//
// Callers encode their operation and put it into queue. One sender goroutine
// takes everything queued since its last Send into one frame: there is no
// linger, what accumulates while a frame is being sent is the next batch. One
// receiver goroutine per stream hands each answer, still encoded, to its
// caller. An operation thus costs two goroutine switches at most, shared with
// the others of its frame.
//
// Every queued or outstanding call has a slot. Its id on the wire is the
// slot's position and generation, so finding a call is an array access and an
// answer that comes after its call was withdrawn finds nothing. Whoever takes
// the call out of its slot, with mu held, owns ending it: the receiver with an
// answer, the sender when the stream is lost, the caller when its context
// ends, the sweep when the deadline passed or the node is suspect.
//
// The stream is opened when there is something to send and belongs to the
// sender, which alone ends it.
type pipe struct {
	node *node
	conn *nodeConn

	wake chan struct{}

	mu sync.Mutex
	// queue holds what no frame has taken; entries whose slot moved on were
	// withdrawn.
	queue      []entry
	queueBytes int
	slots      []slot
	free       []uint32
	running    bool
	closed     bool

	// takenFrame numbers the frames; the sender's.
	takenFrame uint64
	// sentFrame is the last frame given to the stream: only calls up to it can
	// have answers.
	sentFrame atomic.Uint64
	// spare is the sender's, swapped with queue.
	spare []entry
	// raw is the socket of the link, as nodeConn.raw.
	raw atomic.Pointer[net.Conn]
}

type slot struct {
	c *call
	// gen counts the uses of the slot, from 1.
	gen uint64
	// frame that took the call; 0 while it is queued.
	frame uint64
}

type entry struct {
	c  *call
	id uint64
}

// The id of a call: generation, then position.
const (
	slotBits = 20
	slotMask = 1<<slotBits - 1
)

func (p *pipe) init(nc *nodeConn) {
	p.node, p.conn, p.wake = nc.node, nc, make(chan struct{}, 1)
}

// enqueue gives c to the sender and returns its id.
func (p *pipe) enqueue(c *call) (id uint64, err error) {
	limits := &p.node.client.cfg
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, &lostError{cause: newError(CodeClosed, "the connection was closed")}
	}
	if p.queueBytes+len(c.body) > limits.MaxPendingBytes && len(p.queue) > 0 {
		return 0, newError(CodeOverloaded, "too many bytes wait to be sent", "limit_bytes", limits.MaxPendingBytes, "actual_bytes", p.queueBytes+len(c.body))
	}
	if id = p.addSlot(c, limits.MaxPending); id == 0 {
		return 0, newError(CodeOverloaded, "too many operations wait on this connection", "limit", limits.MaxPending)
	}
	if !p.running {
		if !p.node.client.spawn(func(context.Context) { p.run(p.node.ctx) }) {
			p.takeSlot(id)
			return 0, errClientClosed()
		}
		p.running = true
	}
	p.queue = append(p.queue, entry{c, id})
	p.queueBytes += len(c.body)
	if len(p.queue) == 1 {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	return id, nil
}

// addSlot returns 0 when there are maxPending calls. mu must be held.
func (p *pipe) addSlot(c *call, maxPending int) uint64 {
	var i uint32
	if n := len(p.free); n > 0 {
		i = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		if len(p.slots) >= maxPending {
			return 0
		}
		i = uint32(len(p.slots)) // at most 1<<slotBits
		p.slots = append(p.slots, slot{})
	}
	s := &p.slots[i]
	s.c, s.frame = c, 0
	s.gen++
	p.node.outstanding.Add(1)
	return s.gen<<slotBits | uint64(i)
}

// lookup returns the slot of id when its call is still there. mu must be held.
func (p *pipe) lookup(id uint64) *slot {
	i := id & slotMask
	if i >= uint64(len(p.slots)) {
		return nil
	}
	s := &p.slots[i]
	if s.c == nil || s.gen != id>>slotBits {
		return nil
	}
	return s
}

// takeSlot takes the call out; the caller then ends it. mu must be held.
func (p *pipe) takeSlot(id uint64) (c *call, sent bool) {
	s := p.lookup(id)
	if s == nil {
		return nil, false
	}
	sent = s.frame != 0
	p.node.outstanding.Add(-1)
	return p.empty(s, id), sent
}

// empty takes the call of id out of s, and leaves it in node.outstanding. mu must be
// held.
func (p *pipe) empty(s *slot, id uint64) *call {
	c := s.c
	s.c = nil
	p.free = append(p.free, uint32(id&slotMask)) // masked
	return c
}

// withdraw takes a call back for its caller. ok is false when it is ending
// already and done will be signaled.
func (p *pipe) withdraw(id uint64) (sent, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, sent := p.takeSlot(id)
	return sent, c != nil
}

// sweep ends calls whose time is over and, when the node is suspect, the reads
// among the others, so that they can go elsewhere. It returns how long the
// oldest of the rest has been waiting.
func (p *pipe) sweep(now time.Duration, suspect error) (oldest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.slots {
		s := &p.slots[i]
		if s.c == nil {
			continue
		}
		id := s.gen<<slotBits | uint64(i)
		switch {
		case s.c.expires != 0 && now >= s.c.expires:
			p.tear(id, context.DeadlineExceeded)
		case suspect != nil && (!s.c.write || s.frame == 0):
			p.tear(id, suspect)
		default:
			oldest = max(oldest, now-s.c.started)
		}
	}
	return oldest
}

// sweepHome ends the reads that went here because it is, or was, the home, when one of
// them has waited for longer than homePatience, so that they go on at leaders. It
// reports whether it did. Reads that went to a leader wait: they have nowhere better.
func (p *pipe) sweepHome(now time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	waited := func(s slot) bool { return s.c != nil && s.c.atHome && now-s.c.started > homePatience }
	if !slices.ContainsFunc(p.slots, waited) {
		return false
	}
	for i := range p.slots {
		if s := &p.slots[i]; s.c != nil && s.c.atHome {
			p.tear(s.gen<<slotBits|uint64(i), errSuspect)
		}
	}
	return true
}

// tear ends a call that the sender may still be reading. mu must be held.
func (p *pipe) tear(id uint64, cause error) {
	c, sent := p.takeSlot(id)
	c.torn = true
	c.err = &lostError{sent: sent, cause: cause}
	c.done <- c
}

// failAll ends every call. It runs on the sender's goroutine, so no body is
// being read.
func (p *pipe) failAll(failure func(sent bool) error, closing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = p.closed || closing
	p.queue = clearEntries(p.queue)
	p.queueBytes = 0
	for i := range p.slots {
		if p.slots[i].c == nil {
			continue
		}
		c, sent := p.takeSlot(p.slots[i].gen<<slotBits | uint64(i))
		c.err = failure(sent)
		c.done <- c
	}
}

// closeIfIdle refuses further calls if there are none now.
func (p *pipe) closeIfIdle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = p.closed || len(p.free) == len(p.slots)
	return p.closed
}

func clearEntries(q []entry) []entry {
	clear(q)
	return q[:0]
}
