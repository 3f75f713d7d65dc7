package host

import (
	"slices"
	"sort"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// feedHold is what a feed has to show and cannot yet: writes above the settled
// revision, since one that is prepared may still be committed below them. It gives
// them out in the order of revisions.
type feedHold struct {
	// items are the writes of one revision each, or a step of a move of slots, in
	// the order of stamps, a step behind the writes of its stamp.
	items []FeedEntry
	bytes int
	// lacks is the highest revision of what was dropped, or was applied before the
	// feed began; 0 once everything up to it is settled, when the past has it.
	lacks keyspace.Revision
}

// idle reports whether nothing is held or lacking.
func (h *feedHold) idle() bool { return len(h.items) == 0 && h.lacks == 0 }

// inOrder reports whether entries are settled and come in the order of revisions.
func inOrder(entries []FeedEntry, settled keyspace.Revision) bool {
	var last keyspace.Revision
	for i := range entries {
		e := &entries[i]
		for j := range e.Writes {
			rev := e.Writes[j].Revision
			if rev < last || rev > settled {
				return false
			}
			last = rev
		}
		if e.Slots != nil {
			if e.stamp < last || e.stamp > settled {
				return false
			}
			last = e.stamp
		}
	}
	return true
}

// take adds entries in log order.
func (h *feedHold) take(entries []FeedEntry) {
	for _, e := range entries {
		for from := 0; from < len(e.Writes); {
			to := from + 1
			for to < len(e.Writes) && e.Writes[to].Revision == e.Writes[from].Revision {
				to++
			}
			h.add(FeedEntry{Writes: e.Writes[from:to:to], stamp: e.Writes[from].Revision})
			from = to
		}
		if e.Slots != nil {
			h.add(FeedEntry{Slots: e.Slots, Left: e.Left, stamp: e.stamp})
		}
	}
}

func (h *feedHold) add(e FeedEntry) {
	e.Settled, e.bytes = e.stamp, writesBytes(e.Writes)
	h.bytes += e.bytes
	at := len(h.items)
	if at > 0 && e.before(&h.items[at-1]) {
		at = sort.Search(at, func(i int) bool { return e.before(&h.items[i]) })
	}
	if e.Slots == nil && at > 0 && h.items[at-1].Slots == nil && h.items[at-1].stamp == e.stamp {
		same := &h.items[at-1]
		same.Writes, same.bytes = slices.Concat(same.Writes, e.Writes), same.bytes+e.bytes
		return
	}
	h.items = slices.Insert(h.items, at, e)
}

func (e *FeedEntry) before(o *FeedEntry) bool {
	return e.stamp < o.stamp || e.stamp == o.stamp && e.Slots == nil && o.Slots != nil
}

func writesBytes(writes []format.Write) int {
	bytes := feedEntryBytes
	for i := range writes {
		bytes += writeBytes(&writes[i])
	}
	return bytes
}

// settle takes out what is settled.
func (h *feedHold) settle(settled keyspace.Revision) (out []FeedEntry) {
	if h.lacks <= settled {
		h.lacks = 0
	}
	n := 0
	for n < len(h.items) && h.items[n].stamp <= settled {
		h.bytes -= h.items[n].bytes
		n++
	}
	if n == 0 {
		return nil
	}
	out = slices.Clone(h.items[:n])
	h.items = slices.Delete(h.items, 0, n)
	return out
}

// drop lets everything go.
func (h *feedHold) drop() {
	if n := len(h.items); n > 0 {
		h.lacks = max(h.lacks, h.items[n-1].stamp)
	}
	h.items, h.bytes = nil, 0
}
