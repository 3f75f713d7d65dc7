package watch

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// Router knows the cluster; *router.Router is one.
type Router interface {
	// WatchedNamespace returns the id of a user's namespace.
	WatchedNamespace(ctx context.Context, name string) (keyspace.NamespaceID, error)
	// GroupOf returns the group that owns a slot, false before that is known.
	GroupOf(slot keyspace.SlotID) (keyspace.GroupID, bool)
	// DataGroups are all that own slots, in order.
	DataGroups() []keyspace.GroupID
	// Owned is what a group owns by the map.
	Owned(g keyspace.GroupID) format.SlotSet
	// Refresh reads the map again.
	Refresh(ctx context.Context) error
	// Holders are the nodes with a replica of a group, without this one.
	Holders(g keyspace.GroupID) []keyspace.NodeID
	// ReadClocks reads the clocks of groups, moved to at least a revision; groups
	// that do not answer are left out.
	ReadClocks(ctx context.Context, groups []keyspace.GroupID, atLeast keyspace.Revision) []host.ClockReading
}

// Peers gives access to the other nodes; *transport.Transport is one.
type Peers interface {
	Client(id keyspace.NodeID) (api.PeerClient, error)
}

// Defaults of Options.
const (
	DefaultMaxWatches    = 200_000
	DefaultStreamBytes   = 4 << 20
	DefaultRecentBytes   = 2 << 20
	DefaultProgressEvery = 5 * time.Second
	DefaultSlowAfter     = 60 * time.Second

	// idleSources are kept for so long after their last watch.
	idleSources = 10 * time.Second
	tickEvery   = 250 * time.Millisecond
)

// Options configure a Hub. Host, Router, Peers and Clock are required.
type Options struct {
	Host   Host
	Router Router
	Peers  Peers
	Clock  env.Clock
	Logger *slog.Logger
	// MaxWatches bounds those of this node's clients.
	MaxWatches int
	// StreamBytes bounds what waits to be sent on one stream; as much may be on its
	// way at the same time.
	StreamBytes int
	// RecentBytes bounds the events that each source keeps for watches that join.
	RecentBytes int
	// ProgressEvery is how often a stream is told how far its watches are.
	ProgressEvery time.Duration
	// SlowAfter is how long a stream may be without reading while something waits
	// for it.
	SlowAfter time.Duration
	// Tasks are goroutines unless the simulation has its own.
	Tasks Tasks
	// Bugs plants bugs.
	Bugs invariant.Bug
}

