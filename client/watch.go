package client

import (
	"context"
	"encoding/base64"
	"errors"
	"iter"
	"maps"
	"sync"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env/system"
)

// EventType says what happened to a key.
type EventType int

const (
	// EventPut says that the key was created or written.
	EventPut EventType = iota
	// EventDelete says that the key is gone.
	EventDelete
)

func (t EventType) String() string {
	if t == EventDelete {
		return "delete"
	}
	return "put"
}

// Event is one change of one key.
type Event struct {
	Type EventType
	// Record is what was written. Of a deletion it has Key, Revision and
	// UpdatedAt, and the Lease whose end it was.
	Record Record
	// Previous is the record that was replaced, with WithPrevious; nil when there
	// was none. Its Value is left out where both would be larger than the largest
	// value.
	Previous *Record
	// Reason of a deletion: deleted, expired, lease_expired or lease_revoked.
	Reason string
}

// Update is what a Watch yields: events, complete up to a revision, or only the
// news that nothing happened up to there.
type Update struct {
	// Events are in the order of their revisions. Those of one atomic request have
	// the same one and come in the same Update. The values of one Update share memory.
	Events []Event
	// Revision: everything at or below it has been yielded. Token stands for it, and
	// is good for Resume in another process too.
	Revision uint64
	Token    string
}

type watchCall struct {
	keys     listCall
	key      string
	after    uint64
	token    string
	previous bool
	apart    bool
}

type watchOption func(*watchCall)

func (o watchOption) applyWatch(c *watchCall) { o(c) }

// OnKey watches one key.
func OnKey(key string) WatchOption { return watchOption(func(c *watchCall) { c.key = key }) }

// FromRevision begins with what was written after a revision: that of a List or a
// record, say. Without it, and without Resume, a watch begins now.
func FromRevision(rev uint64) WatchOption { return watchOption(func(c *watchCall) { c.after = rev }) }

// Resume goes on behind an Update of an earlier Watch of the same keys.
func Resume(token string) WatchOption { return watchOption(func(c *watchCall) { c.token = token }) }

// WithPrevious asks for the record that each event replaced.
func WithPrevious() WatchOption { return watchOption(func(c *watchCall) { c.previous = true }) }

// OwnStream gives the watch a stream of its own, which its loop receives from: what
// a slow loop has not taken waits at the node. Without it all watches of a Client on
// one node share a stream.
func OwnStream() WatchOption { return watchOption(func(c *watchCall) { c.apart = true }) }

// Watch yields the changes of the keys that the options choose (all of the
// namespace without any), until ctx ends or the loop is left. It goes on by itself
// when its node, its stream or a leader fails, at the revision it has come to:
// every change is yielded once, in order, whole.
//
// The first Update has no events and says where the watch begins; more without
// events follow every few seconds. An error is yielded once and ends it:
// ErrOutOfRange when the position lies before the history that the cluster keeps
// (its details name the floor: read the present state and watch from there), or
// what is wrong with the request.
//
// A loop that is slow is not waited for. What it has not taken is kept up to about
// 4 MB, and read again from the cluster's history after that.
func (c *Client) Watch(ctx context.Context, opts ...WatchOption) iter.Seq2[Update, error] {
	call := &watchCall{keys: listCall{namespace: c.cfg.Namespace}}
	for _, opt := range opts {
		opt.applyWatch(call)
	}
	return func(yield func(Update, error) bool) {
		s, err := c.subscribe(call)
		if err != nil {
			yield(Update{}, err)
			return
		}
		defer s.leave()
		for {
			u, err := s.next(ctx)
			if err != nil {
				yield(Update{}, err)
				return
			}
			if !yield(u, nil) {
				return
			}
		}
	}
}

// subscription is one Watch over all its streams.
type subscription struct {
	client  *Client
	call    *watchCall
	request *api.WatchCreate

	stream *watchStream // nil while there is none
	node   *node
	wake   chan struct{} // room for one signal

	mu sync.Mutex
	// updates wait to be yielded, first is the memory in which they began to; part is
	// the one whose last revision goes on.
	updates []*update
	first   []*update
	part    *update
	bytes   int
	// ended is why nothing more comes on this stream. overflow: the loop was too
	// slow.
	ended    error
	overflow bool
}

func (c *Client) subscribe(call *watchCall) (*subscription, error) {
	q := &api.WatchCreate{
		Namespace: call.keys.namespace, Key: call.key, Prefix: call.keys.prefix, Start: call.keys.start, End: call.keys.end,
		Tags: maps.Clone(call.keys.tags), AfterRevision: call.after, Previous: call.previous, KeysOnly: call.keys.keysOnly,
	}
	if call.token != "" {
		var err error
		if q.Token, err = base64.RawURLEncoding.DecodeString(call.token); err != nil {
			return nil, wrapError(CodeInvalidToken, err, "the token is not one of a watch")
		}
	}
	return &subscription{client: c, call: call, request: q, wake: make(chan struct{}, 1)}, nil
}

