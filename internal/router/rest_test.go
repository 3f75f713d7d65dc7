package router

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/engine/mem"
	"kvstore/internal/env"
	"kvstore/internal/env/simfs"
	"kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/raftlog"
	"kvstore/internal/replica"
	"kvstore/internal/sstable"
)

// store is a router over a real host that leads all of its groups.
type store struct {
	*Router
	host *orderedHost
	t    testing.TB
}

// orderedHost reads clocks one after the other, in their order.
type orderedHost struct {
	*host.Host
	mu     sync.Mutex
	before func(host.ClockAsk)      // runs before each reading
	after  func(*host.ClockReading) // and after it
	asked  []host.ClockAsk
}

type silent struct{}

func (silent) Send(keyspace.NodeID, *api.GroupMessage) {}
func (silent) Flush()                                  {}

func newStore(t testing.TB) *store { return newStoreAt(t, system.Clock()) }

// newStoreAt is a store whose router has a clock of its own.
func newStoreAt(t testing.TB, clock env.Clock) *store {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	disk, eng := simfs.New(), mem.Open()
	log, err := raftlog.Open(disk, "log", raftlog.Options{SegmentBytes: 1 << 20, Inline: true, Clock: system.Clock(), Rand: rand.New(rand.NewPCG(1, 2))})
	must(err)
	past, err := sstable.OpenHistory(disk, "history", sstable.Options{})
	must(err)
	runs, err := sstable.OpenRuns(disk, "runs", sstable.Options{})
	must(err)
	h, err := host.New(host.Options{Node: "a", ClusterID: "test", Log: log, Engine: eng, Out: silent{}, Clock: system.Clock(), Rand: system.Rand(),
		Store: mvcc.New(eng, mvcc.Options{SealBytes: 1 << 20, History: past, Runs: runs}), TickInterval: 50 * time.Millisecond})
	must(err)
	var seeds []host.GroupSeed
	for g := range keyspace.GroupID(testGroups + 1) {
		s := host.GroupSeed{Group: g, Members: []format.Member{{Replica: 1, Node: "a"}}, Self: 1}
		if g > 0 {
			s.Slots = format.FoundingSlots(g, testGroups)
		}
		seeds = append(seeds, s)
	}
	must(h.Bootstrap(seeds))
	s := &store{host: &orderedHost{Host: h}, t: t}
	s.Router, err = New(Options{Node: "a", Host: s.host, Peers: &fakePeers{}, Directory: &fakeDirectory{m: testMap()}, Clock: clock, Rand: system.Rand()})
	must(err)
	h.Start(context.Background())
	must(s.Start(context.Background()))
	t.Cleanup(func() {
		must(s.Close())
		must(h.Close())
	})
	for g := range keyspace.GroupID(testGroups) {
		s.mustPut(ownedKey(g+1, "led/"), "")
	}
	return s
}

func (h *orderedHost) AskClocks(ctx context.Context, asks []host.ClockAsk) (out []host.ClockReading) {
	for i := range asks {
		h.mu.Lock()
		before, after := h.before, h.after
		h.asked = append(h.asked, asks[i])
		h.mu.Unlock()
		if before != nil {
			before(asks[i])
		}
		out = append(out, h.Host.AskClocks(ctx, asks[i:i+1])...)
		if after != nil {
			after(&out[i])
		}
	}
	return out
}

// once runs f before the first reading that is as given, and nothing from then
// on.
func (h *orderedHost) once(is func(host.ClockAsk) bool, f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = func(a host.ClockAsk) {
		h.mu.Lock()
		hit := h.before != nil && is(a)
		if hit {
			h.before = nil
		}
		h.mu.Unlock()
		if hit {
			f()
		}
	}
}

// rounds counts the readings of a group since the last call.
func (h *orderedHost) rounds(g keyspace.GroupID) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.asked {
		if a.Group == g {
			n++
		}
	}
	h.asked = nil
	return n
}

func firstOf(g keyspace.GroupID) func(host.ClockAsk) bool {
	return func(a host.ClockAsk) bool { return a.Group == g && a.Since.Term == 0 }
}

