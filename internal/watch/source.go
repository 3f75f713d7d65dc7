package watch

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// source is the writes of one or of all data groups as one stream in the order
// of their revisions, and the watches that are sent it.
//
// Watches whose keys lie in one slot have the source of the group that owns it,
// all others share the one of all groups: groups are merged once per node, not
// once per watch. A source has one goroutine. It pulls its taps, takes what is at
// or below the least position of them all (nothing below can come any more),
// finds each event's watches in the index and appends to their streams' queues.
// It never waits for a stream: a watch whose stream has no room falls behind at
// the revision before, leaves the index and is brought back by catching up.
//
// Where one group holds the others' events up because nothing is written in it,
// the source asks for its clock: that promises that nothing more comes at or
// below the events that wait. So it does for a watch that begins now: everything
// acknowledged before is at or below the clocks that are read then, everything
// later above. No group is asked while nothing waits.
type source struct {
	hub    *Hub
	at     keyspace.GroupID   // in Hub.sources
	groups []keyspace.GroupID // guarded by mu; they only become more
	merged bool               // of all groups
	wake   chan struct{}      // room for one signal
	ready  chan struct{}      // closed when frontier is known
	cancel context.CancelFunc

	taps []*tap // the loop's own
	// start is the highest revision at which a tap was opened: before it, not all
	// was read. The frontier begins there. lacking: since lackingAt the taps do not
	// own every slot. The loop's own.
	start     keyspace.Revision
	lacking   bool
	lackingAt time.Duration

	mu    sync.Mutex
	index *index
	// frontier: everything at or below it was given to the watches in the index.
	frontier keyspace.Revision
	// recent are the last events, and recentFrom the revision behind which all are
	// there.
	recent      []*event
	recentBytes int
	recentFrom  keyspace.Revision
	// promises are clock readings that the loop has not used; answered: they, or
	// none, came.
	promises []host.ClockReading
	answered bool
	// wanted is how far the frontier is to come for watches that begin now.
	wanted keyspace.Revision

	// owned are the slots of the only group at the frontier, left those that it gave
	// up, and to whom.
	owned format.SlotSet
	left  []*host.SlotsLeft
	// over: nothing comes any more; the watches go elsewhere, or end with overErr.
	over    bool
	overErr error

	// users are the watches on it and who opens one, idle since when there are
	// none. Guarded by the hub's mutex.
	users int
	idle  time.Duration

	// asking is the loop's: clocks are being read.
	asking  bool
	askedAt time.Duration
	run     []item // scratch
}

const (
	// askEvery bounds how often clocks are read for events that wait, retryAfter
	// how soon what failed is tried again.
	askEvery   = 10 * time.Millisecond
	askFor     = time.Second
	retryAfter = 50 * time.Millisecond
)

func newSource(h *Hub, at keyspace.GroupID, groups []keyspace.GroupID) *source {
	src := &source{hub: h, at: at, merged: at == allGroups, groups: groups, wake: make(chan struct{}, 1), ready: make(chan struct{}), index: newIndex()}
	for _, g := range groups {
		src.taps = append(src.taps, &tap{hub: h, group: g, wake: src.signal})
	}
	return src
}

func (src *source) signal() {
	select {
	case src.wake <- struct{}{}:
	default:
	}
}

// loop runs until ctx ends.
func (src *source) loop(ctx context.Context) {
	defer func() {
		for _, t := range src.taps {
			t.close()
		}
	}()
	for ctx.Err() == nil {
		src.hub.tasks.Wait(ctx, src.step(ctx), src.wake)
	}
}

// step takes what there is and returns when to look again without a signal, 0
// for not.
func (src *source) step(ctx context.Context) (wait time.Duration) {
	src.mu.Lock()
	promises, answered, wanted := src.promises, src.answered, src.wanted
	src.promises, src.answered = nil, false
	src.mu.Unlock()
	if answered {
		src.asking, src.askedAt = false, src.hub.o.Clock.Mono()
	}
	least := keyspace.MaxRevision
	for _, t := range src.taps {
		err := t.pull(ctx)
		if ended(err) {
			src.finish(nil)
			return 0
		}
		if err != nil {
			src.hub.logger.Debug("a group cannot be followed now", "group", t.group, "error", err)
			wait = retryAfter
		}
		for _, c := range promises {
			if c.Group == t.group {
				t.promise(c)
			}
		}
		least = min(least, t.pos)
		src.start = max(src.start, t.opened)
	}
	if src.merged && src.frontier == 0 {
		src.settleLayout(least)
	}
	if next := src.askClocks(least, max(wanted, src.start)); next > 0 && (wait == 0 || next < wait) {
		wait = next
	}
	if least == 0 || least < src.start {
		return wait // a tap is not open, or not as far as another was when it was
	}
	if src.frontier == 0 && !src.covers() {
		return src.uncovered()
	}
	src.deliver(least)
	return wait
}

