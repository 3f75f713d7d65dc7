package watch_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/watch"
	"kvstore/internal/watch/watchtest"
)

func slotsOf(text string) format.SlotSet {
	s, err := format.ParseSlotSet(text)
	if err != nil {
		panic(err)
	}
	return s
}

// keyIn returns a key of a slot in a set.
func keyIn(set format.SlotSet, prefix string) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint(prefix, i); set.Has(keyspace.SlotOf(keyspace.DefaultNamespace, key)) {
			return key
		}
	}
}

func unhurried(o *host.Options) { o.MaxFreeze = time.Hour }

// TestWatchesFollowSlots: slots go from a group to one that nobody had heard of.
// Watches of a key, a prefix and everything go on without a gap; the copies and
// the purge are no events; a watch by a map that is too old, one by a token, and one
// from a revision before the move find what they have to.
func TestWatchesFollowSlots(t *testing.T) {
	for _, where := range []string{"here", "elsewhere"} {
		t.Run(where, func(t *testing.T) { t.Parallel(); followSlots(t, where == "elsewhere") })
	}
}

func followSlots(t *testing.T, elsewhere bool) {
	n := watchtest.Growing(t, 1, 1, unhurried)
	moving := slotsOf("2000-2999")
	key, other := keyIn(moving, "k"), keyIn(slotsOf("0-999"), "k")
	h := n.Hub(nil)
	if elsewhere {
		h = n.Elsewhere(h, nil)
	}
	first := n.Put(key, "before")
	w := listen(t, h)
	for id, q := range []*api.WatchCreate{{Key: key}, {Prefix: "k"}, {}} {
		q.WatchId, q.AfterRevision = uint64(id+1), uint64(first)-1
		w.create(q)
	}
	w.until("the first event", func() bool { return len(w.got[1]) == 1 && len(w.got[2]) == 1 && len(w.got[3]) == 1 })
	old := w.tokens[1]
	n.Put(key, "last")
	n.Move(1, 1, 2, moving, func() {
		n.Put(other, "between")
		l := listen(t, h)
		l.create(&api.WatchCreate{WatchId: 1, Key: key}) // of what nobody owns
		w.until("what is kept goes on", func() bool { return len(w.got[3]) == 3 })
	})
	late := listen(t, h)
	late.create(&api.WatchCreate{WatchId: 1, Key: key, AfterRevision: uint64(first)}) // by the old map
	n.Record(moving, 2)
	n.Purge(1, 1)
	after := n.Put(key, "after")
	n.Put(other, "other")
	w.until("all events", func() bool { return len(w.got[1]) == 3 && len(w.got[2]) == 5 && len(w.got[3]) == 5 })
	if got, want := summary(w.got[1]), key+"=before, "+key+"=last, "+key+"=after"; got != want {
		t.Errorf("the key's events: %s, want %s", got, want)
	}
	late.until("the events since", func() bool { return len(late.got[1]) == 2 })
	again := listen(t, h)
	again.create(&api.WatchCreate{WatchId: 1, Key: key, Token: old})
	again.create(&api.WatchCreate{WatchId: 2, Prefix: "k", Token: old})
	again.create(&api.WatchCreate{WatchId: 3, Key: key, AfterRevision: uint64(after) - 1})
	again.until("what came behind the token", func() bool { return len(again.got[1]) == 2 && len(again.got[2]) == 4 && len(again.got[3]) == 1 })
	for id, want := range map[uint64]string{1: key + "=last, " + key + "=after",
		2: strings.Join([]string{key + "=last", other + "=between", key + "=after", other + "=other"}, ", ")} {
		got := summary(again.got[id])
		if id == 2 && strings.Count(got, "other") != strings.Count(want, "other") {
			t.Errorf("watch %d: %s, want %s", id, got, want)
		}
		if id == 1 && got != want {
			t.Errorf("watch %d: %s, want %s", id, got, want)
		}
	}
}

// TestNothingIsMissedWhileSlotsMove holds random watches against all that was
// written, as TestNothingIsMissedOrTwice does, while slots go to new groups and on
// from there, with queues, feeds and logs so small that watches fall behind and
// leaves are not read in order.
func TestNothingIsMissedWhileSlotsMove(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		for seed := range seeds() {
			t.Run(fmt.Sprintf("elsewhere=%t/%d", elsewhere, seed), func(t *testing.T) {
				t.Parallel()
				watchMoves(t, seed, elsewhere)
			})
		}
	}
}

