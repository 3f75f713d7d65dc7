package replica

import (
	"github.com/zeebo/xxh3"

	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// touched tells of most keys that what was fetched of them is still the newest, without
// looking for anything newer in the overlay and in every delta. A key has a place by
// its hash, and others have the same one: each place has the number of this term's
// latest payload that writes, or is being built to write, such a key. If all payloads
// up to that one were applied before the fetch began, the fetch has seen what they
// wrote. A number that is too high, of a payload that never came to be or of another
// key, only costs the search.
type touched [touchedPlaces]uint64

const touchedPlaces = 4096 // many times the keys that are written at a time

func (t *touched) touch(key string, seq uint64) { t[xxh3.HashString(key)%touchedPlaces] = seq }

func (t *touched) touchAll(writes []format.Write, seq uint64) {
	for i := range writes {
		t[xxh3.Hash(writes[i].Key)%touchedPlaces] = seq
	}
}

// Progress is how far a leader's own payloads are applied: the term in which it leads,
// 0 when it does not or has not caught up, and the number of payloads.
func (c *Core) Progress() Progress {
	if l := c.lead; l != nil && l.appliedOwn {
		return Progress{Term: l.term, Applied: l.applied}
	}
	return Progress{}
}

// Progress is an answer of Core.Progress.
type Progress struct {
	Term    keyspace.Term
	Applied uint64
}

// stands reports whether a fetch of a key found its newest version for sure.
func (c *Core) stands(key []byte, f *Fetched) bool {
	l := c.lead
	return f.Valid && f.Instance == c.instance && f.Progress.Term == l.term &&
		(l.touched[xxh3.Hash(key)%touchedPlaces] <= f.Progress.Applied || c.cfg.Bugs.Has(invariant.BugUntouched))
}
