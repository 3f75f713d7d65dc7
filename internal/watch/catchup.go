package watch

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// cohort is watches of one source that are behind and go on together: one walk
// over what they missed serves them all.
type cohort struct {
	src     *source
	watches []*watch
	// index finds those of an event.
	index *index
	// lacking: since lackingAt the groups that were asked do not own every slot.
	lacking   bool
	lackingAt time.Duration
}

const (
	// maxCohorts bounds those of a stream that go on side by side.
	maxCohorts = 16
	// maxSpans bounds the key ranges that history is walked for one by one; more
	// watches are served by a walk over everything.
	maxSpans = 256
	// lookAgain is how soon what did not get on is tried again.
	lookAgain = 20 * time.Millisecond
)

// catchUp brings the stream's watches that are behind to their sources, until
// there are none. A watch goes on at its position: in the recent events of its
// source where these reach back so far, else in the past of the groups. The last
// step is under the source's mutex: what it has given meanwhile is given from
// memory, and the watch is in the index before the next.
func (s *Stream) catchUp() {
	var all []*cohort
	for s.ctx.Err() == nil {
		all = s.gather(all)
		if len(all) == 0 {
			return
		}
		moved := false
		for i, c := range all {
			if s.advance(c) {
				moved = true
			}
			if len(c.watches) == 0 {
				all[i] = nil
			}
		}
		all = slices.DeleteFunc(all, func(c *cohort) bool { return c == nil })
		if !moved { // also where all wait for an owner of their slots
			s.pause()
		}
	}
}

// gather makes cohorts of watches that fell behind. When there are none at all,
// the goroutine is no longer needed.
func (s *Stream) gather(all []*cohort) []*cohort {
	s.mu.Lock()
	defer s.mu.Unlock()
	bySource := make(map[*source]*cohort)
	for _, w := range s.behind {
		c := bySource[w.src]
		if c == nil && len(all) >= maxCohorts {
			i := slices.IndexFunc(all, func(c *cohort) bool { return c.src == w.src })
			if i >= 0 {
				c = all[i]
				bySource[w.src] = c
			}
		}
		if c == nil {
			c = &cohort{src: w.src, index: newIndex()}
			bySource[w.src] = c
			all = append(all, c)
		}
		c.watches = append(c.watches, w)
		c.index.add(w)
	}
	s.behind = nil
	s.catching = len(all) > 0
	return all
}

// pause waits until the queue was taken, or for a moment.
func (s *Stream) pause() {
	s.hub.tasks.Wait(s.ctx, lookAgain, s.room)
}

// advance takes one step with a cohort and reports whether it got on. Watches
// that are live or closed leave it.
func (s *Stream) advance(c *cohort) bool {
	c.watches = slices.DeleteFunc(c.watches, func(w *watch) bool { return w.closed.Load() })
	if s.strays(c) {
		return true
	}
	if len(c.watches) == 0 {
		return false
	}
	select {
	case <-c.src.ready:
	default:
		return false
	}
	s.announce(c)
	joined, moved := s.join(c)
	if joined || moved {
		return true
	}
	return c.from() != keyspace.MaxRevision && s.readPast(c)
}

// announce tells that watches are open whose position is known.
func (s *Stream) announce(c *cohort) {
	for _, w := range c.watches {
		if !w.announced && !w.at.now {
			w.announced = true
			s.tell(&note{created: w, rev: w.at.rev})
		}
	}
}

// from is the least position of the cohort; MaxRevision when all begin now.
func (c *cohort) from() keyspace.Revision {
	least := keyspace.MaxRevision
	for _, w := range c.watches {
		if !w.at.now {
			least = min(least, w.at.rev)
		}
	}
	return least
}

// join gives the cohort the recent events that it lacks and makes it live. moved
// says that it got on without coming so far.
func (s *Stream) join(c *cohort) (joined, moved bool) {
	src := c.src
	src.mu.Lock()
	defer src.mu.Unlock()
	if slices.ContainsFunc(c.watches, func(w *watch) bool { return !src.holds(w) }) {
		return false, true // to be redirected
	}
	from := c.from()
	if from < src.recentFrom {
		return false, false
	}
	first, _ := slices.BinarySearchFunc(src.recent, from, func(ev *event, rev keyspace.Revision) int {
		if ev.rev <= rev {
			return -1
		}
		return 1
	})
	if s.hub.o.Bugs.Has(invariant.BugJoinLate) {
		first = len(src.recent)
	}
	for at := first; at < len(src.recent); {
		to := at + 1
		for to < len(src.recent) && src.recent[to].rev == src.recent[at].rev {
			to++
		}
		if items := c.items(src.recent[at:to]); len(items) > 0 && !s.push(items, to == at+1) {
			c.reached(src.recent[at].rev - 1)
			return false, at > first
		}
		at = to
	}
	early := c.watches[:0]
	for _, w := range c.watches {
		if w.early() {
			early = append(early, w)
		} else {
			w.goLive()
		}
	}
	moved = len(early) < len(c.watches)
	clear(c.watches[len(early):])
	c.watches, c.index = early, newIndex()
	for _, w := range early {
		c.index.add(w)
	}
	return len(early) == 0, moved
}

// reached says that the cohort was given everything up to a revision.
func (c *cohort) reached(rev keyspace.Revision) {
	for _, w := range c.watches {
		if !w.at.now {
			w.at.rev = max(w.at.rev, rev)
		}
	}
}