func secondOf(g keyspace.GroupID) func(host.ClockAsk) bool {
	return func(a host.ClockAsk) bool { return a.Group == g && a.Since.Term != 0 }
}

// ahead moves a group's clock into the future.
func (s *store) ahead(g keyspace.GroupID, by time.Duration) {
	s.t.Helper()
	if _, err := s.host.Clock(context.Background(), g, keyspace.RevisionAt(time.Now().Add(by).UnixMilli())); err != nil {
		s.t.Error(err)
	}
}

// clockOf is a group's clock in Unix milliseconds.
func (s *store) clockOf(g keyspace.GroupID) int64 {
	c, err := s.host.Clock(context.Background(), g, 0)
	if err != nil {
		s.t.Error(err)
	}
	return c.Clock.UnixMilli()
}

// ownedKey is a key with a prefix whose slot a group owns.
func ownedKey(g keyspace.GroupID, prefix string) string {
	owned := founded.Owned(g)
	for n := 0; ; n++ {
		if key := fmt.Sprint(prefix, n); owned.Has(keyspace.SlotOf(keyspace.DefaultNamespace, key)) {
			return key
		}
	}
}

func (s *store) put(req *api.PutRequest) error {
	c := &Call{Op: &api.PipelineOp{Op: &api.PipelineOp_Put{Put: req}}}
	s.Do(context.Background(), c)
	return c.Err
}

func (s *store) mustPut(key, value string) {
	s.t.Helper()
	if err := s.put(&api.PutRequest{Key: key, Value: []byte(value)}); err != nil {
		s.t.Error(err)
	}
}

// values lists and returns what it found.
func (s *store) values(q *api.ListRequest) (map[string]string, *api.ListResponse) {
	s.t.Helper()
	out, err := s.List(context.Background(), q)
	if err != nil {
		s.t.Fatal(err)
	}
	found := make(map[string]string)
	for _, rec := range out.Records {
		found[rec.Key] = string(rec.Value)
	}
	return found, out
}

// together reads keys and returns what it found.
func (s *store) together(keys ...string) map[string]string {
	s.t.Helper()
	var reads []KeyRead
	for _, key := range keys {
		reads = append(reads, KeyRead{Namespace: keyspace.DefaultNamespace, Key: key})
	}
	recs, _, err := s.ReadTogether(context.Background(), reads)
	if err != nil {
		s.t.Fatal(err)
	}
	found := make(map[string]string)
	for i, rec := range recs {
		if rec != nil {
			found[keys[i]] = string(rec.Value)
		}
	}
	return found
}

// TestOneMoment holds the histories that break a list of one pass: two writes one
// after the other, of which the second is there and the first is not.
func TestOneMoment(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		when   func(host.ClockAsk) bool
		first  keyspace.GroupID // where the first write goes
		second keyspace.GroupID
		fast   keyspace.GroupID // whose clock is ahead
		broken bool             // at the level snapshot
	}{
		"the group that was read first is ahead": {firstOf(2), 1, 2, 1, true},
		"the one that was read last is ahead":    {firstOf(testGroups), 2, 3, testGroups, false},
		"a group that is behind, in between":     {firstOf(3), 2, 4, 2, true},
		"between the rounds":                     {secondOf(2), 1, 3, 1, true},
		"in the second round":                    {secondOf(3), 1, 4, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			one, two := ownedKey(c.first, "w1/"), ownedKey(c.second, "w2/")
			by := 400 * time.Millisecond
			run := func(value string, read func() map[string]string) (first, second bool) {
				s.mustPut(one, "before")
				s.mustPut(two, "before")
				s.ahead(c.fast, by)
				by += 200 * time.Millisecond
				s.host.once(c.when, func() {
					s.mustPut(one, value)
					s.mustPut(two, value)
				})
				found := read()
				return found[one] == value, found[two] == value
			}
			list := func(level api.Consistency) func() map[string]string {
				return func() map[string]string {
					found, out := s.values(&api.ListRequest{Prefix: "w", Consistency: level})
					if out.Consistency != level {
						t.Errorf("the list says %v, asked was %v", out.Consistency, level)
					}
					return found
				}
			}
			if first, second := run("1", list(api.Consistency_CONSISTENCY_LINEARIZABLE)); second && !first {
				t.Error("the list has the second write and not the first")
			}
			if first, second := run("2", func() map[string]string { return s.together(one, two) }); second && !first {
				t.Error("keys read together have the second write and not the first")
			}
			if first, second := run("3", func() map[string]string {
				out, err := s.List(context.Background(), &api.ListRequest{Prefix: "w", KeysOnly: true, CountOnly: true})
				wantCode(t, err, "")
				if out.Count != 2 || out.Consistency != api.Consistency_CONSISTENCY_LINEARIZABLE {
					t.Errorf("count %v", out)
				}
				return nil
			}); first || second {
				t.Error("a count has values")
			}
			if first, second := run("4", list(api.Consistency_CONSISTENCY_SNAPSHOT)); c.broken != (second && !first) {
				t.Errorf("snapshot has the first: %v, the second: %v", first, second)
			}
		})
	}
}

