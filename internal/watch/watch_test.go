package watch_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/watch"
	"kvstore/internal/watch/watchtest"
)

// listener reads a stream.
type listener struct {
	t      testing.TB
	stream *watch.Stream
	// got are the events by watch, position where each is, tokens what stands for it.
	got      map[uint64][]*api.WatchEvent
	position map[uint64]uint64
	tokens   map[uint64][]byte
	created  map[uint64]uint64
	ended    map[uint64]*api.WatchEnded
	// fragment: the watch's last revision goes on.
	fragment  map[uint64]bool
	fragments int
	marks     int
}

func listen(t testing.TB, h *watch.Hub) *listener {
	t.Helper()
	s, err := h.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &listener{t: t, stream: s, got: map[uint64][]*api.WatchEvent{}, position: map[uint64]uint64{}, tokens: map[uint64][]byte{},
		created: map[uint64]uint64{}, ended: map[uint64]*api.WatchEnded{}, fragment: map[uint64]bool{}}
}

func (l *listener) create(q *api.WatchCreate) { l.stream.Create(l.t.Context(), q) }

// next takes one message.
func (l *listener) next() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 60*time.Second)
	defer cancel()
	encoded, err := l.stream.NextUntil(ctx)
	if err != nil {
		l.t.Fatalf("the stream ends: %v", err)
	}
	m, err := watch.Decode(encoded)
	if err != nil {
		l.t.Fatal(err)
	}
	l.take(m)
}

func (l *listener) take(m *api.WatchResponse) {
	l.t.Helper()
	for _, c := range m.Created {
		l.created[c.WatchId], l.position[c.WatchId], l.tokens[c.WatchId] = c.Revision, c.Revision, c.Token
	}
	for _, b := range m.Batches {
		id := b.WatchId
		for i, ev := range b.Events {
			rev := ev.Record.Revision
			if rev <= l.position[id] {
				l.t.Fatalf("watch %d: event at %d, all up to %d came before", id, rev, l.position[id])
			}
			if n := len(l.got[id]); n > 0 && (rev < l.got[id][n-1].Record.Revision || i == 0 && !l.fragment[id] && rev == l.got[id][n-1].Record.Revision) {
				l.t.Fatalf("watch %d: event at %d after %d", id, rev, l.got[id][n-1].Record.Revision)
			}
			l.got[id] = append(l.got[id], ev)
		}
		if l.fragment[id] = b.Fragment; b.Fragment {
			l.fragments++
			continue
		}
		l.position[id], l.tokens[id] = b.Revision, b.Token
	}
	for _, p := range m.Progress {
		for _, id := range p.WatchIds {
			l.marks++
			if p.Revision < l.position[id] || l.fragment[id] {
				l.t.Fatalf("watch %d: progress %d at %d", id, p.Revision, l.position[id])
			}
			l.position[id], l.tokens[id] = p.Revision, p.Token
		}
	}
	for _, e := range m.Ended {
		if e.Revision > 0 && e.Revision < l.position[e.WatchId] {
			l.t.Fatalf("watch %d ended at %d, was at %d", e.WatchId, e.Revision, l.position[e.WatchId])
		}
		l.ended[e.WatchId] = e
	}
}

// until takes messages until the condition holds.
func (l *listener) until(what string, holds func() bool) {
	l.t.Helper()
	defer func() {
		if l.t.Failed() {
			l.t.Logf("waiting for: %s", what)
		}
	}()
	for !holds() {
		l.next()
	}
}

func (l *listener) open(ids ...uint64) {
	l.t.Helper()
	l.until("watches are open", func() bool {
		for _, id := range ids {
			if e := l.ended[id]; e != nil {
				l.t.Fatalf("the watch ended: %v", e)
			}
		}
		return !slices.ContainsFunc(ids, func(id uint64) bool { return l.created[id] == 0 })
	})
}

