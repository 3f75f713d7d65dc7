package replica

import (
	"time"

	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// ClockOp confirms leadership, waits until all that the leader stamped is
// applied, and moves the clock to at least AtLeast within an applied ceiling
// (DESIGN 8); a first reading that holds keys moves it no further than holdLimit.
// Afterwards nothing is written at or below Result.
//
// A read over several groups asks each twice. The first reading says which of
// the sets of keys that are to be read have locked keys: what is prepared on them
// may be committed at a revision beyond any clock. The second one, with Since,
// says which of them may have changed in between, whatever their stamps. Where
// none of a set did in any group, the state at the second reading's AtLeast is
// that of the whole time between the last of the first readings and the first of
// the second ones.
type ClockOp struct {
	AtLeast keyspace.Revision
	Sets    []Spans
	// Since is the first reading; its Term is 0 in a first reading.
	Since Reading
	// Hold, of a first reading, keeps the keys of all sets from changing until the
	// second one with the same number, or for maxHold.
	Hold uint64

	Result keyspace.Revision
	Term   keyspace.Term
	// Unsettled are the numbers of sets that are locked, or have changed.
	Unsettled []int
}

// Reading is when a clock was read.
type Reading struct {
	Term  keyspace.Term
	Clock keyspace.Revision
}

// evaluateClock moves the clock to at least the wanted time, or to physical
// time when none is wanted, so that no expiry is missed. The request then waits
// like a refusal: for everything stamped so far, and for confirmation.
func (c *Core) evaluateClock(r *Request, b *building) {
	l, op := c.lead, r.Clock
	physical, wanted := keyspace.RevisionAt(b.now.Physical), op.AtLeast
	if wanted != 0 {
		physical = min(physical, l.ceiling)
	}
	if op.Hold != 0 && op.Since.Term == 0 {
		wanted = min(wanted, c.holdLimit(b.now))
	}
	t := max(l.clock, wanted, physical)
	l.clock, op.Result, op.Term = t, t, l.term
	if t > c.ReadCeiling() {
		l.raise = max(l.raise, t)
	}
	c.judgeSets(op, b.now)
}

// holdLimit is how far a reading that holds keys may move the clock, which it asks to
// be a bit ahead: less than a ceiling beyond physical time, whatever others ask for
// and whoever's clock they reckon from, since records expire early by that. Leaders
// whose clocks are apart can still read the same one.
func (c *Core) holdLimit(now Now) keyspace.Revision {
	return keyspace.RevisionAt(now.Physical + (c.cfg.ElectionTimeout * 3 / 4).Milliseconds())
}

// judgeSets says of the sets of a reading what happens to their keys.
func (c *Core) judgeSets(op *ClockOp, now Now) {
	l := c.lead
	op.Unsettled = op.Unsettled[:0]
	stood := false
	switch {
	case op.Hold == 0:
	case op.Since.Term != 0:
		stood = l.holds.end(op.Hold, now.Mono)
	default:
		l.holds.place(op.Hold, union(op.Sets), op.Result, now)
	}
	for i, set := range op.Sets {
		unsettled := false
		switch {
		case op.Since.Term == 0:
			unsettled = c.locked(set, now)
		case c.cfg.Bugs.Has(invariant.BugOneRound):
		case op.Since.Term != l.term:
			unsettled = true
		case stood:
			unsettled = !l.recent.stood(op.Since.Clock)
		default:
			unsettled = l.recent.changed(op.Since.Clock, set)
		}
		if unsettled {
			op.Unsettled = append(op.Unsettled, i)
		}
	}
}

// union is all spans of sets; there is one set where something is held.
func union(sets []Spans) Spans {
	if len(sets) == 0 {
		return nil
	}
	return sets[0]
}

// askAfter is how long a transaction is prepared, by the group's time, when readings
// that meet it begin to have it finished: most end by themselves before.
const askAfter = 5 * time.Millisecond

// locked reports whether a transaction that is prepared here, in log order, writes
// a key of spans, if it is committed. Somebody is asked to finish those that have
// been for a while.
func (c *Core) locked(spans Spans, now Now) (locked bool) {
	for _, p := range c.lead.locks.prepared {
		if !spans.meet(p.Exclusive) {
			continue
		}
		locked = true
		if now.Physical-p.Stamp.UnixMilli() >= askAfter.Milliseconds() {
			c.tellBlocked(p)
		}
	}
	return locked
}
