// Package lockcheck judges histories of locks: what their owners saw, and which
// fenced writes were accepted.
package lockcheck

import (
	"fmt"
	"sort"
)

// Hold is one time of holding a lock.
type Hold struct {
	// Owner names who held it, Token is the lock's.
	Owner string
	Token uint64
	// From is when taking it returned, Until when giving it back was called, on one
	// clock. Lost: it was not given back, or may have been lost before.
	From, Until int64
	Lost        bool
}

// Write is one accepted write to a register that is fenced by the lock.
type Write struct {
	Token    uint64
	Revision uint64
}

// Check returns what is wrong with a history, nil when nothing is: a token has one
// owner, holds that were given back do not overlap and have tokens in their order,
// and the register never takes a token after a higher one.
func Check(holds []Hold, writes []Write) error {
	owners := make(map[uint64]string)
	for _, h := range holds {
		if h.Token == 0 {
			return fmt.Errorf("%s holds the lock without a token", h.Owner)
		}
		if other, ok := owners[h.Token]; ok {
			return fmt.Errorf("token %d belongs to %s and to %s", h.Token, other, h.Owner)
		}
		owners[h.Token] = h.Owner
	}
	if err := overlaps(holds); err != nil {
		return err
	}
	writes = append([]Write(nil), writes...)
	sort.Slice(writes, func(i, j int) bool { return writes[i].Revision < writes[j].Revision })
	var highest uint64
	for _, w := range writes {
		switch {
		case owners[w.Token] == "":
			return fmt.Errorf("the register took token %d, which nobody was given", w.Token)
		case w.Token < highest:
			return fmt.Errorf("the register took token %d at revision %d, after %d", w.Token, w.Revision, highest)
		}
		highest = w.Token
	}
	return nil
}

// overlaps looks at holds in the order of their tokens. One that was lost may go on
// in its owner's eyes while the next has begun; it must not have begun after it.
func overlaps(holds []Hold) error {
	holds = append([]Hold(nil), holds...)
	sort.Slice(holds, func(i, j int) bool { return holds[i].Token < holds[j].Token })
	var until int64
	var last *Hold
	for i := range holds {
		h := &holds[i]
		if last != nil && h.From < until {
			return fmt.Errorf("%s took the lock with token %d at %d, while %s held it with %d until %d",
				h.Owner, h.Token, h.From, last.Owner, last.Token, until)
		}
		end := h.Until
		if h.Lost {
			end = h.From
		}
		if last == nil || end >= until {
			until, last = end, h
		}
	}
	return nil
}
