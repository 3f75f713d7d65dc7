package host

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// event is a write as a watcher should see it.
type event struct {
	key string
	rev keyspace.Revision
	del bool
}

func eventOf(t *testing.T, w format.Write) event {
	t.Helper()
	_, key, err := keyspace.DecodeDataKey(w.Key)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := format.DecodeRecord(w.Value, w.Revision)
	if err != nil {
		t.Fatal(err)
	}
	return event{key: string(key), rev: w.Revision, del: rec.Flags&format.FlagTombstone != 0}
}

// eventReader follows a group on one node, goes back to the past where the feed
// does not reach, and over to another node when its own is gone.
type eventReader struct {
	c   *cluster
	n   *node
	f   *Follower
	pos keyspace.Revision
	at  FeedPosition
	got []event
	// fromLog and fromHistory count pages of the past.
	fromLog, fromHistory int
}

func (r *eventReader) join(n *node) {
	r.c.t.Helper()
	r.leave()
	r.n = n
	var at FeedPage
	var err error
	r.c.call("the group is followed", func() { r.f, at, err = n.host.Follow(context.Background(), testGroup, func() {}) })
	if err != nil {
		r.c.t.Fatal(err)
	}
	r.at = at.Position
	r.past(at.Settled)
}

func (r *eventReader) leave() {
	if r.f != nil && r.n.host != nil {
		r.f.Close()
	}
	r.f = nil
}

// past takes what was written up to a revision from the past.
func (r *eventReader) past(until keyspace.Revision) {
	r.c.t.Helper()
	for r.pos < until {
		var page PastPage
		var err error
		q := PastRequest{Group: testGroup, After: r.pos, Until: until, MaxBytes: 700}
		r.c.call("the past is read", func() { page, err = r.n.host.Past(context.Background(), q) })
		if err != nil {
			r.c.t.Fatalf("past after %d: %v", r.pos, err)
		}
		if page.Scanned {
			r.fromHistory++
		} else {
			r.fromLog++
		}
		r.take(page.Writes)
		r.pos = page.Upto
	}
}

func (r *eventReader) take(writes []format.Write) {
	for _, w := range writes {
		if w.Revision > r.pos {
			r.got = append(r.got, eventOf(r.c.t, w))
		}
	}
}

// read takes what there is.
func (r *eventReader) read() {
	for more := true; more; {
		p := r.f.Read(r.at, 500)
		if p.Lost {
			r.at = p.Position
			r.past(p.Settled)
			return
		}
		for _, e := range p.Entries {
			r.take(e.Writes)
		}
		r.at, r.pos, more = p.Position, max(r.pos, p.Settled), p.More
	}
}

// TestFollowersMissNothing holds a follower's events against all that was
// written, whatever it joins late, reads slowly, and loses: the feed's oldest
// entries, the log, its node.
func TestFollowersMissNothing(t *testing.T) {
	var log, history int
	const seeds, most = 8, 80 // few lose what the log has forgotten: then more are tried
	for seed := uint64(0); seed < seeds || history == 0 && seed < most; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l, h := followThrough(t, seed)
			log, history = log+l, history+h
		})
	}
	if log == 0 || history == 0 {
		t.Fatalf("the past was read %d times from the log and %d from history; both must be tried", log, history)
	}
}

