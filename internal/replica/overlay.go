package replica

import (
	"github.com/zeebo/xxh3"

	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// overlay holds the versions that a leader evaluated and has not applied, and tells of
// most keys that there is nothing newer than what was fetched, without looking for it
// in every delta.
//
// A key has a place by its hash, and others have the same one. A place has what is
// pending there, the newest first, and the number of this term's latest payload that
// writes, or is being built to write, a key of it. If all payloads up to that one were
// applied before a key was fetched, the fetch has seen what they wrote. A number that is
// too high, of a payload that never came to be or of another key, only costs the search.
type overlay struct {
	places [overlayPlaces]overlayPlace
	slab   []pending
}

const (
	overlayPlaces = 2048 // many times the keys that are written at a time
	slabPending   = 64
)

type overlayPlace struct {
	seq    uint64
	newest *pending
}

// pending is an evaluated but unapplied version of a key.
type pending struct {
	key   string
	value []byte // encoded record
	del   bool   // deleted in the engine
	rev   keyspace.Revision
	// place is where it is, with older after it; next is of the same payload.
	place       uint32
	older, next *pending
}

func placeOf(key []byte) uint32              { return uint32(xxh3.Hash(key) % overlayPlaces) }
func placeOfText(key string) uint32          { return uint32(xxh3.HashString(key) % overlayPlaces) }
func (o *overlay) at(n uint32) *overlayPlace { return &o.places[n] }

// find returns the newest version of a key, nil when nothing of it is pending.
func (o *overlay) find(key []byte) *pending {
	for w := o.at(placeOf(key)).newest; w != nil; w = w.older {
		if w.key == string(key) {
			return w
		}
	}
	return nil
}

// push makes w, of payload seq, the newest version of its key, and returns it where it
// is kept.
func (o *overlay) push(w pending, seq uint64) *pending {
	if len(o.slab) == 0 {
		o.slab = make([]pending, slabPending)
	}
	kept := &o.slab[0]
	o.slab = o.slab[1:]
	w.place = placeOfText(w.key)
	at := o.at(w.place)
	w.older, at.newest, at.seq = at.newest, kept, seq
	*kept = w
	return kept
}

// remove takes versions out of which each is the next of the one before, and lets go of
// what they refer to.
func (o *overlay) remove(first *pending) {
	for w := first; w != nil; {
		link := &o.at(w.place).newest
		for *link != w {
			link = &(*link).older
		}
		*link = w.older
		next := w.next
		*w = pending{}
		w = next
	}
}

// touch notes that payload seq has writes.
func (o *overlay) touch(writes []format.Write, seq uint64) {
	for i := range writes {
		o.at(placeOf(writes[i].Key)).seq = seq
	}
}

// Progress is how far a leader's own payloads are applied: the term in which it leads,
// 0 when it does not or has not caught up, and the number of payloads.
type Progress struct {
	Term    keyspace.Term
	Applied uint64
}

// Progress is that of this replica.
func (c *Core) Progress() Progress {
	if l := c.lead; l != nil && l.appliedOwn {
		return Progress{Term: l.term, Applied: l.applied}
	}
	return Progress{}
}

// stands reports whether a fetch of a key found its newest version for sure.
func (c *Core) stands(key []byte, f *Fetched) bool {
	l := c.lead
	return f.Valid && f.Instance == c.instance && f.Progress.Term == l.term &&
		(l.overlay.at(placeOf(key)).seq <= f.Progress.Applied || c.cfg.Bugs.Has(invariant.BugUntouched))
}
