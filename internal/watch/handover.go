package watch

import (
	"cmp"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// handOver follows slots that a tap's group gave to another, once everything up to
// there was given to the watches. The other group's writes of these slots are
// above the ceiling of the entry that gave them up, and the tap stands at or below
// it.
//
// The source of all groups lets the other group's tap have the slots; one that it
// did not follow yet it follows from its frontier on. The watches of a group's own
// source go over to the other's, at the position that they have, and go on there
// from history, which moves with the slots.
func (src *source) handOver(t *tap, left *host.SlotsLeft) {
	given := t.giveUp(&left.Slots)
	if src.merged {
		to := src.addTap(left.To, src.frontier)
		to.owned = to.owned.With(&given)
		if to.gone.Meets(&given) {
			src.finish(nil) // on it went, before its log was followed
		}
		return
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	src.owned = t.owned
	src.left = append(src.left, left)
	src.dismiss(func(w *watch) bool { return left.Slots.Has(w.pattern.slot) }) // redirect finds their place
}

// dismiss has watches caught up, in the order in which their streams were opened;
// mu is held.
func (src *source) dismiss(which func(*watch) bool) {
	var gone []*watch
	src.index.each(func(w *watch) {
		if which(w) {
			gone = append(gone, w)
		}
	})
	slices.SortFunc(gone, func(a, b *watch) int {
		return cmp.Or(cmp.Compare(a.stream.number, b.stream.number), cmp.Compare(a.id, b.id))
	})
	for _, w := range gone {
		src.putBehind(w)
		w.stream.addBehind(w)
	}
}

// takeOver makes the source of one group serve slots that came to it. Watches of
// them have to come to where it is by the past: what it remembers does not have
// what came with the slots.
func (src *source) takeOver(t *tap, upto keyspace.Revision) {
	gains := t.gained(upto)
	if gains.Empty() {
		return
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	src.owned = t.owned
	src.recent, src.recentBytes, src.recentFrom = nil, 0, src.frontier
}

// strays takes watches out of a cohort that its source does not hold, finds the
// source that does, and reports whether one got on.
func (s *Stream) strays(c *cohort) (moved bool) {
	src := c.src
	src.mu.Lock()
	over, overErr := src.over, src.overErr
	var off []*watch
	if over || src.frontier > 0 {
		c.watches = slices.DeleteFunc(c.watches, func(w *watch) bool {
			if src.holds(w) {
				return false
			}
			off = append(off, w)
			return true
		})
	}
	src.mu.Unlock()
	if len(off) == 0 {
		return false
	}
	c.index = newIndex()
	for _, w := range c.watches {
		c.index.add(w)
	}
	for _, w := range off {
		if overErr != nil {
			s.end(w, overErr)
			moved = true
		} else if s.redirect(w, src, over) {
			moved = true
		}
	}
	return moved
}

// redirect gives a watch that is not live another source. While nobody is known
// who owns its slot it stays where it is.
func (s *Stream) redirect(w *watch, src *source, over bool) (moved bool) {
	var next *source
	var err error
	if over {
		next, err = s.hub.sourceOf(w.pattern)
	} else if g, ok := src.ownerOf(w.pattern.slot); ok {
		next, err = s.hub.sourceAt(g)
	} else {
		now := s.hub.o.Clock.Mono()
		if !w.stray {
			w.stray, w.strayAt = true, now
		}
		if now-w.strayAt < coverWithin {
			s.hub.refresh()
			s.addBehind(w)
			return false
		}
		err = errUncovered()
	}
	if err != nil {
		s.end(w, err)
		return true
	}
	s.goOver(w, src, next)
	return true
}

// ownerOf is the group that the source's own one gave a slot to, or else the one
// that the map says owns it. Slots go to groups of higher ids only, so a map that
// says otherwise is too old.
func (src *source) ownerOf(slot keyspace.SlotID) (keyspace.GroupID, bool) {
	src.mu.Lock()
	for _, l := range src.left {
		if l.Slots.Has(slot) {
			src.mu.Unlock()
			return l.To, true
		}
	}
	src.mu.Unlock()
	g, ok := src.hub.o.Router.GroupOf(slot)
	return g, ok && g > src.at
}

// goOver moves a watch that is not live to another source.
func (s *Stream) goOver(w *watch, from, next *source) {
	s.mu.Lock()
	closed := w.closed.Load()
	if !closed {
		w.src = next
	}
	s.mu.Unlock()
	if closed {
		s.hub.release(next)
		return
	}
	s.hub.release(from)
	s.addBehind(w)
}

// ended reports whether a source cannot go on from where a tap is.
func ended(err error) bool {
	return err == errMoved || fault.CodeOf(err) == fault.OutOfRange //nolint:errorlint // it is never wrapped
}