func followThrough(t *testing.T, seed uint64) (fromLog, fromHistory int) {
	random := rand.New(rand.NewPCG(seed, 7))
	c := newCluster(t, 3, 3, func(c *cluster) {
		c.opt = func(o *Options) { o.FeedBytes, o.LogTail, o.LogBytes = 2000, 5, 1 }
	})
	r := &eventReader{c: c, pos: c.nodes[0].group().published.Load().settled}
	r.join(c.nodes[random.IntN(3)])
	var want []event
	for range 250 {
		switch random.IntN(14) {
		case 0:
			r.join(c.nodes[random.IntN(3)])
		case 1:
			n := c.nodes[random.IntN(3)]
			n.host.seal()
		case 2:
			if random.IntN(3) > 0 {
				continue
			}
			n := c.nodes[random.IntN(3)]
			n.crash()
			if n == r.n {
				r.f = nil
				r.join(n)
			}
		case 3, 4:
			r.read()
		case 5:
			c.pass(100_000_000)
		default:
			for _, op := range c.writeAnyhow(randomOps(random)) {
				if op.Result.Revision != 0 {
					want = append(want, event{op.Key, op.Result.Revision, op.Delete})
				}
			}
		}
	}
	c.settle()
	c.pump("the replica followed has all", func() bool {
		return r.n.group() != nil && r.n.group().core.State().LastRev >= c.serving().group().core.State().LastRev
	})
	r.read()
	sameEvents(t, r.got, want)
	return r.fromLog, r.fromHistory
}

// writeAnyhow is write that tries again where leadership was lost before.
func (c *cluster) writeAnyhow(ops []replica.Op) []replica.Op {
	c.t.Helper()
	for {
		c.pump("a leader has room", func() bool { n := c.serving(); return n != nil && !n.host.opt.Store.Full() })
		r, answers := c.serving().submit(slices.Clone(ops)...)
		c.pump("the write is answered", func() bool { return answers.Load() > 0 })
		switch fault.CodeOf(r.Err) {
		case "":
			return r.Ops
		case fault.WrongLeader, fault.Overloaded:
		default:
			c.t.Fatal(r.Err)
		}
	}
}

// randomOps are a request's: mostly one, sometimes many or a large value.
func randomOps(random *rand.Rand) []replica.Op {
	n := 1
	if random.IntN(4) == 0 {
		n = 2 + random.IntN(5)
	}
	first := random.IntN(20)
	ops := make([]replica.Op, n)
	for i := range ops {
		ops[i] = testOp(fmt.Sprintf("key%02d", (first+i)%20), strings.Repeat("v", random.IntN(200)))
		switch {
		case random.IntN(4) == 0:
			ops[i] = replica.Op{Namespace: keyspace.DefaultNamespace, Key: ops[i].Key, Delete: true}
		case random.IntN(30) == 0:
			ops[i] = testOp(ops[i].Key, strings.Repeat("large", 500))
		}
	}
	return ops
}

