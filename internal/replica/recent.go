package replica

import (
	"bytes"
	"slices"
	"sort"

	"kvstore/internal/keyspace"
)

// Span is a range of disk keys without instance; Upper is exclusive, empty means
// to the end.
type Span struct{ Lower, Upper []byte }

// Spans are in order and apart.
type Spans []Span

// has reports whether a disk key is in one of them.
func (s Spans) has(key string) bool {
	n := sort.Search(len(s), func(i int) bool { return string(s[i].Lower) > key })
	return n > 0 && (len(s[n-1].Upper) == 0 || key < string(s[n-1].Upper))
}

// meet reports whether one of some sorted keys is in one of them.
func (s Spans) meet(keys [][]byte) bool {
	if len(s) > len(keys) {
		return slices.ContainsFunc(keys, func(key []byte) bool { return s.has(string(key)) })
	}
	return slices.ContainsFunc(s, func(span Span) bool {
		n, _ := slices.BinarySearchFunc(keys, span.Lower, bytes.Compare)
		return n < len(keys) && (len(span.Upper) == 0 || bytes.Compare(keys[n], span.Upper) < 0)
	})
}

// recent is what a leader remembers of the keys that it stamped last, for reads
// over several groups that ask whether anything changed since a moment ago. It
// is bounded: a question that reaches further back than it does is answered as if
// something had changed, never the other way round. It belongs to one term.
type recent struct {
	// reach: every key that was stamped above it is in keys.
	reach keyspace.Revision
	// moved is the last stamp at which the group took or gave slots, swept the latest
	// deadline of a record that was deleted since its time was over.
	moved keyspace.Revision
	swept int64
	// keys are in the order of their stamps, from head on.
	keys  []stamped
	head  int
	bytes int
}

type stamped struct {
	at  keyspace.Revision
	key string
	// gone is the deadline of a record that was deleted for it, 0 of others: nobody
	// whose first reading was later knew the record.
	gone int64
}

const (
	// maxRecent and maxRecentBytes bound what is remembered: at 100,000 writes per
	// second it reaches 40 ms back, and two rounds take a few.
	maxRecent      = 4096
	maxRecentBytes = 256 << 10
)

// add notes that a disk key was stamped.
func (r *recent) add(at keyspace.Revision, key string) { r.note(stamped{at: at, key: key}) }

// expire notes that the record of a disk key was deleted for its deadline.
func (r *recent) expire(at keyspace.Revision, key string, deadline int64) {
	r.swept = max(r.swept, deadline)
	r.note(stamped{at, key, deadline})
}

func (r *recent) note(s stamped) {
	r.keys = append(r.keys, s)
	r.bytes += len(s.key)
	for len(r.keys)-r.head > maxRecent || r.bytes > maxRecentBytes {
		old := &r.keys[r.head]
		r.reach = max(r.reach, old.at)
		r.bytes -= len(old.key)
		*old = stamped{}
		r.head++
	}
	if r.head >= maxRecent {
		n := copy(r.keys, r.keys[r.head:])
		clear(r.keys[n:])
		r.keys, r.head = r.keys[:n], 0
	}
}

// stood is changed for keys that were held since then: only expiry, and who owns
// them, may have changed.
func (r *recent) stood(since keyspace.Revision) bool {
	return since >= r.moved && since.UnixMilli() >= r.swept
}

// changed reports whether a key of spans may have been stamped above since, or
// the group's slots have changed.
func (r *recent) changed(since keyspace.Revision, spans Spans) bool {
	if since < r.reach || since < r.moved {
		return true
	}
	for i := len(r.keys) - 1; i >= r.head && r.keys[i].at > since; i-- {
		s := &r.keys[i]
		if (s.gone == 0 || s.gone > since.UnixMilli()) && spans.has(s.key) {
			return true
		}
	}
	return false
}
