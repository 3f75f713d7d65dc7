package router

import (
	"context"
	"errors"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// A list is made of pages that were read of different groups at different
// moments, while slots may change their owners. Each page says which slots its
// groups owned at its view, its claim; it has all keys of these in its range and
// no others. So a list has every key once when at each key the claims of the
// pages that reach over it are every slot once. Two rules hold that:
//
//   - The claims of all cursors together are every slot once.
//   - The claim of a cursor never changes. Where a page comes with another one,
//     what is buffered elsewhere was read under the old owners from there on, and
//     keys of slots that moved in between would be in neither.
//
// When one of them does not hold, all cursors are dropped, the map is read again
// and the page is repeated from where it began. Nothing of it was given yet, so
// pages that were given stay as they are; a claim needs to hold within a page
// only.
//
// The revision stays what it is once a page was given. That is right because
// the first page was covered by groups whose clocks were read and moved to the
// revision: who took a slot over from one of them since then has what it had up
// to there and stamps its own writes above that group's ceiling. Before that it
// is chosen anew, with the clock of the group that owns what was missing: that
// may have acknowledged writes that the list has to have.
//
// A replica that lags claims what its group had. That is as good, as long as no
// other page claims the same; so pages are repeated on leaders, which have
// applied all that their groups decided.

// errUncovered ends a page whose claims are not every slot once.
var errUncovered = errors.New("the pages of a list do not cover every slot once")

// errEnded ends a page on which a record expired between the two rounds that
// chose the list's revision.
var errEnded = errors.New("a record of the list expired while its revision was chosen")

// maxRepeats bounds how often a page is repeated for its cover.
const maxRepeats = 16

// allSlots is the claim of all groups together.
var allSlots = func() (s format.SlotSet) {
	s.AddRange(0, keyspace.SlotCount-1)
	return s
}()

// claim is the slots that pages have all keys of; twice when one is in two.
type claim struct {
	slots format.SlotSet
	twice bool
}

func (c *claim) add(slots *format.SlotSet) {
	c.twice = c.twice || c.slots.Meets(slots)
	c.slots = c.slots.With(slots)
}

func (c *claim) join(o *claim) {
	c.add(&o.slots)
	c.twice = c.twice || o.twice
}

// claimOf is what a page says of its groups. One whose log says nothing of slots
// has never given or taken any: the map that was read before the page has what
// it owns.
func (l *lister) claimOf(p *scanPage) claim {
	c := claim{slots: p.slots, twice: p.overlap}
	for _, g := range p.silent {
		owned := l.m.Owned(g)
		c.add(&owned)
	}
	return c
}

// covered reports whether what is claimed is what the list is of.
func (l *lister) covered(c *claim) bool {
	switch {
	case l.ns == keyspace.SystemNamespace:
		return true
	case l.slot >= 0:
		return !c.twice && c.slots.Has(keyspace.SlotID(l.slot))
	}
	return !c.twice && c.slots == allSlots
}

// judge holds the cursors to both rules.
func (l *lister) judge() error {
	var all claim
	for _, c := range l.cursors {
		if c.changed {
			return errUncovered
		}
		if c.ends && !l.fixed {
			return errEnded
		}
		all.join(&c.claim)
	}
	if !l.covered(&all) {
		return errUncovered
	}
	return nil
}

// repeating runs step until its claims are right.
func (l *lister) repeating(ctx context.Context, step func(context.Context) error) error {
	for n := 1; ; n++ {
		err := step(ctx)
		if errors.Is(err, errEnded) {
			l.drop()
			if err = l.choose(ctx); err == nil {
				n--
				continue
			}
		}
		if !errors.Is(err, errUncovered) {
			return err
		}
		if n == maxRepeats {
			return l.uncovered(n)
		}
		if err := l.replan(ctx, n); err != nil {
			return err
		}
	}
}

// replan begins the page again by a newer map; n counts the tries. While there
// is no newer one, a group has given slots up and the next has not taken them.
func (l *lister) replan(ctx context.Context, n int) error {
	l.drop()
	l.leaders = true
	m, err := l.r.refreshNewer(ctx, l.m.Epoch)
	if (err != nil || m.Epoch <= l.m.Epoch) && !l.r.pause(ctx, l.r.backoff(n)) {
		return l.uncovered(n)
	}
	l.m = m
	l.groups, l.slot, _ = m.groupsOfPrefix(l.ns, l.req.Prefix)
	if l.fixed {
		return nil
	}
	return l.choose(ctx)
}

// drop forgets what was read of the page.
func (l *lister) drop() {
	l.close()
	l.cursors, l.started = nil, false
}

func (l *lister) uncovered(n int) error {
	return fault.New(fault.Unavailable, "slots change their owners; the list found no moment at which each had one",
		"limit", maxRepeats, "actual", n).WithRetry(DefaultBackoffMax)
}
