package history

import (
	"fmt"
	"slices"
	"sort"
)

// Write is what one transaction, or one single write, wanted to write.
type Write struct {
	Outcome Outcome
	// Revision of all its changes, 0 where the client was not told.
	Revision uint64
	Changes  []Change
}

// Change is one key of a Write. No two writes put the same value to a key.
type Change struct {
	Key, Value string
	Delete     bool
	// Perhaps: the deletion may have found nothing, and then is no event.
	Perhaps bool
}

// Event is what a watch yielded of one key.
type Event struct {
	Key, Value string
	Delete     bool
	// Expired: the deletion is nobody's; the deadline of its value had passed.
	Expired bool
	// Version of what was put, 0 where it is not known.
	Revision, Version uint64
}

// Update is events that came together, complete up to a revision.
type Update struct {
	Events   []Event
	Revision uint64
}

// Stream is what one watcher saw of the keys that it asked for: everything after
// From, which 0 makes everything, up to its last Update. Streams that it had to
// resume are one.
type Stream struct {
	Name    string
	From    uint64
	Match   func(key string) bool
	Updates []Update
}

// CheckWatch judges streams by what was written: events come in the order of their
// revisions, each once, a transaction's in one update, none of what was not
// written, and none is missing, whatever became of watcher, nodes and slots.
//
// Of a write of unknown outcome it is enough that all streams agree. Revisions that
// clients were not told are learned from the streams, which have to agree, too.
func CheckWatch(writes []Write, streams []Stream) []Violation {
	w := &watched{writes: writes, puts: map[[2]string]int{}, deletes: map[deleteAt]int{}, lost: map[string][]int{}, at: make([]uint64, len(writes))}
	for i, write := range writes {
		w.index(i, write)
	}
	var all []*judgedStream
	for i := range streams {
		j := &judgedStream{watched: w, Stream: &streams[i], seen: make([]bool, len(writes)), versions: map[string]uint64{}}
		all = append(all, j)
		j.judgeOrder()
		for _, u := range j.Updates {
			j.judgeUpdate(u)
		}
	}
	for _, j := range all {
		j.judgeGaps()
	}
	return w.found
}

// watched is what all streams are compared with.
type watched struct {
	violations
	writes  []Write
	puts    map[[2]string]int // by key and value
	deletes map[deleteAt]int
	lost    map[string][]int // writes of no known revision that delete a key
	at      []uint64         // the revision of each write, 0 while nobody knows
}

type deleteAt struct {
	key      string
	revision uint64
}

func (w *watched) index(i int, write Write) {
	w.at[i] = write.Revision
	for _, c := range write.Changes {
		switch {
		case !c.Delete:
			if other, twice := w.puts[[2]string{c.Key, c.Value}]; twice {
				w.add(MalformedHistory, "writes %d and %d put the same value to %s", other, i, c.Key)
			}
			w.puts[[2]string{c.Key, c.Value}] = i
		case write.Revision != 0:
			w.deletes[deleteAt{c.Key, write.Revision}] = i
		case write.Outcome != Aborted:
			w.lost[c.Key] = append(w.lost[c.Key], i)
		}
	}
}

// judgedStream is a stream while it is judged.
type judgedStream struct {
	*watched
	*Stream
	seen     []bool // by write
	versions map[string]uint64
}

func (j *judgedStream) wrong(kind, format string, args ...any) {
	j.add("watch: "+kind, "%s: %s", j.Name, fmt.Sprintf(format, args...))
}

// judgeOrder looks at revisions alone.
func (j *judgedStream) judgeOrder() {
	before, last := j.From, uint64(0)
	for i, u := range j.Updates {
		if u.Revision < before {
			j.wrong("order", "update %d is complete up to %d, the one before it was up to %d", i, u.Revision, before)
		}
		for _, ev := range u.Events {
			if ev.Revision <= before || ev.Revision > u.Revision {
				j.wrong("order", "update %d, complete from %d up to %d, has %s", i, before, u.Revision, ev)
			}
			if ev.Revision < last {
				j.wrong("order", "%s comes after an event at %d", ev, last)
			}
			last = max(last, ev.Revision)
		}
		before = max(before, u.Revision)
	}
}

func (ev Event) String() string {
	what := fmt.Sprintf("a put of %.60q", ev.Value)
	if ev.Delete {
		what = "a deletion"
	}
	return fmt.Sprintf("%s to %s at %d", what, ev.Key, ev.Revision)
}

