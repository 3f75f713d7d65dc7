package watch

import (
	"context"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// Host runs the replicas of this node; FromHost makes one of a *host.Host.
type Host interface {
	// Follow begins to keep a group's writes; wake must not block.
	Follow(ctx context.Context, g keyspace.GroupID, wake func()) (Feed, host.FeedPage, error)
	Past(ctx context.Context, r host.PastRequest) (host.PastPage, error)
	VersionAt(g keyspace.GroupID, diskKey []byte, rev keyspace.Revision, keysOnly bool) (*format.Record, error)
	Hosts(g keyspace.GroupID) bool
}

// Feed is the latest writes of a group; *host.Follower is one.
type Feed interface {
	Read(after host.FeedPosition, maxBytes int) host.FeedPage
	Close()
}

// FromHost is h as this package sees it.
func FromHost(h *host.Host) Host { return hosted{h} }

type hosted struct{ *host.Host }

func (h hosted) Follow(ctx context.Context, g keyspace.GroupID, wake func()) (Feed, host.FeedPage, error) {
	f, at, err := h.Host.Follow(ctx, g, wake)
	if err != nil {
		return nil, at, err
	}
	return f, at, nil
}

// tap reads one group's writes in the order of their revisions, without a gap:
// from the feed of the replica here, or from the past where the feed does not
// reach, or from another node where there is no replica. One goroutine has it.
type tap struct {
	hub   *Hub
	group keyspace.GroupID
	wake  func()

	feed   Feed    // of the replica here, nil while there is none
	remote *remote // of another node's, nil while there is none
	// at is where the feed was read to, index the log index that this reaches.
	at    host.FeedPosition
	index keyspace.Index
	// gap: up to it the past is read before the feed.
	gap keyspace.Revision
	// opened is pos at the first opening.
	opened keyspace.Revision
	// pos: all writes at or below it were read; 0 before the first opening.
	pos keyspace.Revision
	// held are read and not taken, in the order of their revisions.
	held  []*event
	bytes int
	// owned are the slots whose events are the group's at pos. Gains are owned once
	// everything up to gainsAt was given. gone are slots that it gave up.
	owned, gains, gone format.SlotSet
	gainsAt            keyspace.Revision
	// left are slots that the group gave up; nothing is read until they are taken.
	left *host.SlotsLeft
	// said is what the log said last of the slots, at saidAt; news that it did.
	said   *format.SlotState
	saidAt keyspace.Revision
	news   bool
}

const (
	// heldBytes bounds what a tap holds while another group's is behind.
	heldBytes = 8 << 20
	// readBytes bounds one read of a feed or of the past.
	readBytes = 1 << 20
)

// pull reads what there is. An error leaves everything as it was; a later pull
// goes on.
func (t *tap) pull(ctx context.Context) error {
	if t.feed == nil && t.remote == nil {
		if err := t.open(ctx); err != nil {
			return err
		}
	}
	if t.remote != nil {
		return t.pullRemote(ctx)
	}
	for t.bytes < heldBytes && t.left == nil {
		if t.pos < t.gap {
			if err := t.pullPast(ctx); err != nil {
				return err
			}
			continue
		}
		p := t.feed.Read(t.at, readBytes)
		switch {
		case p.Lost:
			t.at, t.index, t.gap = p.Position, p.Index, p.Settled
			if err := t.learn(p.Slots, p.Settled); err != nil {
				return err
			}
			if t.pos >= t.gap {
				return nil // it is just changing; it wakes us
			}
			t.hub.stats.overtaken.Add(1)
			continue
		case p.Ended && len(p.Entries) == 0:
			t.close()
			return t.open(ctx)
		}
		for i := range p.Entries {
			e := &p.Entries[i]
			t.hold(e.Writes)
			if e.Slots != nil && e.Left == nil {
				if err := t.learn(e.Slots, e.Settled); err != nil {
					return err
				}
			}
			if e.Left != nil {
				t.left, t.at, t.index, t.pos = e.Left, e.Position, e.Index, max(t.pos, min(e.Settled, e.Left.Ceiling))
				return nil
			}
		}
		t.at, t.index, t.pos = p.Position, p.Index, max(t.pos, p.Settled)
		if !p.More {
			return nil
		}
	}
	return nil
}

// open begins with the replica here, or else with one elsewhere.
func (t *tap) open(ctx context.Context) error {
	feed, at, err := t.hub.o.Host.Follow(ctx, t.group, t.wake)
	switch {
	case err == nil:
		t.feed, t.at, t.index, t.gap = feed, at.Position, at.Index, at.Settled
		if err := t.learn(at.Slots, at.Settled); err != nil {
			return err
		}
		if t.pos == 0 {
			t.pos, t.opened = at.Settled, at.Settled
		}
		return nil
	case fault.CodeOf(err) != fault.WrongLeader:
		return err
	}
	t.remote = t.hub.openRemote(t.group, t.pos, t.wake)
	return nil
}

func (t *tap) pullPast(ctx context.Context) error {
	page, err := t.hub.o.Host.Past(ctx, host.PastRequest{Group: t.group, After: t.pos, Until: t.gap, Own: true, MaxBytes: readBytes})
	if fault.CodeOf(err) == fault.WrongLeader {
		t.close()
		return t.open(ctx)
	}
	if err != nil {
		return err
	}
	t.hub.countPast(&page)
	t.hold(page.Writes)
	if page.Upto == t.pos {
		return errBehind // the replica here was replaced by one that is not as far
	}
	t.pos = page.Upto
	return nil
}

// hold keeps the writes that are new.
func (t *tap) hold(writes []format.Write) {
	events := make([]event, len(writes))
	for i := range writes {
		w := &writes[i]
		if w.Revision <= t.pos {
			continue
		}
		ev := &events[i]
		ev.group, ev.rev, ev.key, ev.value = t.group, w.Revision, w.Key, w.Value
		t.held = append(t.held, ev)
		t.bytes += ev.cost()
	}
}

// release takes the events up to a revision, but for those of slots that are not
// the tap's: copies, which are events of the group that wrote them.
func (t *tap) release(upto keyspace.Revision, into []*event) []*event {
	t.drain(upto, func(ev *event) {
		if t.owned.Has(ev.slot()) {
			into = append(into, ev)
		}
	})
	return into
}

// drain takes all events up to a revision.
func (t *tap) drain(upto keyspace.Revision, each func(*event)) {
	n := 0
	for n < len(t.held) && t.held[n].rev <= upto {
		t.bytes -= t.held[n].cost()
		each(t.held[n])
		n++
	}
	rest := copy(t.held, t.held[n:])
	clear(t.held[rest:])
	t.held = t.held[:rest]
}

// promise is a clock reading: with the log up to Index everything at or below
// Settled was read. What the feed holds back above its settled revision is above
// this one, too: it waits for something that was prepared before the reading.
func (t *tap) promise(c host.ClockReading) {
	read := c.Index <= t.index || t.hub.o.Bugs.Has(invariant.BugPromiseBlind)
	if c.Err == nil && read && t.pos >= t.gap && c.Settled > t.pos {
		t.pos = c.Settled
	}
}

func (t *tap) close() {
	if t.feed != nil {
		t.feed.Close()
		t.feed = nil
	}
	if t.remote != nil {
		t.remote.close()
		t.remote = nil
	}
}

var errBehind = fault.New(fault.Unavailable, "the replica has not come as far as was read before")