// items are what watches of the cohort are to be sent of one revision's events.
func (c *cohort) items(events []*event) (out []item) {
	for _, ev := range events {
		c.index.match(ev.key, func(w *watch) {
			if !w.closed.Load() && !w.at.now && !w.at.knows(ev) {
				out = append(out, item{w: w, ev: ev})
			}
		})
	}
	return out
}

// readPast gives the cohort a page of what it missed.
func (s *Stream) readPast(c *cohort) bool {
	src := c.src
	src.mu.Lock()
	until := src.frontier
	src.mu.Unlock()
	from := c.from()
	events, upto, err := src.past(s.ctx, from, until, c.spans(), c.slots())
	switch {
	case err == errLacking: //nolint:errorlint // it is never wrapped
		return s.lack(c)
	case fault.CodeOf(err) == fault.OutOfRange:
		return s.endBelow(c, err)
	case err != nil:
		if s.ctx.Err() == nil {
			s.hub.logger.Debug("the past cannot be read now", "after", uint64(from), "error", err)
		}
		return false
	}
	c.lacking = false
	for at := 0; at < len(events); {
		to := at + 1
		for to < len(events) && events[to].rev == events[at].rev {
			to++
		}
		items := c.items(events[at:to])
		for len(items) > 0 && !s.push(items, to == at+1) {
			s.pause()
			if s.ctx.Err() != nil {
				return false
			}
		}
		c.reached(events[at].rev)
		at = to
	}
	c.reached(upto)
	return upto > from
}

// errLacking: the groups that were asked do not own every slot once.
var errLacking = fault.New(fault.Unavailable, "slots change their owners")

// lack ends watches that would have to wait for too long until every slot has an
// owner.
func (s *Stream) lack(c *cohort) bool {
	s.hub.refresh()
	now := s.hub.o.Clock.Mono()
	if !c.lacking {
		c.lacking, c.lackingAt = true, now
	}
	if now-c.lackingAt < coverWithin {
		return false
	}
	for _, w := range c.watches {
		s.end(w, errUncovered())
	}
	return true
}

// slots are those that the cohort's groups have to own; nil for all together.
func (c *cohort) slots() *format.SlotSet {
	if c.src.merged {
		return nil
	}
	s := new(format.SlotSet)
	for _, w := range c.watches {
		s.Add(w.pattern.slot)
	}
	return s
}

// endBelow ends the watches whose position is below the history floor, and tells
// them the floor.
func (s *Stream) endBelow(c *cohort, err error) bool {
	floor := c.from() + 1
	var f *fault.Error
	if errors.As(err, &f) {
		if n, err := strconv.ParseUint(f.Details["floor"], 10, 64); err == nil {
			floor = keyspace.Revision(n)
		}
	}
	ended := false
	for _, w := range c.watches {
		if !w.at.now && w.at.rev < floor {
			s.hub.stats.below.Add(1)
			s.end(w, fault.Wrap(fault.OutOfRange, err, "the watch is further back than the history that is kept reaches; read the present state and watch from there",
				"revision", uint64(w.at.rev), "floor", uint64(floor)))
			ended = true
		}
	}
	return ended
}

// spans are the key ranges of the cohort, in order and apart; none for all.
func (c *cohort) spans() []host.Span {
	if len(c.watches) > maxSpans {
		return nil
	}
	all := make([]host.Span, 0, len(c.watches))
	for _, w := range c.watches {
		if !w.at.now {
			all = append(all, w.pattern.span())
		}
	}
	return union(all)
}

// union sorts spans and makes those one that touch.
func union(all []host.Span) []host.Span {
	slices.SortFunc(all, func(a, b host.Span) int { return slices.Compare(a.Lower, b.Lower) })
	out := all[:0]
	for _, s := range all {
		if n := len(out); n > 0 && (len(out[n-1].Upper) == 0 || slices.Compare(s.Lower, out[n-1].Upper) <= 0) {
			if up := out[n-1].Upper; len(up) > 0 && (len(s.Upper) == 0 || slices.Compare(s.Upper, up) > 0) {
				out[n-1].Upper = s.Upper
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// past is a page of the past of all groups of the source: events between two
// revisions, complete up to the one returned. Each group answers for the slots that
// it owns then, with what former owners wrote of them. A replica that lags answers
// as the owner that its group was: what it has is settled, and whoever came later
// writes above that. So the page is right if each slot was answered for once.
func (src *source) past(ctx context.Context, after, until keyspace.Revision, spans []host.Span, slots *format.SlotSet) (events []*event, upto keyspace.Revision, err error) {
	src.hub.stats.pages.Add(1)
	upto = until
	src.mu.Lock()
	groups := slices.Clone(src.groups)
	src.mu.Unlock()
	var all cover
	for _, g := range groups {
		page, err := src.hub.pastOf(ctx, host.PastRequest{Group: g, After: after, Until: upto, Spans: spans, Slots: slots, MaxBytes: readBytes})
		if fault.CodeOf(err) == fault.WrongGroup {
			err = errLacking
		}
		if err != nil {
			return nil, after, err
		}
		upto = min(upto, page.Upto)
		owned := src.hub.owned(g, page.Slots)
		all.add(&owned)
		t := tap{group: g, pos: after}
		t.hold(page.Writes)
		events = append(events, t.held...)
	}
	if src.merged && !all.exact() {
		return nil, after, errLacking
	}
	events = slices.DeleteFunc(events, func(ev *event) bool { return ev.rev > upto })
	slices.SortStableFunc(events, func(a, b *event) int { return cmp.Compare(a.rev, b.rev) })
	return events, upto, nil
}