// judgeUpdate finds the writes of an update's events and expects each whole.
func (j *judgedStream) judgeUpdate(u Update) {
	keys := map[int][]string{} // by write
	gone := map[deleteAt]bool{}
	for _, ev := range u.Events {
		if ev.Delete {
			gone[deleteAt{ev.Key, ev.Revision}] = true
		}
	}
	for _, ev := range sortedPutsFirst(u.Events) {
		j.judgeVersion(ev)
		if !j.Match(ev.Key) {
			j.wrong("invented event", "it did not ask for %s", ev)
		}
		i := j.writeOf(ev, keys, gone)
		if i < 0 {
			continue
		}
		if slices.Contains(keys[i], ev.Key) {
			j.wrong("event twice", "%s", ev)
		}
		keys[i] = append(keys[i], ev.Key)
		if j.at[i] == 0 {
			j.at[i] = ev.Revision
		}
		if j.at[i] != ev.Revision {
			j.wrong("revision", "%s is of a write at %d", ev, j.at[i])
		}
		if j.writes[i].Outcome == Aborted {
			j.wrong("invented event", "%s was certainly not executed", ev)
		}
	}
	for i, got := range keys {
		if j.seen[i] {
			j.wrong("event twice", "the write at %d of %v has come before", j.at[i], got)
		}
		j.seen[i] = true
		for _, c := range j.writes[i].Changes {
			if j.Match(c.Key) && !c.Perhaps && !slices.Contains(got, c.Key) {
				j.wrong("torn transaction", "of the write at %d of %v came %v", j.at[i], j.matching(i), got)
				break
			}
		}
	}
}

// sortedPutsFirst lets the deletions of a revision find the writes of its puts.
func sortedPutsFirst(events []Event) []Event {
	out := slices.Clone(events)
	sort.SliceStable(out, func(a, b int) bool {
		if out[a].Revision != out[b].Revision {
			return out[a].Revision < out[b].Revision
		}
		return !out[a].Delete && out[b].Delete
	})
	return out
}

// judgeVersion: a key's versions count its writes from 1 on.
func (j *judgedStream) judgeVersion(ev Event) {
	before, known := j.versions[ev.Key]
	if ev.Version != 0 && (known || j.From == 0) && ev.Version != before+1 {
		j.wrong("gap", "%s has version %d, the one before had %d", ev, ev.Version, before)
	}
	if ev.Delete || ev.Version != 0 {
		j.versions[ev.Key] = ev.Version
	}
}

// writeOf finds the write of an event among those of its update and all others, -1
// for an expiry and for what nobody wrote. gone are the update's deletions.
func (j *judgedStream) writeOf(ev Event, update map[int][]string, gone map[deleteAt]bool) int {
	if !ev.Delete {
		i, known := j.puts[[2]string{ev.Key, ev.Value}]
		if !known {
			j.wrong("invented event", "nobody wrote %s", ev)
			return -1
		}
		return i
	}
	if i, known := j.deletes[deleteAt{ev.Key, ev.Revision}]; known {
		return i
	}
	if ev.Expired {
		return -1
	}
	best := -1
	for _, i := range j.lost[ev.Key] {
		_, here := update[i]
		switch {
		case j.at[i] == ev.Revision || here && j.at[i] == 0:
			return i
		case best < 0 && j.at[i] == 0 && !j.seen[i] && j.deletesOnly(i, ev.Revision, gone):
			best = i
		}
	}
	if best < 0 {
		j.wrong("invented event", "nobody wrote %s", ev)
	}
	return best
}

// deletesOnly says that all that the stream would see of a write is these
// deletions: it has no value by which it would be known.
func (j *judgedStream) deletesOnly(i int, revision uint64, gone map[deleteAt]bool) bool {
	return !slices.ContainsFunc(j.writes[i].Changes, func(c Change) bool {
		return j.Match(c.Key) && !c.Perhaps && (!c.Delete || !gone[deleteAt{c.Key, revision}])
	})
}

// matching are the keys of a write that the stream asked for.
func (j *judgedStream) matching(i int) (keys []string) {
	for _, c := range j.writes[i].Changes {
		if j.Match(c.Key) {
			keys = append(keys, c.Key)
		}
	}
	return keys
}

// mustSee says that a write, if it happened, is an event of the stream.
func (j *judgedStream) mustSee(i int) bool {
	return slices.ContainsFunc(j.writes[i].Changes, func(c Change) bool { return j.Match(c.Key) && !c.Perhaps })
}

// judgeGaps: all that happened while the stream ran was seen. What no stream saw
// and nobody knows the revision of did not happen, unless it was acknowledged.
func (j *judgedStream) judgeGaps() {
	if len(j.Updates) == 0 {
		j.wrong("gap", "it saw nothing")
		return
	}
	end := j.Updates[len(j.Updates)-1].Revision
	for i, w := range j.writes {
		at := j.at[i]
		within := at > j.From && at <= end || at == 0 && j.From == 0 && w.Outcome == Committed
		if within && !j.seen[i] && j.mustSee(i) {
			j.wrong("gap", "the %s write at %d of %v is missing between %d and %d", w.Outcome, at, j.matching(i), j.From, end)
		}
	}
}