func watchMoves(t *testing.T, seed uint64, elsewhere bool) {
	n := watchtest.Growing(t, 2, 3, func(o *host.Options) { o.FeedBytes, o.LogTail, o.LogBytes, o.MaxFreeze = 3000, 10, 1, time.Hour })
	small := func(o *watch.Options) {
		o.StreamBytes, o.RecentBytes, o.ProgressEvery = 2000, 2000, 20*time.Millisecond
	}
	h := n.Hub(small)
	if elsewhere {
		h = n.Elsewhere(h, small)
	}
	start := n.Put("k0", "first")
	c := gather(t, n, h, seed, start, 8)
	for id, m := range []struct {
		from, to keyspace.GroupID
		slots    string
	}{{1, 3, "0-699"}, {2, 4, "2048-3000"}, {3, 5, "300-600"}, {1, 5, "700-2047"}, {2, 3, "3001-3400"}, {4, 5, "2100-2999"}} {
		for until := c.writes.Load() + 30; c.writes.Load() < until; {
			for _, w := range c.watchers {
				select {
				case w.move <- h:
				case <-w.over:
				case <-time.After(time.Millisecond):
				}
			}
		}
		slots := slotsOf(m.slots)
		n.Move(format.MoveID(id+1), m.from, m.to, slots, nil)
		if id%2 == 0 { // else the map is late
			n.Record(slots, m.to)
		}
		n.Purge(format.MoveID(id+1), m.from)
		n.Record(slots, m.to)
	}
	c.disperse()
	for _, key := range []string{"k{0}end", "k{1}end", "k{2}end", "k{3}end", "k{4}end"} {
		n.Put(key, "end")
	}
	for i, w := range c.watchers {
		w.finish(c.end(n))
		w.got = dropEnds(w.got)
		w.compare(i, c.all)
	}
}

func dropEnds(got []written) (out []written) {
	for _, e := range got {
		if !strings.HasSuffix(e.key, "end") {
			out = append(out, e)
		}
	}
	return out
}

// stalled is a host of which the feed of one group is not read while mu is held.
type stalled struct {
	watch.Host
	group keyspace.GroupID
	mu    sync.Mutex
}

func (s *stalled) Follow(ctx context.Context, g keyspace.GroupID, wake func()) (watch.Feed, host.FeedPage, error) {
	f, at, err := s.Host.Follow(ctx, g, wake)
	if err == nil && g == s.group {
		f = stalledFeed{f, s}
	}
	return f, at, err
}

type stalledFeed struct {
	watch.Feed
	s *stalled
}

func (f stalledFeed) Read(after host.FeedPosition, maxBytes int) host.FeedPage {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	return f.Feed.Read(after, maxBytes)
}

// TestMovesThatAreNotReadInOrder: the feed of the group that gives slots up, or of
// the one that takes them, is lost over the move and its log is gone; what it has
// in history is each write once, and the copies are not events.
func TestMovesThatAreNotReadInOrder(t *testing.T) {
	for group, name := range map[keyspace.GroupID]string{1: "sender", 2: "receiver"} {
		t.Run(name, func(t *testing.T) {
			n := watchtest.New(t, 2, func(o *host.Options) { o.FeedBytes, o.LogTail, o.LogBytes, o.MaxFreeze = 1, 1, 1, time.Hour })
			moving := slotsOf("1000-1999")
			key, left, right := keyIn(moving, "k"), keyIn(slotsOf("0-999"), "k"), keyIn(slotsOf("2048-4095"), "k")
			s := &stalled{group: group}
			h := n.Hub(func(o *watch.Options) { s.Host, o.Host = o.Host, s })
			l := listen(t, h)
			l.create(&api.WatchCreate{WatchId: 1})
			l.create(&api.WatchCreate{WatchId: 2, Key: key})
			l.create(&api.WatchCreate{WatchId: 3, Key: right})
			l.open(1, 2, 3)
			n.Put(key, "1")
			l.until("the first event", func() bool { return len(l.got[1]) == 1 && len(l.got[2]) == 1 })
			want := 1
			write := func(key string, size int) {
				n.Put(key, strings.Repeat("v", size))
				want++
			}
			s.mu.Lock()
			write(key, 1)
			write(key, 2)
			n.Move(1, 1, 2, moving, nil)
			n.Record(moving, 2)
			write(key, 3)
			for range 30 { // seals, so that the logs go
				write(left, 40_000)
				write(right, 40_000)
			}
			s.mu.Unlock()
			write(key, 4)
			l.until("all events", func() bool { return len(l.got[1]) >= want && len(l.got[2]) >= 5 && len(l.got[3]) >= 30 })
			n.Put(left, "end")
			n.Put(right, "end")
			l.until("the end", func() bool { return len(l.got[1]) >= want+2 && len(l.got[3]) >= 31 })
			if len(l.got[1]) != want+2 || len(l.got[2]) != 5 || len(l.got[3]) != 31 || len(l.ended) != 0 {
				t.Errorf("%d, %d and %d events, want %d, 5 and 31; ended %v", len(l.got[1]), len(l.got[2]), len(l.got[3]), want+2, l.ended)
			}
		})
	}
}