func (o *Options) setDefaults() error {
	if o.Host == nil || o.Router == nil || o.Peers == nil || o.Clock == nil {
		return errors.New("watch: Host, Router, Peers and Clock are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.MaxWatches = cmp.Or(o.MaxWatches, DefaultMaxWatches)
	o.StreamBytes = cmp.Or(o.StreamBytes, DefaultStreamBytes)
	o.RecentBytes = cmp.Or(o.RecentBytes, DefaultRecentBytes)
	o.ProgressEvery = cmp.Or(o.ProgressEvery, DefaultProgressEvery)
	o.SlowAfter = cmp.Or(o.SlowAfter, DefaultSlowAfter)
	return nil
}

// Hub serves the watches of one node. It is safe for concurrent use.
type Hub struct {
	o      Options
	logger *slog.Logger
	stats  stats
	ctx    context.Context // the life of the goroutines
	cancel context.CancelFunc
	tasks  Tasks
	own    goroutines // unless Options.Tasks has others
	// refreshing: the map is being read.
	refreshing atomic.Bool

	mu      sync.Mutex
	closed  bool
	number  uint64
	streams map[*Stream]struct{}
	sources map[keyspace.GroupID]*source // by group, allGroups for all
}

// allGroups stands for the source of all data groups: the meta group's own keys
// are not watched.
const allGroups = keyspace.MetaGroup

// stats are counters; see Stats.
type stats struct {
	watches, streams, buffered                                   atomic.Int64
	events, fell, pages, scanned, below, slow, overtaken, clocks atomic.Uint64
}

// Stats are a hub's figures.
type Stats struct {
	Watches, Streams int64
	// BufferBytes wait to be sent.
	BufferBytes int64
	// Events were sent.
	Events uint64
	// FellBehind counts watches for whose events there was no room, PastPages what
	// was read to bring watches up, PastScans those of them that walked over stored
	// versions.
	FellBehind, PastPages, PastScans uint64
	// EndedBelow counts watches that were behind the history floor, EndedSlow
	// streams that did not read.
	EndedBelow, EndedSlow uint64
	// Overtaken counts feeds that were not read in time, ClockReadings those made
	// for events that waited for another group.
	Overtaken, ClockReadings uint64
}

// Stats returns the figures of this moment.
func (h *Hub) Stats() Stats {
	s := &h.stats
	return Stats{
		Watches: s.watches.Load(), Streams: s.streams.Load(), BufferBytes: s.buffered.Load(), Events: s.events.Load(),
		FellBehind: s.fell.Load(), PastPages: s.pages.Load(), PastScans: s.scanned.Load(), EndedBelow: s.below.Load(),
		EndedSlow: s.slow.Load(), Overtaken: s.overtaken.Load(), ClockReadings: s.clocks.Load(),
	}
}

// New returns a hub. It starts nothing.
func New(o Options) (*Hub, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	h := &Hub{o: o, logger: o.Logger, streams: make(map[*Stream]struct{}), sources: make(map[keyspace.GroupID]*source)}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	if h.tasks = o.Tasks; h.tasks == nil {
		h.tasks = &h.own
	}
	return h, nil
}

// Start begins to tell progress. Watches are served with or without.
func (h *Hub) Start() { h.spawn(h.run) }

// Drain ends all streams; new ones are refused. Call it before the servers stop.
func (h *Hub) Drain() {
	h.mu.Lock()
	h.closed = true
	streams := h.streams
	h.streams = make(map[*Stream]struct{})
	h.mu.Unlock()
	for s := range streams {
		s.cancel(errStopping())
	}
}

// Close drains and waits for the goroutines. The host is closed after it.
func (h *Hub) Close() error {
	h.Drain()
	h.cancel()
	h.own.wg.Wait()
	return nil
}

// spawn runs f on a goroutine that Close waits for; false after Drain.
func (h *Hub) spawn(f func(context.Context)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.tasks.Go(func() { f(h.ctx) })
	return true
}

// Open begins a stream, which must be closed. Its watches end with ctx.
func (h *Hub) Open(ctx context.Context) (*Stream, error) {
	s := &Stream{hub: h, wake: make(chan struct{}, 1), room: make(chan struct{}, 1), watches: make(map[uint64]*watch), marks: marks{began: h.o.Clock.Mono()}}
	s.moved = h.o.Clock.Mono()
	life, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(life, s.signal)
	s.ctx, s.cancel = life, cancel
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		s.cancel(nil)
		return nil, errStopping()
	}
	h.number++
	s.number = h.number
	h.streams[s] = struct{}{}
	h.stats.streams.Add(1)
	return s, nil
}

func (h *Hub) dropStream(s *Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !s.dropped {
		s.dropped = true
		delete(h.streams, s)
		h.stats.streams.Add(-1)
	}
}

// sourceOf returns the source of a pattern's keys; release gives it back.
func (h *Hub) sourceOf(p *pattern) (*source, error) {
	if !p.single {
		return h.sourceAt(allGroups)
	}
	g, ok := h.o.Router.GroupOf(p.slot)
	if !ok {
		return nil, errUnknownGroups()
	}
	return h.sourceAt(g)
}

// sourceAt is sourceOf for a group, or all.
func (h *Hub) sourceAt(at keyspace.GroupID) (*source, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errStopping()
	}
	src := h.sources[at]
	if src == nil {
		groups := []keyspace.GroupID{at}
		if at == allGroups {
			groups = h.o.Router.DataGroups()
		}
		if len(groups) == 0 {
			return nil, errUnknownGroups()
		}
		src = newSource(h, at, groups)
		src.wanted = h.present()
		h.sources[at] = src
		ctx, cancel := context.WithCancel(h.ctx)
		src.cancel = cancel
		h.tasks.Go(func() { src.loop(ctx) })
	}
	src.users++
	return src, nil
}

// present is this node's time as a revision.
func (h *Hub) present() keyspace.Revision { return keyspace.RevisionAt(h.o.Clock.Wall()) }

func errUnknownGroups() error {
	return fault.New(fault.Unavailable, "the groups of this cluster are not known here yet").WithRetry(100 * time.Millisecond)
}

// release gives a source back.
func (h *Hub) release(src *source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if src.users--; src.users == 0 {
		src.idle = h.o.Clock.Mono()
	}
}

// run tells progress, ends streams that do not read, and sources that nobody
// needs.
func (h *Hub) run(ctx context.Context) {
	for h.pause(ctx, tickEvery); ctx.Err() == nil; h.pause(ctx, tickEvery) {
		h.tick(h.o.Clock.Mono())
	}
}

func (h *Hub) tick(now time.Duration) {
	h.mu.Lock()
	streams := make([]*Stream, 0, len(h.streams))
	for s := range h.streams {
		streams = append(streams, s)
	}
	for at, src := range h.sources {
		if src.users == 0 && now-src.idle > idleSources {
			delete(h.sources, at)
			src.cancel()
		}
	}
	h.mu.Unlock()
	for _, s := range streams {
		s.mark(now)
		s.endIfStuck(now)
	}
}

// endIfStuck ends a stream that leaves what waits for it unread.
func (s *Stream) endIfStuck(now time.Duration) {
	s.mu.Lock()
	waits := len(s.queue)
	s.mu.Unlock()
	if asked := s.asked.Load(); waits == 0 || asked != s.seenAsked {
		s.seenAsked, s.moved = asked, now
		return
	}
	if unread := now - s.moved; unread > s.hub.o.SlowAfter {
		s.hub.stats.slow.Add(1)
		s.cancel(fault.New(fault.Overloaded, "the watcher does not read; watch again with the last token", "limit", s.hub.o.SlowAfter, "actual", unread))
	}
}

// Done is closed when the stream ends, Cause then says why.
func (s *Stream) Done() <-chan struct{} { return s.ctx.Done() }

// Cause is why the stream ended.
func (s *Stream) Cause() error { return context.Cause(s.ctx) }