// deliver gives out what is complete up to a revision, and then follows the slots
// that went or came there.
func (src *source) deliver(least keyspace.Revision) {
	var events []*event
	for _, t := range src.taps {
		events = t.release(least, events)
	}
	if len(src.taps) > 1 {
		slices.SortStableFunc(events, func(a, b *event) int { return cmp.Compare(a.rev, b.rev) })
	}
	src.dispatch(events, least)
	for _, t := range slices.Clone(src.taps) { // handing over may add one
		if !src.merged {
			src.takeOver(t, least)
		}
		if t.left != nil && t.pos <= least {
			src.handOver(t, t.left)
			t.left = nil
			src.signal() // it reads on
		}
	}
}

// want has the frontier come to this node's present time.
func (src *source) want(now keyspace.Revision) {
	src.mu.Lock()
	src.wanted = max(src.wanted, now)
	src.mu.Unlock()
	src.signal()
}

// dispatch gives events, which are complete up to a revision, to their watches.
func (src *source) dispatch(events []*event, upto keyspace.Revision) {
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.frontier == 0 {
		src.recentFrom, src.frontier, src.owned = upto, upto, src.taps[0].owned
		close(src.ready)
		return // nobody can have joined; what was read before is the past
	}
	for from := 0; from < len(events); {
		to := from + 1
		for to < len(events) && events[to].rev == events[from].rev {
			to++
		}
		src.give(events[from:to])
		from = to
	}
	src.remember(events)
	src.frontier = max(src.frontier, upto)
}

// give gives the events of one revision. Each stream gets its part whole.
func (src *source) give(events []*event) {
	if src.index.count == 0 {
		return
	}
	src.run = src.run[:0]
	for _, ev := range events {
		src.index.match(ev.key, func(w *watch) {
			if !w.at.knows(ev) {
				src.run = append(src.run, item{w: w, ev: ev})
			}
		})
	}
	if len(events) > 1 {
		slices.SortStableFunc(src.run, func(a, b item) int { return cmp.Compare(a.w.stream.number, b.w.stream.number) })
	}
	for from := 0; from < len(src.run); {
		s, to := src.run[from].w.stream, from+1
		for to < len(src.run) && src.run[to].w.stream == s {
			to++
		}
		if !s.push(src.run[from:to], len(events) == 1) {
			src.fall(src.run[from:to])
		}
		from = to
	}
	clear(src.run)
}

// fall takes watches out of the index whose stream has no room.
func (src *source) fall(items []item) {
	for i := range items {
		w := items[i].w
		if w.state != live {
			continue // by another event of the same revision
		}
		src.index.remove(w)
		w.state, w.at.rev = behind, items[i].ev.rev-1
		src.hub.stats.fell.Add(1)
		w.stream.addBehind(w)
	}
}

func (src *source) remember(events []*event) {
	for _, ev := range events {
		src.recentBytes += ev.cost()
	}
	src.recent = append(src.recent, events...)
	gone := 0
	for gone < len(src.recent) && (src.recentBytes > src.hub.o.RecentBytes || src.recent[gone].rev == src.recentFrom) {
		src.recentBytes -= src.recent[gone].cost()
		src.recentFrom = src.recent[gone].rev
		gone++
	}
	if gone > 0 {
		rest := copy(src.recent, src.recent[gone:])
		clear(src.recent[rest:])
		src.recent = src.recent[:rest]
	}
}

// askClocks reads the clocks of groups that hold events or watches up, beside the
// loop. It returns when to ask at the earliest, 0 when nothing waits or they are
// being asked.
func (src *source) askClocks(least, wanted keyspace.Revision) time.Duration {
	var newest keyspace.Revision
	if least < wanted {
		newest = wanted
	}
	for _, t := range src.taps {
		if n := len(t.held); n > 0 && t.held[n-1].rev > least {
			newest = max(newest, t.held[n-1].rev)
		}
	}
	if newest == 0 || src.asking {
		return 0
	}
	if since := src.hub.o.Clock.Mono() - src.askedAt; since < askEvery {
		return askEvery - since
	}
	var late []keyspace.GroupID
	for _, t := range src.taps {
		if t.pos < newest {
			late = append(late, t.group)
		}
	}
	if !src.hub.spawn(func(ctx context.Context) { src.readClocks(ctx, late, newest) }) {
		return 0
	}
	src.asking = true
	return 0
}

func (src *source) readClocks(ctx context.Context, groups []keyspace.GroupID, atLeast keyspace.Revision) {
	bound, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	src.hub.stats.clocks.Add(1)
	got := src.hub.o.Router.ReadClocks(bound, groups, atLeast)
	if len(got) < len(groups) {
		src.hub.pause(ctx, retryAfter) // a group without a leader
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	src.promises, src.answered = append(src.promises, got...), true
	src.signal()
}
