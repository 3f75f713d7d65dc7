package watch

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// watch is one subscription of a stream.
type watch struct {
	id      uint64
	stream  *Stream
	pattern *pattern
	tags    map[string]string
	variant variant

	// src is guarded by the stream's mutex. place is the index's own. state is
	// guarded by src.mu; at too while the watch is live, else it belongs to who opens
	// the watch or catches it up.
	src   *source
	place int
	state state
	at    position
	// present is what the frontier has to reach for a watch that begins now, asked
	// for at since; after patience the frontier there is will do.
	present keyspace.Revision
	since   time.Duration
	// stray: since strayAt nobody is known who owns its slot. Of who catches it up.
	stray   bool
	strayAt time.Duration
	// announced: the client was told that the watch is open. Of who catches it up.
	announced bool
	// closed: nothing more is sent of it. A closed watch does not become live.
	closed atomic.Bool

	// Of the goroutine that sends: the revision up to which all was sent, and the
	// batch of the message that is being made.
	sent  keyspace.Revision
	batch *batch
}

type state uint8

const (
	behind state = iota
	live
)

// item is something to send: an event of a watch, or a note.
type item struct {
	w    *watch
	ev   *event
	note *note
	// last ends what must not be torn: the events of one revision.
	last bool
}

// note is what is told about watches.
type note struct {
	created *watch
	ended   *watch
	err     error
	// marked were sent everything up to rev.
	marked []*watch
	rev    keyspace.Revision
}

// itemBytes and noteBytes are what items cost beside their events.
const (
	itemBytes = 32
	noteBytes = 64
)

// Stream is what one client watches. Watches are opened and closed by any
// goroutine, Next belongs to one.
//
// All watches of a stream share one queue, bounded in bytes. What a watch finds
// no room for is not queued: it falls behind, and once the queue is half empty a
// goroutine that lives only then reads what it missed (catchUp). So a reader that
// is slow for a moment is served from memory, a slower one from the log or from
// history, and one that does not read at all costs a full queue until it is told
// so and ended.
type Stream struct {
	hub    *Hub
	number uint64
	ctx    context.Context // the life of the stream
	cancel context.CancelCauseFunc
	wake   chan struct{} // room for one signal: there is something to send
	room   chan struct{} // room for one signal: something was taken

	mu       sync.Mutex
	queue    []item
	bytes    int
	closed   bool // nothing is queued any more
	watches  map[uint64]*watch
	behind   []*watch
	catching bool
	dropped  bool // of the hub's mutex
	marks    marks
	// asked counts the calls of Next. Of the hub's ticker: how many it saw, and when
	// there last were more, or nothing was queued, on the hub's clock.
	asked     atomic.Uint64
	seenAsked uint64
	moved     time.Duration

	// Of the goroutine that sends: taken is the queue that was, sending what is left
	// of it.
	taken, sending []item
	out            message
	made           Message
}

// push appends events of one revision unless there is no room. apart says that
// they are all of different watches, so that any part of them is whole.
func (s *Stream) push(items []item, apart bool) bool {
	cost := itemBytes * len(items)
	var before *event
	for i := range items {
		if items[i].ev != before {
			before = items[i].ev
			cost += before.cost()
		}
		items[i].last = apart
	}
	items[len(items)-1].last = true
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes > 0 && s.bytes+cost > s.hub.o.StreamBytes {
		return false
	}
	s.add(cost, items...)
	return true
}

// tell appends a note; there is always room for one.
func (s *Stream) tell(n *note) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(noteBytes, item{note: n})
}

// add needs mu.
func (s *Stream) add(cost int, items ...item) {
	if s.closed {
		return
	}
	s.queue = append(s.queue, items...)
	s.bytes += cost
	s.hub.stats.buffered.Add(int64(cost))
	s.signal()
}

func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next returns the next message, waiting for one. It must not be kept until the
// call after. An error ends the stream.
func (s *Stream) Next() (*Message, error) {
	for {
		if m := s.ready(); m != nil {
			return m, nil
		}
		<-s.wake // also at the end
		if s.ctx.Err() != nil {
			return nil, s.Cause()
		}
	}
}

// NextUntil is Next as long as ctx does not end; after that the stream goes on.
func (s *Stream) NextUntil(ctx context.Context) (*Message, error) {
	for {
		if m := s.ready(); m != nil {
			return m, nil
		}
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			return nil, s.Cause()
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Canceled, ctx.Err(), "the watcher has gone")
		}
	}
}

// ready returns the next message, nil when nothing is to be sent.
func (s *Stream) ready() *Message {
	s.asked.Add(1)
	for len(s.sending) > 0 || s.take() {
		if m := s.encode(); m != nil {
			return m
		}
	}
	return nil
}

// keptItems bounds the memory that a queue keeps while it is empty.
const keptItems = 64

// take moves the queue to the sender and reports whether there is something in it.
// The two change their memory.
func (s *Stream) take() bool {
	free := s.taken[:0]
	if cap(free) > keptItems {
		free = nil
	}
	s.mu.Lock()
	s.taken, s.queue = s.queue, free
	s.hub.stats.buffered.Add(-int64(s.bytes))
	s.bytes = 0
	s.mu.Unlock()
	s.sending = s.taken
	select {
	case s.room <- struct{}{}:
	default:
	}
	return len(s.sending) > 0
}

// addBehind has a watch caught up.
func (s *Stream) addBehind(w *watch) {
	s.mu.Lock()
	s.behind = append(s.behind, w)
	start := !s.catching
	s.catching = true
	s.mu.Unlock()
	if start && !s.hub.spawn(func(context.Context) { s.catchUp() }) {
		s.cancel(errStopping())
	}
}