// A quiet range needs two rounds, whatever is written elsewhere; one that changes
// between the rounds is read again, and held from the third time on.
func TestListRounds(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	in, out := ownedKey(2, "in/"), ownedKey(2, "out/")
	s.mustPut(in, "0")
	change := func(key string) func(host.ClockAsk) {
		return func(a host.ClockAsk) {
			if a.Group == 2 && a.Since.Term != 0 && a.Hold == 0 {
				s.mustPut(key, "v")
			}
		}
	}
	for name, c := range map[string]struct {
		before func(host.ClockAsk)
		after  func(*host.ClockReading)
		rounds int
	}{
		"quiet":             {nil, nil, 2},
		"writes elsewhere":  {change(out), nil, 2},
		"writes every time": {change(in), nil, 6},
		"another leader, at once": {nil, func() func(r *host.ClockReading) {
			var once sync.Once
			return func(r *host.ClockReading) {
				if r.Group == 2 {
					once.Do(func() { r.Term-- }) // that of the leader before
				}
			}
		}(), 4},
	} {
		for what, read := range map[string]func(){
			"a list":  func() { s.values(&api.ListRequest{Prefix: "in/"}) },
			"a count": func() { s.values(&api.ListRequest{Prefix: "in/", CountOnly: true}) },
			"keys":    func() { s.together(in, ownedKey(1, "in/"), in) },
		} {
			if c.after != nil && what != "a list" {
				continue // it happens once
			}
			s.host.mu.Lock()
			s.host.before, s.host.after = c.before, c.after
			s.host.mu.Unlock()
			s.host.rounds(2)
			read()
			if n := s.host.rounds(2); n != c.rounds {
				t.Errorf("%s, %s: %d rounds, want %d", name, what, n, c.rounds)
			}
		}
	}
}

// The keys of one group take one round, and pages behind the first none.
func TestListOfOneGroupIsOneRound(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for n := range 5 {
		s.mustPut(fmt.Sprint("{a}/", n), "v")
		s.mustPut(fmt.Sprint("b/", n), "v")
	}
	total := func() int {
		s.host.mu.Lock()
		defer s.host.mu.Unlock()
		n := len(s.host.asked)
		s.host.asked = nil
		return n
	}
	total()
	found, _ := s.values(&api.ListRequest{Prefix: "{a}/"})
	if n := total(); n != 1 || len(found) != 5 {
		t.Errorf("%d keys of one group in %d readings", len(found), n)
	}
	found, page := s.values(&api.ListRequest{Prefix: "b/", Limit: 2, Consistency: api.Consistency_CONSISTENCY_SNAPSHOT})
	total()
	more, next := s.values(&api.ListRequest{Prefix: "b/", ContinuationToken: page.ContinuationToken})
	if n := total(); len(found) != 2 || len(more) != 3 || n > 0 {
		t.Errorf("%d keys, then %d in %d readings", len(found), len(more), n)
	}
	if next.Revision != page.Revision || next.Consistency != api.Consistency_CONSISTENCY_SNAPSHOT {
		t.Errorf("the second page is of %d at %v, the first of %d", next.Revision, next.Consistency, page.Revision)
	}
}

