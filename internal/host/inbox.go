package host

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// inbox is what other goroutines hand to the loop. The loop takes all of it at
// once; everything that arrives while a loop runs is the next loop's batch.
type inbox struct {
	mu   sync.Mutex
	in   mail
	wake chan struct{}
	// closed: nobody takes mail any more.
	closed bool
}

type mail struct {
	messages []inMessage
	requests []*replica.Request
	reads    []*readWaiter
	controls []func()
	ticks    int
}

type inMessage struct {
	from    keyspace.NodeID
	clockMS int64
	first   bool // first of its frame: its clock counts
	raft    *raftpb.Message
	other   *api.GroupMessage
	group   keyspace.GroupID
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// put adds mail; false when nobody takes it any more.
func (b *inbox) put(add func(*mail)) bool {
	b.mu.Lock()
	closed := b.closed
	if !closed {
		add(&b.in)
	}
	b.mu.Unlock()
	if !closed {
		b.signal()
	}
	return !closed
}

// close takes the last mail.
func (b *inbox) close() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.in
	b.in, b.closed = mail{}, true
	return m
}

// take swaps the waiting mail with the empty one given.
func (b *inbox) take(empty mail) mail {
	b.mu.Lock()
	m := b.in
	b.in = empty
	b.mu.Unlock()
	return m
}

func (m *mail) reset() {
	clear(m.messages)
	clear(m.requests)
	clear(m.reads)
	clear(m.controls)
	m.messages, m.requests, m.reads, m.controls = m.messages[:0], m.requests[:0], m.reads[:0], m.controls[:0]
	m.ticks = 0
}

func (m *mail) empty() bool {
	return len(m.messages) == 0 && len(m.requests) == 0 && len(m.reads) == 0 && len(m.controls) == 0 && m.ticks == 0
}