// Create opens a watch. What is wrong with it is told on the stream, as its end.
func (s *Stream) Create(ctx context.Context, q *api.WatchCreate) {
	w := &watch{id: q.GetWatchId(), stream: s}
	if err := s.create(ctx, w, q); err != nil {
		w.closed.Store(true)
		s.tell(&note{ended: w, err: err})
	}
}

func (s *Stream) create(ctx context.Context, w *watch, q *api.WatchCreate) error {
	ns, err := s.hub.o.Router.WatchedNamespace(ctx, q.GetNamespace())
	if err != nil {
		return err
	}
	p, err := newPattern(ns, q)
	if err != nil {
		return err
	}
	if w.at, err = newPosition(&p, q); err != nil {
		return err
	}
	if limit := keyspace.RevisionAt(s.hub.o.Clock.Wall() + futureMilli); w.at.rev > limit {
		return fault.New(fault.InvalidArgument, "the revision lies in the future", "actual", uint64(w.at.rev), "limit", uint64(limit))
	}
	w.pattern, w.tags, w.sent = &p, q.GetTags(), w.at.rev
	if q.GetPrevious() {
		w.variant |= withPrevious
	}
	if q.GetKeysOnly() {
		w.variant |= keysOnly
	}
	if w.src, err = s.hub.sourceOf(w.pattern); err != nil {
		return err
	}
	if err := s.register(w); err != nil {
		s.hub.release(w.src)
		return err
	}
	if !w.at.now || !s.joinNow(w) {
		s.addBehind(w)
	}
	return nil
}

// joinNow makes a watch live that begins now, if its source is running. One of
// several groups has to wait until all have come to the present: the frontier
// stands for the one that was quiet for longest.
func (s *Stream) joinNow(w *watch) bool {
	if w.src.merged {
		w.present, w.since = s.hub.present(), s.hub.o.Clock.Mono()
		w.src.want(w.present)
		return false
	}
	select {
	case <-w.src.ready:
	default:
		return false
	}
	w.src.mu.Lock()
	defer w.src.mu.Unlock()
	if !w.src.holds(w) {
		return false // catchUp finds its place
	}
	w.goLive()
	return true
}

// goLive puts a watch into its source's index, unless it was closed; src.mu is
// held, and the watch was given everything up to the frontier.
func (w *watch) goLive() {
	if w.closed.Load() {
		return
	}
	if w.at.now {
		w.at.now, w.at.rev, w.announced = false, w.src.frontier, true
		w.stream.tell(&note{created: w, rev: w.at.rev})
	}
	w.at.rev = max(w.at.rev, w.src.frontier)
	w.state, w.stray = live, false
	w.src.index.add(w)
}

// early reports whether a watch that begins now has to wait for its source.
func (w *watch) early() bool {
	return w.at.now && w.src.frontier < w.present && w.stream.hub.o.Clock.Mono()-w.since < patience
}

// patience bounds how long a watch waits for groups that do not answer. It then
// begins a little in the past.
const patience = 2 * time.Second

// futureMilli is how far a watch may begin ahead of this node's clock.
const futureMilli = 60_000

func (s *Stream) register(w *watch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if s.watches[w.id] != nil {
		return fault.New(fault.InvalidArgument, "the stream has a watch of this id", "watch_id", w.id)
	}
	if n := s.hub.stats.watches.Add(1); n > int64(s.hub.o.MaxWatches) {
		s.hub.stats.watches.Add(-1)
		return fault.New(fault.Overloaded, "too many watches on this node", "limit", s.hub.o.MaxWatches, "actual", n).WithRetry(time.Second)
	}
	s.watches[w.id] = w
	return nil
}

// forget takes a watch out of the stream; false when it is not there any more.
func (s *Stream) forget(w *watch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches[w.id] != w {
		return false
	}
	delete(s.watches, w.id)
	s.hub.stats.watches.Add(-1)
	return true
}

// Cancel ends a watch; it is told on the stream like any end.
func (s *Stream) Cancel(id uint64) {
	s.mu.Lock()
	w := s.watches[id]
	s.mu.Unlock()
	if w == nil {
		return // its end is on the way
	}
	s.end(w, fault.New(fault.Canceled, "the watch was canceled"))
}

// end closes a watch and tells why.
func (s *Stream) end(w *watch, err error) {
	if !s.forget(w) {
		return
	}
	w.detach()
	s.tell(&note{ended: w, err: err})
}

// detach lets go of the source.
func (w *watch) detach() {
	w.closed.Store(true)
	w.stream.mu.Lock()
	src := w.src
	w.stream.mu.Unlock()
	src.mu.Lock()
	if w.state == live {
		w.state = behind
		src.index.remove(w)
	}
	src.mu.Unlock()
	src.hub.release(src)
}

// Close ends the stream and all its watches.
func (s *Stream) Close() {
	s.cancel(fault.New(fault.Canceled, "the stream was closed"))
	s.hub.dropStream(s)
	s.mu.Lock()
	all := s.watches
	s.watches = make(map[uint64]*watch)
	s.hub.stats.watches.Add(-int64(len(all)))
	s.hub.stats.buffered.Add(-int64(s.bytes))
	s.queue, s.bytes, s.closed = nil, 0, true
	s.mu.Unlock()
	for _, w := range all {
		w.detach()
	}
}

func errStopping() error {
	return fault.New(fault.Unavailable, "this node is stopping; watch again at another one, with the last token").WithRetry(50 * time.Millisecond)
}
