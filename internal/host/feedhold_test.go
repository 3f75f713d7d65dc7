package host

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// logModel is a group's log in which transactions are committed below revisions
// that it gave meanwhile, and the feed of one of its replicas.
type logModel struct {
	feed     *feed
	index    keyspace.Index
	clock    keyspace.Revision
	prepared []keyspace.Revision // stamps
	applied  []format.Write      // in log order
	slots    *format.SlotState
}

func (m *logModel) settled() keyspace.Revision {
	if len(m.prepared) == 0 {
		return m.clock
	}
	return min(m.clock, slices.Min(m.prepared)-1)
}

// apply stages an entry with writes at some revisions, or a step of a move.
func (m *logModel) apply(step bool, revs ...keyspace.Revision) {
	m.index++
	e := FeedEntry{Index: m.index, Settled: m.settled(), stamp: m.clock}
	for _, rev := range revs {
		w := format.Write{Key: fmt.Append(nil, "k", len(m.applied)), Revision: rev, Value: make([]byte, 20)}
		e.Writes, m.applied = append(e.Writes, w), append(m.applied, w)
	}
	if step {
		m.slots = &format.SlotState{Ended: format.MoveID(m.clock)}
		e.Slots = m.slots
	}
	e.bytes = writesBytes(e.Writes)
	if m.feed != nil && (len(e.Writes) > 0 || step) {
		m.feed.staged = append(m.feed.staged, e)
	}
}

func (m *logModel) published() *published {
	return &published{index: m.index, settled: m.settled(), readRev: m.clock, slots: m.slots}
}

// modelReader follows the feed, and reads the past where that is lost.
type modelReader struct {
	t     *rapid.T
	m     *logModel
	at    FeedPosition
	index keyspace.Index
	pos   keyspace.Revision
	got   []format.Write
	held  []format.Write
	lost  int
}

func (r *modelReader) past(until keyspace.Revision) {
	var some []format.Write
	for _, w := range r.m.applied {
		if w.Revision > r.pos && w.Revision <= until {
			some = append(some, w)
		}
	}
	slices.SortStableFunc(some, func(a, b format.Write) int { return int(int64(a.Revision) - int64(b.Revision)) })
	r.got, r.pos, r.held = append(r.got, some...), max(r.pos, until), nil
}

func (r *modelReader) read(pages int) {
	for ; pages > 0; pages-- {
		p := r.m.feed.read(r.at, 200)
		if r.at = p.Position; p.Lost {
			r.lost++
			r.index = p.Index
			r.past(p.Settled)
			return
		}
		for _, e := range p.Entries {
			if e.Slots != nil && e.stamp < r.pos {
				r.t.Fatalf("a step at %d behind %d", e.stamp, r.pos)
			}
			for _, w := range e.Writes {
				if w.Revision <= r.pos {
					r.t.Fatalf("write at %d, all up to %d was told", w.Revision, r.pos)
				}
				if n := len(r.held); n > 0 && r.held[n-1].Revision > w.Revision {
					r.t.Fatalf("write at %d behind one at %d", w.Revision, r.held[n-1].Revision)
				}
				r.held = append(r.held, w)
			}
		}
		r.index = p.Index
		r.reach(p.Settled)
		if !p.More {
			return
		}
	}
}

// reach takes what is complete.
func (r *modelReader) reach(settled keyspace.Revision) {
	r.pos = max(r.pos, settled)
	for len(r.held) > 0 && r.held[0].Revision <= r.pos {
		r.got, r.held = append(r.got, r.held[0]), r.held[1:]
	}
}