func summary(events []*api.WatchEvent) string {
	var out []string
	for _, ev := range events {
		text := ev.Record.Key + "=" + string(ev.Record.Value)
		if ev.Type == api.WatchEvent_DELETE {
			text = ev.Record.Key + " " + ev.Reason
		}
		if ev.Previous != nil {
			text += " was " + string(ev.Previous.Value)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func TestKindsOfWatches(t *testing.T) {
	n := watchtest.New(t, 3, nil)
	n.Put("a1", "old")
	l := listen(t, n.Hub(nil))
	for id, q := range []*api.WatchCreate{
		1: {Key: "a1", Previous: true},
		2: {Prefix: "a"}, // of two groups; in the order of revisions, which is not that of the clock
		3: {Start: "a2", End: "b"},
		4: {KeysOnly: true},
		5: {Prefix: "{h}"},
		6: {Tags: map[string]string{"team": "x"}},
	} {
		if q != nil {
			q.WatchId = uint64(id)
			l.create(q)
		}
	}
	l.open(1, 2, 3, 4, 5, 6)
	n.Put("a1", "new")
	n.Put("a2", "v")
	tagged := watchtest.PutOp("c", "tagged")
	tagged.Tags = map[string]string{"team": "x"}
	n.Write(tagged)
	n.Put("c", "untagged")
	n.Put("c", "again")
	n.Write(watchtest.DeleteOp("a1"))
	n.Write(watchtest.PutOp("{h}1", "one"), watchtest.PutOp("{h}2", "two"))
	want := map[uint64]string{
		1: "a1=new was old, a1 deleted was new",
		2: "a1 deleted, a1=new, a2=v",
		3: "a2=v",
		4: "a1 deleted, a1=, a2=, c=, c=, c=, {h}1=, {h}2=",
		5: "{h}1=one, {h}2=two",
		6: "c=tagged, c=untagged",
	}
	l.until("all events", func() bool {
		return len(l.got[2]) == 3 && len(l.got[4]) == 8 && len(l.got[5]) == 2 && len(l.got[1]) == 2 && len(l.got[6]) == 2
	})
	for id, text := range want {
		got := summary(l.got[id])
		if id == 2 || id == 4 {
			parts := strings.Split(got, ", ")
			slices.Sort(parts)
			got = strings.Join(parts, ", ")
		}
		if got != text {
			t.Errorf("watch %d: %s\nwant %s", id, got, text)
		}
	}
	l.stream.Cancel(2)
	l.until("the watch ends", func() bool { return l.ended[2] != nil })
	if e := l.ended[2]; e.Status.Code != string(fault.Canceled) || e.Revision == 0 || len(e.Token) == 0 {
		t.Errorf("ended with %v", e)
	}
}

// An expiry is a deletion with its reason, what the key was before, and seen by those
// who watch its tags. What was written over an expired key replaced nothing.
func TestExpiry(t *testing.T) {
	n := watchtest.New(t, 1, func(o *host.Options) { o.TickInterval = 20 * time.Millisecond })
	l := listen(t, n.Hub(nil))
	l.create(&api.WatchCreate{WatchId: 1, Key: "k", Previous: true})
	l.create(&api.WatchCreate{WatchId: 2, Tags: map[string]string{"team": "x"}})
	l.open(1, 2)
	op := watchtest.PutOp("k", "v")
	op.TTL, op.Tags = 100*time.Millisecond, map[string]string{"team": "x"}
	n.Write(op)
	l.until("the key expires", func() bool { return len(l.got[1]) == 2 && len(l.got[2]) == 2 })
	n.Put("k", "new")
	l.until("it is written again", func() bool { return len(l.got[1]) == 3 })
	if got, want := summary(l.got[1]), "k=v, k expired was v, k=new"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := summary(l.got[2]), "k=v, k expired"; got != want {
		t.Errorf("by tags: %s, want %s", got, want)
	}
}

func TestLargeValuesAndPrevious(t *testing.T) {
	n := watchtest.New(t, 1, func(o *host.Options) { o.ChunkBytes = 1000 })
	l := listen(t, n.Hub(nil))
	l.create(&api.WatchCreate{WatchId: 1, Key: "k", Previous: true})
	l.open(1)
	first, second := strings.Repeat("1", 5000), strings.Repeat("2", 5000)
	n.Put("k", first)
	n.Put("k", second)
	l.until("two events", func() bool { return len(l.got[1]) == 2 })
	if got, want := summary(l.got[1]), "k="+first+", k="+second+" was "+first; got != want {
		t.Errorf("got %.200s", got)
	}
}

// TestRefusals: what is wrong is told on the stream, which goes on.
func TestRefusals(t *testing.T) {
	n := watchtest.New(t, 1, nil)
	l := listen(t, n.Hub(func(o *watch.Options) { o.MaxWatches = 2 }))
	future := uint64(keyspace.RevisionAt(time.Now().Add(time.Hour).UnixMilli()))
	for id, c := range []struct {
		q    *api.WatchCreate
		code fault.Code
	}{
		{&api.WatchCreate{Namespace: "none"}, fault.NamespaceNotFound},
		{&api.WatchCreate{Key: "a", Prefix: "b"}, fault.InvalidArgument},
		{&api.WatchCreate{Token: []byte("bad")}, fault.InvalidToken},
		{&api.WatchCreate{AfterRevision: future}, fault.InvalidArgument},
	} {
		c.q.WatchId = uint64(id + 10)
		l.create(c.q)
		l.until("a refusal", func() bool { return l.ended[c.q.WatchId] != nil })
		if got := l.ended[c.q.WatchId].Status.Code; got != string(c.code) {
			t.Errorf("%v ends with %s, want %s", c.q, got, c.code)
		}
	}
	l.create(&api.WatchCreate{WatchId: 1, Key: "a"})
	l.open(1)
	l.create(&api.WatchCreate{WatchId: 1, Key: "a"})
	l.until("the id is refused", func() bool { return l.ended[1] != nil })
	l.create(&api.WatchCreate{WatchId: 2, Key: "a"})
	l.create(&api.WatchCreate{WatchId: 3, Key: "a"})
	l.until("too many are refused", func() bool { return l.ended[3] != nil })
	if e := l.ended[3].Status; e.Code != string(fault.Overloaded) || e.Details["limit"] != "2" {
		t.Errorf("too many watches: %v", e)
	}
	n.Put("a", "v")
	l.until("the first watch goes on", func() bool { return len(l.got[1]) == 1 })
}

func TestBelowTheFloor(t *testing.T) {
	n := watchtest.New(t, 2, func(o *host.Options) { o.Window = time.Millisecond })
	old := n.Put("a", "1")
	for floor := keyspace.Revision(0); floor <= old; floor = n.Host.Groups()[0].Floor {
		n.Put("a", strings.Repeat("2", 50_000))
	}
	l := listen(t, n.Hub(nil))
	l.create(&api.WatchCreate{WatchId: 1, AfterRevision: uint64(old)})
	l.create(&api.WatchCreate{WatchId: 2, AfterRevision: uint64(old), Key: "a"})
	l.create(&api.WatchCreate{WatchId: 3})
	l.until("the watches end", func() bool { return l.ended[1] != nil && l.ended[2] != nil && l.created[3] != 0 })
	for id := range l.ended {
		e := l.ended[id]
		if e.Status.Code != string(fault.OutOfRange) || e.Status.Details["floor"] == "" || e.Status.Details["floor"] == "0" || e.Revision != uint64(old) {
			t.Errorf("watch %d ended with %v", id, e)
		}
	}
}

func TestProgress(t *testing.T) {
	n := watchtest.New(t, 3, nil)
	l := listen(t, n.Hub(func(o *watch.Options) { o.ProgressEvery = time.Millisecond }))
	l.create(&api.WatchCreate{WatchId: 1, Prefix: "a"})
	l.create(&api.WatchCreate{WatchId: 2, Key: "b"})
	l.open(1, 2)
	at := l.created[1]
	l.until("progress of both", func() bool { return l.marks >= 4 })
	if l.position[1] < at || len(l.tokens[1]) == 0 || len(l.tokens[2]) == 0 {
		t.Errorf("positions %v after %d", l.position, at)
	}
	again := listen(t, n.Hub(nil))
	n.Put("a", "v")
	again.create(&api.WatchCreate{WatchId: 1, Prefix: "a", Token: l.tokens[1]})
	again.until("the event after the mark", func() bool { return len(again.got[1]) == 1 })
}

// TestOneRevisionInFragments: a request larger than a message comes in marked
// fragments.
func TestOneRevisionInFragments(t *testing.T) {
	n := watchtest.New(t, 1, nil)
	l := listen(t, n.Hub(nil))
	l.create(&api.WatchCreate{WatchId: 1, Prefix: "a"})
	l.create(&api.WatchCreate{WatchId: 2, Key: "a00"})
	l.open(1, 2)
	var ops []replica.Op
	for i := range 100 {
		ops = append(ops, watchtest.PutOp(fmt.Sprintf("a%02d", i), strings.Repeat("v", 100_000)))
	}
	n.Write(ops...)
	l.until("all", func() bool { return len(l.got[1]) == 100 && len(l.got[2]) == 1 && !l.fragment[1] && !l.fragment[2] })
	last := l.got[1][99].Record.Revision
	if l.fragments < 2 || l.position[1] != last || l.position[2] != last {
		t.Errorf("%d fragments, positions %v, want %d", l.fragments, l.position, last)
	}
}

func TestStreamThatDoesNotReadIsEnded(t *testing.T) {
	n := watchtest.New(t, 1, nil)
	h := n.Hub(func(o *watch.Options) { o.SlowAfter = time.Millisecond })
	l := listen(t, h)
	l.create(&api.WatchCreate{WatchId: 1, Prefix: "a"})
	n.Put("a", "v")
	select {
	case <-l.stream.Done():
	case <-time.After(60 * time.Second):
		t.Fatal("the stream goes on")
	}
	if err := l.stream.Cause(); fault.CodeOf(err) != fault.Overloaded {
		t.Errorf("ended with %v", err)
	}
	if s := h.Stats(); s.EndedSlow != 1 {
		t.Errorf("%+v", s)
	}
}

func TestDrainEndsStreams(t *testing.T) {
	n := watchtest.New(t, 1, nil)
	h := n.Hub(nil)
	l := listen(t, h)
	l.create(&api.WatchCreate{WatchId: 1, Prefix: "a"})
	h.Drain()
	var err error
	for err == nil {
		_, err = l.stream.Next()
	}
	if fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("ended with %v", err)
	}
	if _, err := h.Open(t.Context()); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("a new stream: %v", err)
	}
}

// written is what a watch should see of a write.
type written struct {
	rev keyspace.Revision
	key string
	del bool
}

// TestNothingIsMissedOrTwice holds random watches against all that was written:
// joined at any time and position, with queues, feeds and recent events so small
// that watches fall behind and read the past, canceled and gone on with by token,
// here and on a node without replicas.
func TestNothingIsMissedOrTwice(t *testing.T) {
	var fell, pages atomic.Uint64
	t.Cleanup(func() { // behind the parallel ones
		if fell.Load() == 0 || pages.Load() == 0 {
			t.Errorf("%d watches fell behind, %d pages of the past were read: both must be tried", fell.Load(), pages.Load())
		}
	})
	for _, c := range []struct {
		name   string
		groups int
		remote bool
	}{{"one group", 1, false}, {"three groups", 3, false}, {"elsewhere", 3, true}} {
		for seed := range seeds() {
			t.Run(fmt.Sprintf("%s/%d", c.name, seed), func(t *testing.T) {
				t.Parallel()
				watchRandomly(t, seed, c.groups, c.remote, &fell, &pages)
			})
		}
	}
}

// seeds is how many random runs there are: with -short one, for the race
// detector makes the many goroutines of each slow.
func seeds() uint64 {
	if testing.Short() {
		return 1
	}
	return 3
}

// watchRandomly adds up how many watches fell behind, and pages of the past.
func watchRandomly(t *testing.T, seed uint64, groups int, remote bool, fell, pages *atomic.Uint64) {
	n := watchtest.New(t, groups, func(o *host.Options) { o.FeedBytes, o.LogTail, o.LogBytes = 3000, 10, 1 })
	small := func(o *watch.Options) {
		o.StreamBytes, o.RecentBytes, o.ProgressEvery = 2000, 2000, 20*time.Millisecond
	}
	// Nodes come and go: every few times a watcher comes to one that just began.
	var hubs []*watch.Hub
	fresh := func() *watch.Hub {
		h := n.Hub(small)
		if remote {
			h = n.Elsewhere(h, small)
		}
		hubs = append(hubs, h)
		return h
	}
	h := fresh()
	start := n.Put("k0", "first")
	c := gather(t, n, h, seed, start, 6)
	c.writers.Go(func() { c.transact(n, rand.New(rand.NewPCG(seed, 50))) })
	for range 10 {
		h := fresh()
		for _, w := range c.watchers {
			select {
			case w.move <- h:
			case <-w.over:
			}
		}
	}
	c.disperse()
	for i, w := range c.watchers {
		w.finish(c.end(n))
		w.compare(i, c.all)
	}
	for _, h := range hubs {
		fell.Add(h.Stats().FellBehind)
		pages.Add(h.Stats().PastPages)
	}
}

// crowd writes to a store and watches it, at random.
type crowd struct {
	writers, wanderers sync.WaitGroup
	watchers           []*wanderer
	writes             atomic.Int64
	over               atomic.Bool
	mu                 sync.Mutex
	all                []written // guarded by mu until disperse has returned
}

// gather starts three writers and some watchers from the store's first write on.
func gather(t *testing.T, n *watchtest.Node, h *watch.Hub, seed uint64, start keyspace.Revision, watchers int) *crowd {
	c := &crowd{all: []written{{start, "k0", false}}}
	for writer := range 3 {
		c.writers.Go(func() { c.write(n, rand.New(rand.NewPCG(seed, uint64(writer)))) })
	}
	for i := range watchers {
		w := &wanderer{t: t, hub: h, random: rand.New(rand.NewPCG(seed, uint64(100+i))), start: uint64(start), writes: &c.writes,
			move: make(chan *watch.Hub), over: make(chan struct{})}
		c.watchers = append(c.watchers, w)
		c.wanderers.Go(w.wander)
	}
	return c
}

func (c *crowd) write(n *watchtest.Node, random *rand.Rand) {
	for !c.over.Load() {
		ops := n.Write(someOps(random)...)
		c.writes.Add(1)
		c.mu.Lock()
		for _, op := range ops {
			if op.Result.Revision != 0 {
				c.all = append(c.all, written{op.Result.Revision, op.Key, op.Delete})
			}
		}
		c.mu.Unlock()
	}
}

// transact writes to several groups at once; others write on meanwhile.
func (c *crowd) transact(n *watchtest.Node, random *rand.Rand) {
	for !c.over.Load() {
		var ops []replica.Op
		for hash := range 5 {
			if random.IntN(2) == 0 {
				ops = append(ops, watchtest.PutOp(fmt.Sprintf("k{%d}t", hash), strings.Repeat("t", random.IntN(150))))
			}
		}
		if len(ops) < 2 {
			continue
		}
		rev := n.Transact(func() {
			for until := c.writes.Load() + int64(random.IntN(10)); c.writes.Load() < until && !c.over.Load(); {
				runtime.Gosched()
			}
		}, ops...)
		c.mu.Lock()
		for _, op := range ops {
			c.all = append(c.all, written{rev, op.Key, false})
		}
		c.mu.Unlock()
	}
}

// disperse waits for the watchers, then ends the writers.
func (c *crowd) disperse() {
	c.wanderers.Wait()
	c.over.Store(true)
	c.writers.Wait()
}

func someOps(random *rand.Rand) []replica.Op {
	count := 1
	if random.IntN(3) == 0 {
		count = 2 + random.IntN(3)
	}
	hash := fmt.Sprintf("k{%d}", random.IntN(5))
	ops := make([]replica.Op, count)
	for i := range ops {
		key := fmt.Sprintf("%s%d", hash, i)
		if ops[i] = watchtest.PutOp(key, strings.Repeat("v", random.IntN(150))); random.IntN(4) == 0 {
			ops[i] = watchtest.DeleteOp(key)
		}
	}
	return ops
}

// wanderer watches something, leaves and comes back with its token.
type wanderer struct {
	t      *testing.T
	hub    *watch.Hub
	random *rand.Rand
	start  uint64
	l      *listener
	query  *api.WatchCreate
	from   uint64 // the first position
	writes *atomic.Int64
	move   chan *watch.Hub // where to go
	over   chan struct{}   // closed when it wanders no more
	got    []written
}

func (w *wanderer) begin() {
	w.query = []*api.WatchCreate{{}, {Prefix: "k{1}"}, {Prefix: "k"}, {Key: "k{2}0"}, {Start: "k{2}", End: "k{4}"}, {Prefix: "k{3}"}}[w.random.IntN(6)]
	w.query.WatchId, w.query.KeysOnly = 1, w.random.IntN(2) == 0
	if w.random.IntN(2) == 0 {
		w.query.AfterRevision = w.start
	}
	w.resume()
	w.l.open(1)
	w.from = w.l.created[1]
}

func (w *wanderer) resume() {
	w.l = listen(w.t, w.hub)
	w.l.create(w.query)
}

func (w *wanderer) wander() {
	defer close(w.over)
	w.begin()
	for range 40 {
		select {
		case w.hub = <-w.move:
			w.leave()
		default:
		}
		for range w.random.IntN(3) {
			w.l.next()
		}
		switch w.random.IntN(5) {
		case 0:
			w.leave()
		case 1:
			w.doze(int64(w.random.IntN(40)))
		}
	}
}

// doze does not read while so much is written.
func (w *wanderer) doze(n int64) {
	for until := w.writes.Load() + n; w.writes.Load() < until; {
		runtime.Gosched()
	}
}

// leave goes on with the token of the last whole position; what came behind it is
// dropped.
func (w *wanderer) leave() {
	w.keep()
	w.query.AfterRevision, w.query.Token = 0, w.l.tokens[1]
	at := w.l.position[1]
	w.l.stream.Close()
	w.resume()
	w.l.position[1], w.l.tokens[1] = at, w.query.Token
}

func (w *wanderer) keep() {
	for _, ev := range w.l.got[1] {
		if ev.Record.Revision <= w.l.position[1] {
			w.got = append(w.got, written{keyspace.Revision(ev.Record.Revision), ev.Record.Key, ev.Type == api.WatchEvent_DELETE})
		}
	}
}

// end writes a key behind everything: what other groups wrote in the same
// millisecond may have higher revisions than what is written last.
func (c *crowd) end(n *watchtest.Node) (rev keyspace.Revision) {
	for _, e := range c.all {
		for rev <= e.rev {
			rev = n.Put("zz-end", "v")
		}
	}
	return rev
}

// finish reads until the watch is at a revision.
func (w *wanderer) finish(rev keyspace.Revision) {
	w.l.until(fmt.Sprintf("the end of %v at %d", w.query, rev), func() bool { return w.l.position[1] >= uint64(rev) })
	w.keep()
}

func (w *wanderer) compare(i int, all []written) {
	w.t.Helper()
	var want []written
	for _, e := range all {
		if uint64(e.rev) > w.from && matches(w.query, e.key) {
			want = append(want, e)
		}
	}
	order := func(a, b written) int {
		if a.rev != b.rev {
			return int(int64(a.rev) - int64(b.rev))
		}
		return strings.Compare(a.key, b.key)
	}
	got := slices.DeleteFunc(w.got, func(e written) bool { return e.key == "zz-end" })
	if !slices.IsSortedFunc(got, func(a, b written) int { return int(int64(a.rev) - int64(b.rev)) }) {
		w.t.Errorf("watcher %d: not in the order of revisions", i)
	}
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if !slices.Equal(got, want) {
		w.t.Errorf("watcher %d of %v: %d events, want %d\n%v\n%v", i, w.query, len(got), len(want), got, want)
	}
}

func matches(q *api.WatchCreate, key string) bool {
	switch {
	case q.Key != "":
		return key == q.Key
	case q.Start != "":
		return key >= q.Start && key < q.End
	}
	return strings.HasPrefix(key, q.Prefix)
}

// Streams share what an event is encoded to; each is told of its own watch, of
// what that asked for.
func TestEncodingIsShared(t *testing.T) {
	n := watchtest.New(t, 1, nil)
	h := n.Hub(nil)
	asks := []*api.WatchCreate{{WatchId: 1}, {WatchId: 1}, {WatchId: 2}, {WatchId: 300}, {WatchId: 1, KeysOnly: true}, {WatchId: 7, KeysOnly: true}}
	var all []*listener
	for _, q := range asks {
		l := listen(t, h)
		q.Key = "k"
		l.create(q)
		l.until("it is open", func() bool { return len(l.created) == 1 })
		all = append(all, l)
	}
	for i := range 3 {
		n.Put("k", fmt.Sprint(i))
		for at, l := range all {
			id := asks[at].WatchId
			l.until("the event is there", func() bool { return len(l.got[id]) > i })
			want := fmt.Sprint(i)
			if asks[at].KeysOnly {
				want = ""
			}
			rec := l.got[id][i].Record
			if len(l.got) != 1 || rec.Key != "k" || string(rec.Value) != want || l.position[id] < rec.Revision || len(l.tokens[id]) == 0 {
				t.Errorf("stream %d is told %v at %d", at, rec, l.position[id])
			}
		}
	}
}