// next returns the next Update, over as many streams as it takes.
func (s *subscription) next(ctx context.Context) (Update, error) {
	for failures := 0; ; {
		if s.stream == nil {
			if err := s.attach(ctx); err != nil {
				if err := s.retry(ctx, err, &failures); err != nil {
					return Update{}, err
				}
				continue
			}
		}
		u, err := s.take()
		switch {
		case u != nil:
			return s.yielded(u)
		case errors.Is(err, errOverflow):
			s.leave()
			continue
		case err != nil:
			s.leave()
			if err := s.retry(ctx, err, &failures); err != nil {
				return Update{}, err
			}
			continue
		}
		if err := s.wait(ctx); err != nil {
			return Update{}, err
		}
	}
}

// wait returns when something came, or when nobody waits any more.
func (s *subscription) wait(ctx context.Context) error {
	if s.stream.apart {
		s.stream.receiveUntil(ctx)
	} else {
		select {
		case <-s.wake:
			return nil
		case <-ctx.Done():
		case <-s.client.ctx.Done():
		}
	}
	switch {
	case ctx.Err() != nil:
		return contextError(ctx.Err())
	case s.client.isClosed():
		return errClientClosed()
	}
	return nil
}

// errOverflow means that the loop was too slow for what came.
var errOverflow = errors.New("more changes than the loop takes")

// take returns what waits, or why nothing more will.
func (s *subscription) take() (*update, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.updates) > 0 {
		u := s.updates[0]
		s.updates[0] = nil
		if s.updates = s.updates[1:]; len(s.updates) == 0 {
			s.updates = s.first[:0]
		}
		s.bytes -= u.bytes
		return u, nil
	}
	if s.overflow {
		return nil, errOverflow
	}
	return nil, s.ended
}

// yielded decodes an update and notes it as the position to go on from.
func (s *subscription) yielded(u *update) (Update, error) {
	out := Update{Revision: u.revision, Token: u.tokenText()}
	if u.batch != nil {
		var err error
		if out.Events, err = u.decodeEvents(s.call.key, make([]Event, 0, u.events)); err != nil {
			return Update{}, err
		}
		for i := range out.Events {
			if e := &out.Events[i]; e.Type != EventDelete {
				if err := e.Record.verify(s.call.keys.keysOnly); err != nil {
					return Update{}, err
				}
			}
		}
	}
	s.request.AfterRevision, s.request.Token = 0, append(s.request.Token[:0], u.token...)
	return out, nil
}

// retry waits before the next attempt, or returns why there is none.
func (s *subscription) retry(ctx context.Context, err error, failures *int) error {
	var lost *lostError
	var e *Error
	switch {
	case ctx.Err() != nil:
		return contextError(ctx.Err())
	case s.client.isClosed():
		return errClientClosed()
	case errors.As(err, &lost):
	case errors.As(err, &e) && !notExecuted(e.Code) && e.Code != CodeCanceled && e.Code != CodeDeadlineExceeded:
		return e
	}
	s.client.counters.retries.Add(1)
	s.client.wantRefresh()
	pause := jitter(s.client.cfg.RetryBase, s.client.cfg.RetryMax, *failures)
	if e != nil {
		pause = max(pause, e.RetryAfter)
	}
	*failures++
	if err := system.Pause(ctx, pause); err != nil {
		return contextError(err)
	}
	return nil
}

// attach opens the watch on a node, another one than failed last.
func (s *subscription) attach(ctx context.Context) error {
	c := s.client
	n := c.pick(s.group(), Any, s.node)
	s.node = n
	ws, err := n.watchStream(s.call.apart)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.updates, s.first, s.part, s.bytes, s.ended, s.overflow = nil, nil, nil, 0, nil, false
	s.mu.Unlock()
	if err := ws.add(s); err != nil {
		return err
	}
	s.stream = ws
	return ctx.Err()
}

// group is the only one that is watched, nil when there are more: a node with a
// replica of it has what is asked for.
func (s *subscription) group() *group {
	if s.call.key == "" {
		return nil
	}
	return s.client.topology().groupOf(s.request.GetNamespace(), s.call.key)
}

// leave takes the subscription off its stream.
func (s *subscription) leave() {
	if s.stream == nil {
		return
	}
	s.stream.remove(s)
	s.stream = nil
}

// offer keeps what came, from the stream's goroutine. It reports whether there
// was room. There always is where the loop itself receives, one message after it has
// taken the one before.
func (s *subscription) offer(u *update, more bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.part != nil {
		u.before, u.bytes = s.part, u.bytes+s.part.bytes
		s.part = nil
	}
	if more {
		s.part = u
		return true
	}
	if s.bytes > 0 && s.bytes+u.bytes > watchBufferBytes && !s.call.apart {
		s.overflow = true
		s.signal()
		return false
	}
	s.bytes += u.bytes
	if s.updates = append(s.updates, u); len(s.updates) == 1 {
		s.first = s.updates
	}
	if !s.call.apart {
		s.signal()
	}
	return true
}

func (s *subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = err
	s.signal()
}

func (s *subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

const (
	// watchBufferBytes bounds what waits for a loop that is slow.
	watchBufferBytes = 4 << 20
	// watchSilence ends a stream that says nothing: servers tell progress every few
	// seconds.
	watchSilence = 20 * time.Second
)