// TestFeedsAreInTheOrderOfRevisions: whatever is prepared when, committed how far
// below or above what the group gave meanwhile, published together or one by one,
// and lost by a feed that is too small: a reader has every write once, in the order
// of revisions, and what it was told to be complete is.
func TestFeedsAreInTheOrderOfRevisions(t *testing.T) {
	var lost, dropped atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		m := &logModel{clock: 10}
		limit := rapid.SampledFrom([]int{400, 1500, 1 << 20}).Draw(t, "limit")
		var r *modelReader
		draw := func(n int, what string) int { return rapid.IntRange(0, n).Draw(t, what) }
		begin := draw(20, "begin")
		for i := range draw(120, "steps") {
			if i == begin {
				m.feed = newFeed(m.published(), limit, 0)
				at := m.feed.join(&Follower{})
				r = &modelReader{t: t, m: m, at: at.Position, index: at.Index}
				r.past(at.Settled)
			}
			switch draw(9, "what") {
			case 0, 1:
				m.clock += keyspace.Revision(1 + draw(3, "clock"))
				m.prepared = append(m.prepared, m.clock)
				m.apply(false)
			case 2, 3:
				if n := len(m.prepared); n > 0 {
					at := draw(n-1, "which")
					rev := m.prepared[at] + keyspace.Revision(draw(8, "ahead"))
					m.prepared = slices.Delete(m.prepared, at, at+1)
					m.clock = max(m.clock, rev) + 1
					m.apply(false, rev, rev)
				}
			case 4:
				if n := len(m.prepared); n > 0 {
					m.prepared = slices.Delete(m.prepared, 0, 1)
					m.clock++
					m.apply(false)
				}
			case 5:
				m.clock++
				m.apply(true)
			default:
				m.clock += 2
				m.apply(false, m.clock-1, m.clock)
			}
			if m.feed == nil || draw(2, "publish") == 0 {
				continue
			}
			m.feed.add(m.published())
			if m.feed.hold.lacks > 0 {
				dropped.Add(1)
			}
			if draw(2, "read") > 0 {
				r.read(1 + draw(3, "pages"))
			}
			if r.index == m.index && draw(1, "promise") == 0 { // a reading of the clock
				m.clock += 2
				r.reach(m.settled())
			}
		}
		if r == nil {
			return
		}
		m.prepared = nil
		m.clock++
		m.apply(false, m.clock)
		m.feed.add(m.published())
		r.read(1000)
		lost.Add(int64(r.lost))
		want := slices.Clone(m.applied)
		slices.SortStableFunc(want, func(a, b format.Write) int { return int(int64(a.Revision) - int64(b.Revision)) })
		if !slices.EqualFunc(r.got, want, func(a, b format.Write) bool { return string(a.Key) == string(b.Key) }) {
			t.Fatalf("got %d writes of %d:\n%v\n%v", len(r.got), len(want), r.got, want)
		}
	})
	if lost.Load() == 0 || dropped.Load() == 0 {
		t.Errorf("lost %d times, lacking %d times: both must be tried", lost.Load(), dropped.Load())
	}
}

// TestPastInTheOrderOfRevisions: pages of the past have what was committed below
// earlier writes in its place, from the log and from history, and end below what is
// prepared.
func TestPastInTheOrderOfRevisions(t *testing.T) {
	c := newCluster(t, 1, 1)
	h := c.nodes[0].host
	from := c.write(testOp("first", "v"))[0].Result.Revision
	for i := range uint64(6) {
		p := c.prepare(2*i+1, []string{fmt.Sprint("t", i)}, nil)
		q := c.prepare(2*i+2, []string{fmt.Sprint("u", i)}, nil)
		for j := range 5 {
			c.write(testOp(fmt.Sprint("k", j), fmt.Sprint(i)))
		}
		c.pass(time.Second)
		q.commit(500 * time.Millisecond)
		c.write(testOp("k", "v"))
		p.commit(time.Duration(i) * 10 * time.Millisecond)
	}
	open := c.prepare(100, []string{"open"}, nil)
	c.write(testOp("above", "v"))
	g := h.lookup(testGroup)
	for _, most := range []int{1, 300, 1 << 20} {
		var all [2][]string
		for n, read := range []func(p *published, q *PastRequest) (PastPage, error){
			func(p *published, q *PastRequest) (page PastPage, err error) {
				c.call("the log is read", func() { page, _, err = h.pastOfLog(t.Context(), g, p, q) })
				return page, err
			},
			func(p *published, q *PastRequest) (page PastPage, err error) {
				c.call("history is read", func() { page, err = h.pastOfHistory(t.Context(), p, q) })
				return page, err
			},
		} {
			p, err := g.acquire(h)
			mustBe(t, err, "")
			if p.settled != open.seen.Stamp-1 {
				t.Fatalf("settled %d, prepared at %d", p.settled, open.seen.Stamp)
			}
			for pos := from; pos < p.settled; {
				page, err := read(p, &PastRequest{Group: testGroup, After: pos, Until: p.settled, MaxBytes: most})
				if mustBe(t, err, fault.Code("")); page.Upto <= pos {
					t.Fatalf("the page ends at %d, where it began", page.Upto)
				}
				for _, w := range page.Writes {
					if w.Revision <= pos || w.Revision > page.Upto {
						t.Fatalf("a write at %d on the page from %d to %d", w.Revision, pos, page.Upto)
					}
					ev := eventOf(t, w)
					all[n] = append(all[n], fmt.Sprint(uint64(ev.rev), ev.key))
				}
				pos = page.Upto
			}
			p.instance.release(h)
		}
		if !slices.Equal(all[0], all[1]) || len(all[0]) != 6*8 || !slices.IsSorted(all[0]) {
			t.Fatalf("pages of %d bytes: log\n%v\nhistory\n%v", most, all[0], all[1])
		}
	}
}