// A record that expires between the rounds was there or not, in all groups alike:
// the list begins again.
func TestExpiryBetweenTheRounds(t *testing.T) {
	t.Parallel()
	for g, what := range map[keyspace.GroupID]string{1: "list", 2: "keys", 4: "count"} {
		s := newStore(t) // a list takes the clocks of all groups along, and they may not go far ahead
		in := fmt.Sprint(what, "/")
		gone, stays := ownedKey(g, in), ownedKey(3, in)
		read := map[string]func() map[string]string{
			"list": func() map[string]string { f, _ := s.values(&api.ListRequest{Prefix: in}); return f },
			"keys": func() map[string]string { return s.together(gone, stays) },
			"count": func() map[string]string {
				_, out := s.values(&api.ListRequest{Prefix: in, CountOnly: true})
				if out.Count != 1 {
					t.Errorf("%d keys", out.Count)
				}
				return nil
			},
		}[what]
		s.mustPut(stays, "v")
		if err := s.put(&api.PutRequest{Key: gone, Value: []byte("v"), ExpiresAtMs: s.clockOf(g) + 4000}); err != nil {
			t.Fatal(err)
		}
		s.host.rounds(g)
		s.host.once(secondOf(g), func() { s.ahead(g, time.Duration(s.clockOf(g)+4500-time.Now().UnixMilli())*time.Millisecond) })
		found := read()
		if n := s.host.rounds(g); n < 4 {
			t.Errorf("%s: %d rounds with an expiry in between", what, n)
		}
		if found != nil && (found[gone] != "" || found[stays] != "v") {
			t.Errorf("%s: found %v", what, found)
		}
	}
}

// DESIGN 6: deadlines come early by one ceiling at most. So reads that begin again and
// again, each of which asks for a clock a bit ahead, do not push group time further
// ahead with each try, whatever the wall clock is of the node that reads.
func TestReadsDoNotPushTime(t *testing.T) {
	t.Parallel()
	const ahead, election = holdAhead << maxAheads, 500 * time.Millisecond
	for name, c := range map[string]struct{ wrong, limit time.Duration }{
		"right":          {0, ahead},
		"an hour ahead":  {time.Hour, election * 3 / 4}, // that of leaders
		"an hour behind": {-time.Hour, ahead},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStoreAt(t, wrongClock{system.Clock(), c.wrong})
			s.mustPut(ownedKey(1, "in/"), "0")
			var held, worst atomic.Int64
			s.host.mu.Lock()
			s.host.before = func(a host.ClockAsk) {
				if a.Hold != 0 && a.Since.Term == 0 {
					held.Add(1)
				}
			}
			s.host.after = func(r *host.ClockReading) {
				r.Term-- // another leader, every time
				worst.Store(max(worst.Load(), r.Clock.UnixMilli()-system.Clock().Wall()))
			}
			s.host.mu.Unlock()
			for range 2 {
				if _, err := s.List(t.Context(), &api.ListRequest{Prefix: "in/"}); fault.CodeOf(err) != fault.Unavailable {
					t.Fatal(err)
				}
			}
			if held.Load() == 0 || worst.Load() > c.limit.Milliseconds() {
				t.Errorf("group time was %d ms ahead, limit %v, after %d readings that held", worst.Load(), c.limit, held.Load())
			}
		})
	}
}

type wrongClock struct {
	env.Clock
	by time.Duration
}

func (c wrongClock) Wall() int64 { return c.Clock.Wall() + c.by.Milliseconds() }

