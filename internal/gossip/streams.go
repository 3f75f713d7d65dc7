package gossip

import (
	"net"
	"sync"
	"time"

	"kvstore/internal/fault"
)

const (
	// maxStreams bounds the streams that are open, in both directions.
	maxStreams = 64
	// maxStreamBytes bounds what is read from one: a list of maxMembers.
	maxStreamBytes = 1 << 20
	// streamTimeout is memberlist's deadline for reading and writing a stream;
	// streamLife ends one in any case.
	streamTimeout = 5 * time.Second
	streamLife    = 20 * time.Second
)

// openStreams are the streams of one node.
type openStreams struct {
	mu     sync.Mutex
	all    map[*stream]struct{} // guarded by mu
	closed bool                 // guarded by mu
}

// stream is a connection with bounds on its life and on what is read.
type stream struct {
	net.Conn
	owner *openStreams
	timer *time.Timer
	left  int // bytes that may still be read; of the reader
}

// track takes conn over; nil when there are too many, conn is then closed.
func (o *openStreams) track(conn net.Conn) *stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || len(o.all) >= maxStreams {
		_ = conn.Close()
		return nil
	}
	s := &stream{Conn: conn, owner: o, left: maxStreamBytes}
	s.timer = time.AfterFunc(streamLife, func() { _ = s.Close() })
	if o.all == nil {
		o.all = map[*stream]struct{}{}
	}
	o.all[s] = struct{}{}
	return s
}

// close ends all streams; later ones are refused.
func (o *openStreams) close() {
	o.mu.Lock()
	o.closed = true
	all := o.all
	o.all = nil
	o.mu.Unlock()
	for s := range all {
		s.timer.Stop()
		_ = s.Conn.Close()
	}
}

func (s *stream) Close() error {
	s.timer.Stop()
	s.owner.mu.Lock()
	delete(s.owner.all, s)
	s.owner.mu.Unlock()
	return s.Conn.Close()
}

func (s *stream) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, fault.New(fault.MessageTooLarge, "a stream of gossip is too long", "limit", maxStreamBytes)
	}
	n, err := s.Conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	return n, err
}
