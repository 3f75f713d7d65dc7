package host

import (
	"context"
	"sync"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// feed keeps the latest writes of a group's replica for those who watch.
//
// It is there only while somebody follows the group. The loop adds each entry as
// it is applied and shows it when the entry is published, so that a follower
// finds in the store whatever it has been told of. Keys and values are not
// copied: they are parts of the log entry that the delta keeps too. The oldest
// entries go when there are more than Options.FeedBytes; a follower that has not read
// them by then is told so, and reads the past (Past). It never waits for anybody.
//
// Entries come in the order of revisions: what a follower has read is whole up to
// the settled revision. That is the order of the log, but for transactions over
// several groups: they are committed at a revision below others that the group has
// given meanwhile. So while something is prepared, what lies above the settled
// revision is held back (feedHold).
type feed struct {
	// staged entries are applied and not shown; only the loop has them.
	staged []FeedEntry

	mu        sync.Mutex
	followers map[*Follower]struct{}
	entries   []FeedEntry
	bytes     int
	// position is that of the latest change, base the one behind which every entry
	// is here, or came without writes.
	position, base FeedPosition
	hold           feedHold
	index          keyspace.Index
	settled        keyspace.Revision
	slots          *format.SlotState // at index
	ended          bool
	jumped         bool // a snapshot was taken and is not published yet
	// limit bounds what is kept, in bytes of keys and values; one entry always is.
	limit int
	bugs  invariant.Bug
}

// feedEntryBytes is what a write costs beside its key and value.
const feedEntryBytes = 96

// FeedPosition is a place in a feed, from 1.
type FeedPosition uint64

// FeedEntry is what one log entry wrote of user data, or a part of that, or parts
// of several.
type FeedEntry struct {
	// Position is that of the entry: the next Read goes from there.
	Position FeedPosition
	// Index is the log index up to which everything at or below Settled has been
	// read with this entry.
	Index keyspace.Index
	// Settled: no later entry writes at or below it.
	Settled keyspace.Revision
	// Writes are in the order of their revisions; those of one request have the
	// same. They must not be changed.
	Writes []format.Write
	// Slots is set where the entry changed what the group owns: the state behind
	// it. Left then tells what it gave up, nil where it did not.
	Slots *format.SlotState
	Left  *SlotsLeft
	bytes int
	stamp keyspace.Revision // of the log entry
}

// SlotsLeft says that a group gave slots up: it writes nothing more of them, and
// what the other group writes of them is above Ceiling. Whoever follows the slots
// goes on there.
type SlotsLeft struct {
	Slots   format.SlotSet
	To      keyspace.GroupID
	Ceiling keyspace.Revision
}

// FeedPage is what a follower reads.
type FeedPage struct {
	Entries []FeedEntry
	// Position is where the page ends.
	Position FeedPosition
	// Index is the log index that the page reaches. With everything before it, the
	// group's writes up to Settled are complete.
	Index   keyspace.Index
	Settled keyspace.Revision
	// Slots is what the group's log says of its slots, of a page that is Lost and of
	// the one that Follow returns; nil when it owns all that is routed to it.
	Slots *format.SlotState
	// More can be read at once.
	More bool
	// Lost: the entries behind the given position are not kept any more; Position,
	// Index and Settled are where they begin again.
	Lost bool
	// Ended: the replica here is gone; nothing more comes.
	Ended bool
}

// Follower reads a group's feed. It must be closed.
type Follower struct {
	h    *Host
	id   keyspace.GroupID
	feed *feed
	wake func()
}

// Follow begins to keep the writes of a group's replica here, from now on. wake
// is called when there is something to read; it must not block. The first Read
// goes from the page that is returned.
func (h *Host) Follow(ctx context.Context, id keyspace.GroupID, wake func()) (*Follower, FeedPage, error) {
	type joined struct {
		f  *Follower
		at FeedPage
	}
	var made *Follower // the loop's
	j, err := onLoop(ctx, h, func() (joined, error) {
		g := h.groups[id]
		switch {
		case g == nil, g.core == nil, g.replica.Witness():
			return joined{}, errNotHosted(id)
		case ctx.Err() != nil: // nobody would close it
			return joined{}, fault.Wrap(fault.Canceled, ctx.Err(), "whoever wanted to follow the group has gone", "group", id)
		}
		if g.feed == nil {
			g.feed = newFeed(g.published.Load(), h.opt.FeedBytes, h.opt.Bugs)
		}
		made = &Follower{h: h, id: id, feed: g.feed, wake: wake}
		return joined{made, g.feed.join(made)}, nil
	})
	if err != nil {
		h.control(func() {
			if made != nil { // nobody waited for it any more
				made.Close()
			}
		})
	}
	return j.f, j.at, err
}

func newFeed(p *published, limit int, bugs invariant.Bug) *feed {
	f := &feed{followers: make(map[*Follower]struct{}), limit: limit, bugs: bugs}
	f.begin(p.index, p.settled, p.readRev, p.slots)
	return f
}

// begin makes the feed begin behind a state.
func (f *feed) begin(index keyspace.Index, settled, newest keyspace.Revision, slots *format.SlotState) {
	f.position++
	f.base, f.index, f.settled, f.slots = f.position, index, max(f.settled, settled), slots
	f.staged, f.entries, f.bytes = nil, nil, 0
	f.hold = feedHold{lacks: newest}
	f.hold.settle(f.settled)
}

func (f *feed) join(by *Follower) FeedPage {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.followers[by] = struct{}{}
	return FeedPage{Position: f.position, Index: f.index, Settled: f.settled, Slots: f.slots}
}

// Close ends following; with the last follower the feed goes.
func (f *Follower) Close() {
	f.feed.mu.Lock()
	delete(f.feed.followers, f)
	f.feed.mu.Unlock()
	f.h.control(func() {
		if g := f.h.groups[f.id]; g != nil && g.feed == f.feed && f.feed.alone() {
			g.feed = nil
		}
	})
}

func (f *feed) alone() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.followers) == 0
}

