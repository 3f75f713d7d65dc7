package watch

import (
	"context"
	"errors"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// Slots move between groups (ADR 0015), and each write of a slot is an event of
// one of them: up to the ceiling of the entry by which the former owner left, of
// that one; above it, of the next. The copies that moved with the slot are the
// next owner's history and never events of its log.
//
// A tap has the slots whose events are its group's, at its position. It reads the
// leave in log order, stops there, at or below the ceiling, and goes on once the
// source has given out everything up to there and handed the slots over; so an
// event belongs to whoever owns its slot when it is released (tap.release). Where
// a tap comes to a later state without reading all entries between, and slots went
// in one of them, it does not know the ceiling: the source ends, and its watches go
// on at their positions in a new one.
//
// A source over all groups begins when its taps own every slot once. What a watch
// missed is read of those that own the slots now, with the history that came
// along, and is a page only if they own every slot once (source.past).

// coverWithin bounds how long a watch waits for slots that nobody owns, or two
// seem to.
const coverWithin = 10 * time.Second

// allSlots is what the groups of a source of all groups own together.
var allSlots = func() (s format.SlotSet) {
	s.AddRange(0, keyspace.SlotCount-1)
	return s
}()

// errMoved: slots went to another group, and the entry was not read.
var errMoved = errors.New("slots of the group went to another while its log was not followed")

func errUncovered() error {
	return fault.New(fault.Unavailable, "slots change their owners; not every slot has one that is known here; watch again with the last token",
		"limit", coverWithin).WithRetry(retryAfter)
}

// owned is what a group owns by its log, or by the map where that is silent.
func (h *Hub) owned(g keyspace.GroupID, s *format.SlotState) format.SlotSet {
	if s == nil {
		return h.o.Router.Owned(g)
	}
	return s.Owned
}

// refresh reads the map again, beside the caller; one reading at a time.
func (h *Hub) refresh() {
	if !h.refreshing.CompareAndSwap(false, true) {
		return
	}
	if !h.spawn(func(ctx context.Context) {
		defer h.refreshing.Store(false)
		bound, cancel := context.WithTimeout(ctx, askFor)
		defer cancel()
		if err := h.o.Router.Refresh(bound); err != nil {
			h.logger.Debug("the map cannot be read now", "error", err)
		}
		h.pause(ctx, retryAfter)
	}) {
		h.refreshing.Store(false)
	}
}

// cover is the slots that groups own together; twice when two own the same.
type cover struct {
	slots format.SlotSet
	twice bool
}

func (c *cover) add(slots *format.SlotSet) {
	c.twice = c.twice || c.slots.Meets(slots)
	c.slots = c.slots.With(slots)
}

func (c *cover) exact() bool { return !c.twice && c.slots == allSlots }

// learn takes what the group's log says of its slots at a later position than the
// tap's. Slots that came are its own once everything up to at was given.
func (t *tap) learn(s *format.SlotState, at keyspace.Revision) error {
	t.said, t.saidAt, t.news = s, at, true
	owned := t.hub.owned(t.group, s)
	if t.pos == 0 {
		t.owned = owned
	}
	if s != nil {
		t.gone = s.Gone
		t.gains = t.gains.Without(&s.Gone)
		if s.Gone.Meets(&t.owned) {
			return errMoved
		}
	}
	if more := owned.Without(&t.owned); !more.Empty() {
		t.gains, t.gainsAt = t.gains.With(&more), max(t.gainsAt, at)
	}
	return nil
}

// gained takes the slots that are the tap's at a revision.
func (t *tap) gained(upto keyspace.Revision) (gains format.SlotSet) {
	if t.gains.Empty() || upto < t.gainsAt {
		return gains
	}
	gains = t.gains
	t.owned, t.gains, t.gainsAt = t.owned.With(&gains), format.SlotSet{}, 0
	return gains
}

// giveUp takes slots from the tap and returns those that it had.
func (t *tap) giveUp(slots *format.SlotSet) format.SlotSet {
	rest := t.owned.Without(slots)
	given := t.owned.Without(&rest)
	t.owned, t.gains, t.gone = rest, t.gains.Without(slots), t.gone.With(slots)
	return given
}

// addTap follows a group from a revision on, 0 for now, unless it does already.
func (src *source) addTap(g keyspace.GroupID, pos keyspace.Revision) *tap {
	for _, t := range src.taps {
		if t.group == g {
			return t
		}
	}
	t := &tap{hub: src.hub, group: g, wake: src.signal, pos: pos}
	src.taps = append(src.taps, t)
	src.mu.Lock()
	src.groups = append(src.groups, g)
	src.mu.Unlock()
	src.signal()
	return t
}

// settleLayout lets the taps of all groups come to one layout, before anything was
// given: what left meanwhile belongs to nobody until its next owner's tap has it.
func (src *source) settleLayout(least keyspace.Revision) {
	for _, t := range src.taps {
		if t.left != nil {
			t.giveUp(&t.left.Slots)
			src.addTap(t.left.To, 0)
			t.left = nil
			src.signal() // it reads on
		}
		if !t.gains.Empty() {
			src.start = max(src.start, t.gainsAt)
			t.gained(least)
		}
	}
}

// covers reports whether the taps own every slot once.
func (src *source) covers() bool {
	if !src.merged {
		return true
	}
	var c cover
	for _, t := range src.taps {
		c.add(&t.owned)
	}
	return c.exact()
}

// uncovered looks for the groups that own what is missing, for a while.
func (src *source) uncovered() time.Duration {
	now := src.hub.o.Clock.Mono()
	switch {
	case !src.lacking:
		src.lacking, src.lackingAt = true, now
	case now-src.lackingAt > coverWithin:
		src.finish(errUncovered())
		return 0
	}
	src.hub.refresh()
	for _, g := range src.hub.o.Router.DataGroups() {
		src.addTap(g, 0)
	}
	return retryAfter
}

// finish ends the source. Its watches go on in another, or end with err.
func (src *source) finish(err error) {
	h := src.hub
	h.mu.Lock()
	if h.sources[src.at] == src {
		delete(h.sources, src.at)
	}
	h.mu.Unlock()
	src.cancel()
	src.mu.Lock()
	defer src.mu.Unlock()
	src.over, src.overErr = true, err
	src.dismiss(func(*watch) bool { return true })
}

// putBehind takes a live watch out of the index; mu is held.
func (src *source) putBehind(w *watch) {
	src.index.remove(w)
	w.state, w.at.rev = behind, max(w.at.rev, src.frontier)
}

// holds reports whether a watch belongs here; mu is held.
func (src *source) holds(w *watch) bool {
	return !src.over && (src.merged || src.owned.Has(w.pattern.slot))
}

// toMessage and stateOf are what goes over the wire of a group's slots.
func toMessage(s *format.SlotState, at keyspace.Revision) *api.GroupSlots {
	if s == nil {
		return &api.GroupSlots{Silent: true, At: uint64(at)}
	}
	return &api.GroupSlots{Owned: s.Owned.String(), Gone: s.Gone.String(), At: uint64(at)}
}

func stateOf(m *api.GroupSlots) (*format.SlotState, error) {
	if m == nil || m.Silent {
		return nil, nil
	}
	s := new(format.SlotState)
	var err, err2 error
	s.Owned, err = format.ParseSlotSet(m.Owned)
	s.Gone, err2 = format.ParseSlotSet(m.Gone)
	return s, errors.Join(err, err2)
}

func leftOf(m *api.SlotsLeft) (*host.SlotsLeft, error) {
	if m == nil {
		return nil, nil
	}
	slots, err := format.ParseSlotSet(m.Slots)
	return &host.SlotsLeft{Slots: slots, To: keyspace.GroupID(m.To), Ceiling: keyspace.Revision(m.Ceiling)}, err
}