// A hold whose coordinator is gone lets writes through on its own, and keeps
// nobody else.
func TestHoldWithoutACoordinator(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	in, out := ownedKey(2, "in/"), ownedKey(2, "out/")
	l := lister{ns: keyspace.DefaultNamespace, lower: []byte("in/"), upper: []byte("in0")}
	began := time.Now() // before the hold does
	r := s.host.Host.AskClocks(t.Context(), []host.ClockAsk{{Group: 2, Sets: []replica.Spans{l.spans()}, Hold: 7}})[0]
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	held := make(chan time.Duration, 1)
	go func() {
		s.mustPut(in, "v")
		held <- time.Since(began)
	}()
	s.mustPut(out, "v")
	if err := s.put(&api.PutRequest{Key: in, Value: []byte("w")}); err != nil {
		t.Fatal(err)
	}
	if waited := <-held; waited < 30*time.Millisecond {
		t.Errorf("the write waited for %v", waited)
	}
	again := s.host.Host.AskClocks(t.Context(), []host.ClockAsk{{Group: 2, AtLeast: r.Clock, Sets: []replica.Spans{l.spans()}, Hold: 7, Since: r.Since()}})[0]
	if again.Err != nil || len(again.Unsettled) != 1 {
		t.Errorf("after the hold: %+v", again)
	}
}

// TestListsAmongWriters: lists of a few keys of all groups, whose clocks are
// skewed, while each key is written by a writer of its own. A list must be the
// state at some moment between its call and its return, and all lists must be
// states of one history.
func TestListsAmongWriters(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := newStore(t)
	const writes = 60
	var clock atomic.Int64
	var keys []string
	for g := range keyspace.GroupID(testGroups) {
		keys = append(keys, ownedKey(g+1, "k/"))
	}
	// started and ended of each key's writes, by value; 0 is what is there first.
	var started, ended [testGroups][writes + 1]atomic.Int64
	for k, key := range keys {
		s.mustPut(key, "0")
		for n := range writes + 1 {
			started[k][n].Store(math.MaxInt64)
			ended[k][n].Store(math.MaxInt64)
		}
		started[k][0].Store(0)
	}
	var done sync.WaitGroup
	for k, key := range keys {
		rng := rand.New(rand.NewPCG(seed, uint64(k)))
		done.Go(func() {
			for n := 1; n <= writes; n++ {
				if g := keyspace.GroupID(k + 1); rng.IntN(3) == 0 {
					s.ahead(g, time.Duration(s.clockOf(g)+int64(rng.IntN(20))-time.Now().UnixMilli())*time.Millisecond)
				}
				started[k][n].Store(clock.Add(1))
				s.mustPut(key, fmt.Sprint(n))
				ended[k][n].Store(clock.Add(1))
			}
		})
	}
	type seen struct {
		call, end int64
		values    [testGroups]int
	}
	var mu sync.Mutex
	var lists []seen
	for reader := range 3 {
		done.Go(func() {
			for range 25 {
				l := seen{call: clock.Add(1)}
				var found map[string]string
				if reader == 0 {
					found = s.together(keys...)
				} else {
					found, _ = s.values(&api.ListRequest{Prefix: "k/"})
				}
				l.end = clock.Add(1)
				for k, key := range keys {
					l.values[k], _ = strconv.Atoi(found[key])
				}
				mu.Lock()
				lists = append(lists, l)
				mu.Unlock()
			}
		})
	}
	done.Wait()
	slices.SortFunc(lists, func(a, b seen) int { return cmp.Compare(sum(a.values[:]), sum(b.values[:])) })
	for i, l := range lists {
		from, to := l.call, l.end
		for k, v := range l.values {
			from = max(from, started[k][v].Load())
			if v < writes {
				to = min(to, ended[k][v+1].Load())
			}
		}
		if from > to {
			t.Errorf("seed %d: list %+v is of no moment: after %d, before %d", seed, l, from, to)
		}
		for _, before := range lists[:i] {
			for k := range keys {
				if before.values[k] > l.values[k] || before.values != l.values && before.call > l.end {
					t.Fatalf("seed %d: lists %+v and %+v are of two histories", seed, before, l)
				}
			}
		}
	}
}

func sum(values []int) (n int) {
	for _, v := range values {
		n += v
	}
	return n
}