// sameEvents wants the same events; those of one revision in any order.
func sameEvents(t *testing.T, got, want []event) {
	t.Helper()
	seen := make(map[event]int)
	for i, e := range got {
		if i > 0 && e.rev < got[i-1].rev {
			t.Fatalf("event %d %+v comes after %+v", i, e, got[i-1])
		}
		if seen[e]++; seen[e] > 1 {
			t.Fatalf("event %+v comes twice", e)
		}
	}
	for _, e := range want {
		if seen[e] == 0 {
			t.Fatalf("event %+v never came; %d of %d did", e, len(got), len(want))
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d", len(got), len(want))
	}
}

func TestPastBelowTheFloor(t *testing.T) {
	c := newCluster(t, 1, 1, func(c *cluster) { c.opt = func(o *Options) { o.Window = 10_000_000_000 } })
	first := c.write(testOp("a", "1"))[0].Result.Revision
	for range 60 {
		c.write(testOp("a", "2"))
		c.nodes[0].host.seal()
		c.pass(1_000_000_000)
	}
	h := c.nodes[0].host
	floor := keyspace.Revision(h.floor.Load())
	if floor <= first {
		t.Fatalf("the floor %d is still below the first write at %d", floor, first)
	}
	var err error
	c.call("the past is refused", func() {
		_, err = h.Past(context.Background(), PastRequest{Group: testGroup, After: floor - 1, Until: keyspace.MaxRevision})
	})
	mustBe(t, err, fault.OutOfRange)
	if !strings.Contains(err.Error(), fmt.Sprint(uint64(floor))) {
		t.Errorf("the error does not name the floor %d: %v", floor, err)
	}
	c.call("the past is read", func() {
		_, err = h.Past(context.Background(), PastRequest{Group: testGroup, After: floor, Until: keyspace.MaxRevision})
	})
	mustBe(t, err, "")
}

func TestPastOfSpans(t *testing.T) {
	c := newCluster(t, 1, 1)
	from := c.nodes[0].group().published.Load().settled
	for _, key := range []string{"a", "b1", "b2", "c", "d"} {
		c.write(testOp(key, "v"))
	}
	prefix := keyspace.AppendDataPrefix(nil, keyspace.DefaultNamespace, []byte("b"))
	d := keyspace.AppendDataKey(nil, keyspace.DefaultNamespace, []byte("d"))
	spans := []Span{{Lower: prefix, Upper: keyspace.PrefixEnd(prefix)}, {Lower: d, Upper: append(d[:len(d):len(d)], 0)}}
	h := c.nodes[0].host
	p, err := h.lookup(testGroup).acquire(h)
	if err != nil {
		t.Fatal(err)
	}
	defer p.instance.release(h)
	q := PastRequest{Group: testGroup, After: from, Until: p.settled, Spans: spans, MaxBytes: 1 << 20}
	var byLog, byHistory PastPage
	c.call("the log is read", func() { byLog, _, err = h.pastOfLog(context.Background(), h.lookup(testGroup), p, &q) })
	mustBe(t, err, "")
	c.call("history is read", func() { byHistory, err = h.pastOfHistory(context.Background(), p, &q) })
	mustBe(t, err, "")
	for name, page := range map[string]PastPage{"log": byLog, "history": byHistory} {
		var keys []string
		for _, w := range page.Writes {
			keys = append(keys, eventOf(t, w).key)
		}
		if fmt.Sprint(keys) != "[b1 b2 d]" || page.Upto != p.settled {
			t.Errorf("%s: keys %v up to %d, want b1, b2 and d up to %d", name, keys, page.Upto, p.settled)
		}
	}
}

func TestVersionAt(t *testing.T) {
	c := newCluster(t, 1, 1)
	large := strings.Repeat("large", 500)
	first := c.write(testOp("a", large))[0].Result.Revision
	second := c.write(testOp("a", "2"))[0].Result.Revision
	h := c.nodes[0].host
	key := keyspace.AppendDataKey(nil, keyspace.DefaultNamespace, []byte("a"))
	for _, at := range []struct {
		rev  keyspace.Revision
		want string
		none bool
	}{{first - 1, "", true}, {first, large, false}, {second - 1, large, false}, {second, "2", false}} {
		rec, err := h.VersionAt(testGroup, key, at.rev, false)
		if err != nil || (rec == nil) != at.none || rec != nil && string(rec.Value) != at.want {
			t.Errorf("at %d: %+v, %v", at.rev, rec, err)
		}
	}
	if _, err := h.VersionAt(testGroup, key, second+1<<40, false); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("a revision of the future: %v", err)
	}
}

// gone is a context whose caller has gone, which nobody has noticed yet.
type gone struct{ context.Context }

func (gone) Done() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// TestFollowerThatNobodyWaitsFor: one that is joined when its caller has gone does
// not stay.
func TestFollowerThatNobodyWaitsFor(t *testing.T) {
	c := newCluster(t, 1, 1)
	h := c.nodes[0].host
	if _, _, err := h.Follow(gone{context.Background()}, testGroup, func() {}); err == nil {
		t.Fatal("the caller was answered")
	}
	for range 3 { // until it has joined, and is let go
		c.call("the loop has come by", func() {
			_, _ = onLoop(context.Background(), h, func() (struct{}, error) { return struct{}{}, nil })
		})
	}
	if h.groups[testGroup].feed != nil {
		t.Error("it follows the group")
	}
}
