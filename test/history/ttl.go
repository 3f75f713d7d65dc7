package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// DatedWrite puts a value with a deadline. A key has one writer, which writes one
// value after the other and none after an unknown outcome.
type DatedWrite struct {
	Key, Value string
	Outcome    Outcome
	Span
	// Expires is the deadline, on the clock of the spans.
	Expires int64
}

// DatedRead is what somebody found, with the deadline that came with it.
type DatedRead struct {
	Key string
	Span
	Found   bool
	Value   string
	Expires int64
}

// Expiry is a deletion that a watch says is due to a deadline, with the time of its
// revision.
type Expiry struct {
	Key string
	At  int64
}

// TTL judges deadlines. Early and Late are how far the clock of a group may be from
// the clients': a deadline is kept by the group's.
type TTL struct {
	Early, Late time.Duration
}

// Check judges reads: no value is found after its deadline or missing before, none comes back,
// and none is deleted for its deadline before it.
func (t TTL) Check(writes []DatedWrite, reads []DatedRead, expiries []Expiry) []Violation {
	d := &dated{TTL: t, keys: map[string]*datedKey{}}
	for _, w := range writes {
		if w.Outcome != Aborted {
			d.key(w.Key).writes = append(d.key(w.Key).writes, w)
		}
	}
	for _, r := range reads {
		d.key(r.Key).reads = append(d.key(r.Key).reads, r)
	}
	for _, e := range expiries {
		d.judgeExpiry(e)
	}
	for _, name := range d.names {
		k := d.keys[name]
		slices.SortFunc(k.writes, func(a, b DatedWrite) int { return cmp.Compare(a.Call, b.Call) })
		for i, w := range k.writes[min(1, len(k.writes)):] {
			if before := k.writes[i]; before.Outcome == Unknown || !before.Before(w.Span) {
				d.add(MalformedHistory, "%s: a write %s after one %s, %s", name, w.Span, before.Span, before.Outcome)
			}
		}
		for _, r := range k.reads {
			d.judgeRead(k, r)
		}
		d.judgeReturns(k)
	}
	return d.found
}

type dated struct {
	violations
	TTL
	keys  map[string]*datedKey
	names []string // in the order of their appearance
}

type datedKey struct {
	writes []DatedWrite
	reads  []DatedRead
}

func (d *dated) key(name string) *datedKey {
	if d.keys[name] == nil {
		d.keys[name], d.names = &datedKey{}, append(d.names, name)
	}
	return d.keys[name]
}

// String tells all that happened to a key, for who looks for what went wrong.
func (k *datedKey) String() string {
	var b strings.Builder
	for _, w := range k.writes {
		fmt.Fprintf(&b, "%s written %s, %s, until %v; ", w.Value, w.Span, w.Outcome, time.Duration(w.Expires))
	}
	for _, r := range k.reads {
		fmt.Fprintf(&b, "read %s, found %t %s; ", r.Span, r.Found, r.Value)
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// possible are the writes whose value a read may have met: from the last that was
// certain when it began to the last that had begun when it ended. certain says
// that there was one at its beginning.
func (k *datedKey) possible(r DatedRead) (writes []DatedWrite, certain bool) {
	for _, w := range k.writes {
		switch {
		case w.Call > r.Return:
		case w.Outcome == Committed && w.Before(r.Span):
			writes, certain = []DatedWrite{w}, true
		default:
			writes = append(writes, w)
		}
	}
	return writes, certain
}

func (d *dated) judgeRead(k *datedKey, r DatedRead) {
	possible, certain := k.possible(r)
	if !r.Found {
		expired := slices.ContainsFunc(possible, func(w DatedWrite) bool { return r.Return >= w.Expires-int64(d.Early) })
		if certain && !expired {
			d.add("ttl: early", "%s was not found %s, and should have been there until %v: %s", r.Key, r.Span, time.Duration(possible[len(possible)-1].Expires), k)
		}
		return
	}
	i := slices.IndexFunc(possible, func(w DatedWrite) bool { return w.Value == r.Value })
	if i < 0 {
		d.add("ttl: wrong value", "%s was %.40q %s, which was not its value", r.Key, r.Value, r.Span)
		return
	}
	w := possible[i]
	if r.Call > w.Expires+int64(d.Late) {
		d.add("ttl: late", "%s was found %s, and its deadline was %v", r.Key, r.Span, time.Duration(w.Expires))
	}
	if r.Expires != w.Expires {
		d.add("ttl: deadline", "%s was found with the deadline %v, written with %v", r.Key, time.Duration(r.Expires), time.Duration(w.Expires))
	}
}

// judgeReturns: a value that somebody missed after it was there is found by nobody
// later.
func (d *dated) judgeReturns(k *datedKey) {
	for _, w := range k.writes {
		gone := Span{Return: Forever}
		for _, r := range k.reads {
			if possible, certain := k.possible(r); !r.Found && certain && possible[0].Value == w.Value && len(possible) == 1 && r.Return < gone.Return {
				gone = r.Span
			}
		}
		for _, r := range k.reads {
			if r.Found && r.Value == w.Value && gone.Before(r.Span) {
				d.add("ttl: came back", "%s was gone %s and %.40q again %s", w.Key, gone, w.Value, r.Span)
			}
		}
	}
}

// judgeExpiry uses no tolerance but that of milliseconds: the revision is of the
// clock that judged.
func (d *dated) judgeExpiry(e Expiry) {
	k := d.keys[e.Key]
	if k == nil || !slices.ContainsFunc(k.writes, func(w DatedWrite) bool { return w.Expires <= e.At+int64(time.Millisecond) }) {
		d.add("ttl: early", "%s was deleted as expired at %v, before any deadline that it had", e.Key, time.Duration(e.At))
	}
}