// Read returns the entries behind a position, of about maxBytes and at least one.
func (f *Follower) Read(after FeedPosition, maxBytes int) FeedPage {
	return f.feed.read(after, maxBytes)
}

func (f *feed) read(after FeedPosition, maxBytes int) FeedPage {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := FeedPage{Position: f.position, Index: f.index, Settled: f.settled, Ended: f.ended}
	if after < f.base {
		p.Lost, p.Slots = true, f.slots
		return p
	}
	from := len(f.entries)
	for from > 0 && f.entries[from-1].Position > after {
		from--
	}
	to, bytes := from, 0
	for to < len(f.entries) && (to == from || bytes+f.entries[to].bytes <= maxBytes) {
		bytes += f.entries[to].bytes
		to++
	}
	p.Entries = append([]FeedEntry(nil), f.entries[from:to]...)
	if to < len(f.entries) {
		last := &f.entries[to-1]
		p.Position, p.Index, p.Settled, p.More = last.Position, last.Index, last.Settled, true
	}
	return p
}

// take stages an applied entry, behind which the group has slots. A nil feed
// takes nothing.
func (f *feed) take(index keyspace.Index, payload []byte, settled keyspace.Revision, slots *format.SlotState) {
	if f == nil || len(payload) == 0 {
		return
	}
	var e format.Entry
	invariant.Assert(format.DecodeEntry(payload, &e) == nil, "entry %d was applied and does not decode", index)
	entry := FeedEntry{Index: index, Settled: settled, Writes: userWrites(&e), stamp: e.Stamp}
	entry.noteStep(&e, slots)
	if len(entry.Writes) == 0 && entry.Slots == nil {
		return
	}
	entry.bytes = writesBytes(entry.Writes)
	f.staged = append(f.staged, entry)
}

// noteStep notes a step of a move that changed what the group owns.
func (entry *FeedEntry) noteStep(e *format.Entry, slots *format.SlotState) {
	if e.Type != format.EntrySlots || e.Slots == nil || slots == nil {
		return
	}
	switch e.Slots.Kind {
	case format.SlotFound, format.SlotAccept:
	case format.SlotLeave:
		if o := slots.Out; o != nil {
			entry.Left = &SlotsLeft{Slots: o.Slots, To: o.To, Ceiling: o.Ceiling}
		}
	default:
		return
	}
	entry.Slots = slots
}

func writeBytes(w *format.Write) int { return feedEntryBytes + len(w.Key) + len(w.Value) }

// userWrites are the writes of an entry that are events: records of user
// namespaces that an operation wrote, not chunks, copies or the cluster's own.
func userWrites(e *format.Entry) []format.Write {
	if !e.Type.Writes() {
		return nil
	}
	out := e.Writes[:0]
	for _, w := range e.Writes {
		if !w.Delete && isUserKey(w.Key) {
			out = append(out, w)
		}
	}
	return out
}

// show lets followers read what was staged, once p is published.
func (f *feed) show(p *published) {
	if f == nil || !f.add(p) {
		return
	}
	f.signal()
}

func (f *feed) add(p *published) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.staged) == 0 && p.settled == f.settled && p.index == f.index && !f.jumped {
		return false
	}
	f.jumped = false
	before := f.index
	f.index, f.settled = p.index, max(f.settled, p.settled)
	f.release(before)
	if f.hold.idle() {
		f.slots = p.slots
	}
	clear(f.staged)
	f.staged = f.staged[:0]
	f.trim()
	return true
}

// release shows what was staged, or held back, as far as it is settled; before is
// the index that was shown last.
func (f *feed) release(before keyspace.Index) {
	if f.hold.idle() && inOrder(f.staged, f.settled) || f.bugs.Has(invariant.BugFeedUnheld) {
		for _, e := range f.staged {
			f.append(e)
		}
		f.position++
		return
	}
	lacked := f.hold.lacks > 0
	f.hold.take(f.staged)
	for _, e := range f.hold.settle(f.settled) {
		if e.Slots != nil {
			f.slots = e.Slots
		}
		e.Index = before
		f.append(e)
	}
	if f.hold.bytes > f.limit {
		f.hold.drop()
	}
	f.position++
	if lacked || f.hold.lacks > 0 { // followers read the past up to here
		f.entries, f.bytes, f.base = nil, 0, f.position
	}
}

func (f *feed) append(e FeedEntry) {
	f.position++
	e.Position = f.position
	f.entries = append(f.entries, e)
	f.bytes += e.bytes
}

// trim lets the oldest entries go that are too many.
func (f *feed) trim() {
	gone := 0
	for gone < len(f.entries)-1 && f.bytes > f.limit {
		f.bytes -= f.entries[gone].bytes
		f.base = f.entries[gone].Position
		gone++
	}
	if gone > 0 {
		rest := copy(f.entries, f.entries[gone:])
		clear(f.entries[rest:])
		f.entries = f.entries[:rest]
	}
}

// jump tells that a snapshot took the place of the entries up to its index.
func (f *feed) jump(core *replica.Core) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := core.State()
	f.begin(s.Index, core.Settled(), s.LastRev, s.Slots)
	f.jumped = true
}

// end tells that the replica is gone.
func (f *feed) end() {
	if f == nil {
		return
	}
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.signal()
}

func (f *feed) signal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for by := range f.followers {
		by.wake()
	}
}
