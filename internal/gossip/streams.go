package gossip

import (
	"encoding/binary"
	"errors"
	"io"
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

// What memberlist writes before sealed bytes: on a stream this type and their
// number (4 bytes), in a packet nothing; both then begin with the version of
// sealing. Its predecessor, version 0, pads, and memberlist trusts the padding;
// it also trusts that something is inside. Neither is let through to it, since
// a panic there ends the process.
const (
	labelType   = 244
	sealedType  = 10
	sealVersion = 1
	// leastSealed is a version, a nonce, one byte and a tag.
	leastSealed = 1 + 12 + 1 + 16
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

	// Of the reader.
	left   int    // bytes that may still be read
	sealed bool   // its beginning is to be judged
	head   []byte // was read to judge it
}

// track takes conn over; nil when there are too many, conn is then closed.
func (o *openStreams) track(conn net.Conn, sealed bool) *stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || len(o.all) >= maxStreams {
		_ = conn.Close()
		return nil
	}
	s := &stream{Conn: conn, owner: o, left: maxStreamBytes, sealed: sealed}
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
	if s.sealed {
		if err := s.judge(); err != nil {
			return 0, err
		}
		s.sealed = false
	}
	if len(s.head) > 0 {
		n := copy(b, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	n, err := s.Conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	return n, err
}

// judge reads the beginning of a stream: a label if it comes in, then what is
// sealed. A stream that is not sealed is memberlist's to refuse.
func (s *stream) judge() error {
	if err := s.more(1); err != nil {
		return err
	}
	if s.head[0] == labelType {
		if err := s.more(1); err != nil {
			return err
		}
		if err := s.more(int(s.head[1]) + 1); err != nil {
			return err
		}
	}
	at := len(s.head)
	if s.head[at-1] != sealedType {
		return nil
	}
	if err := s.more(4 + 1); err != nil {
		return err
	}
	size, version := binary.BigEndian.Uint32(s.head[at:]), s.head[at+4]
	if size < leastSealed || version != sealVersion {
		return fault.New(fault.InvalidArgument, "a stream of gossip is not sealed as it should be", "version", version, "bytes", size)
	}
	return nil
}

// more reads n bytes into head; an end before the first of them is io.EOF.
func (s *stream) more(n int) error {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.Conn, b); err != nil {
		if errors.Is(err, io.EOF) && len(s.head) > 0 {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	s.head = append(s.head, b...)
	return nil
}
