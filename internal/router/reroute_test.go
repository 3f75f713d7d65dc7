package router

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// half are every second of the slots that a group was founded with.
func half(g keyspace.GroupID) (s format.SlotSet) {
	owned := founded.Owned(g)
	for slot := range owned.All() {
		if slot%2 == 0 {
			s.Add(slot)
		}
	}
	return s
}

// take makes a group give slots up, own makes one their owner.
func (h *fakeHost) take(from keyspace.GroupID, slots format.SlotSet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.set(from)
	h.slots[from] = old.Without(&slots)
}

func (h *fakeHost) own(to keyspace.GroupID, slots format.SlotSet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.set(to)
	h.slots[to] = old.With(&slots)
}

func (h *fakeHost) give(from, to keyspace.GroupID, slots format.SlotSet) {
	h.take(from, slots)
	h.own(to, slots)
}

// record makes a map that says what the groups own; the owner of slots between
// two owners is before.
func (f *fixture) record(m *Map, before keyspace.GroupID) {
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	r := format.SlotsRecord{Epoch: 1, NextMove: 9}
	missing := allSlots
	for g := range keyspace.GroupID(testGroups + 3) {
		if g > 0 {
			s := f.host.set(g)
			missing = missing.Without(&s)
			r.Owners = append(r.Owners, format.SlotOwner{Group: g, Slots: s})
		}
	}
	if before > 0 {
		r.Owners[before-1].Slots = r.Owners[before-1].Slots.With(&missing)
	}
	if err := r.Validate(); err != nil {
		panic(err)
	}
	if m.Slots != nil {
		r.Epoch = m.Slots.Epoch + 1
	}
	m.Slots, m.Groups, m.Epoch = NewSlotMap(&r, r.Epoch), len(r.Owners), m.Epoch+1
}

// follows makes a refresh read what the groups own.
func (f *fixture) follows() {
	f.dir.refresh = func(m *Map) error {
		f.record(m, 0)
		return nil
	}
}

func keysNamed(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("k/%04d", i))
	}
	return keys
}

func batchPut(atomic bool, keys ...string) *Call {
	b := &api.BatchPutRequest{Atomic: atomic}
	for _, k := range keys {
		b.Items = append(b.Items, &api.PutRequest{Key: k, Value: []byte("value of " + k)})
	}
	return &Call{Op: &api.PipelineOp{Op: &api.PipelineOp_BatchPut{BatchPut: b}}}
}

func batchGet(keys ...string) *Call {
	return &Call{Op: &api.PipelineOp{Op: &api.PipelineOp_BatchGet{BatchGet: &api.BatchGetRequest{Keys: keys}}}}
}

// executed counts how often each key was written, as its version.
func (f *fixture) executed(t *testing.T, keys []string, want uint64) {
	t.Helper()
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	for _, k := range keys {
		if rec := f.host.data[dataKey(1, k)]; rec == nil && want > 0 || rec != nil && rec.Version != want {
			t.Fatalf("%s was written %v, want %d times", k, rec, want)
		}
	}
}

// A map that is too old costs one look at a newer one, and nothing happens twice.
func TestStaleMapIsReadAgain(t *testing.T) {
	keys := keysNamed(300)
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.give(1, 5, half(1))
		f.host.give(3, 6, half(3))
		f.follows()

		put := batchPut(false, keys...)
		f.Do(t.Context(), put)
		wantCode(t, put.Err, "")
		for i, r := range put.Result.GetBatchPut().GetResults() {
			if r.Status != nil || r.Put.GetVersion() != 1 {
				t.Fatalf("item %d: %v", i, r)
			}
		}
		f.executed(t, keys, 1)
		if f.dir.calls != 1 {
			t.Fatalf("the map was read %d times", f.dir.calls)
		}

		f.dir.m = testMap() // old again
		for _, encoded := range []bool{false, true} {
			get := batchGet(keys...)
			get.Encoded = encoded
			f.Do(t.Context(), get)
			wantCode(t, get.Err, "")
			answer := get.Result.GetBatchGet()
			if encoded {
				plain := &api.BatchGetResponse{}
				if err := proto.Unmarshal(answer.ProtoReflect().GetUnknown(), plain); err != nil {
					t.Fatal(err)
				}
				answer = plain
			}
			if len(answer.Results) != len(keys) {
				t.Fatalf("%d results", len(answer.Results))
			}
			for i, r := range answer.Results {
				if r.Status != nil || string(r.Record.GetValue()) != "value of "+keys[i] {
					t.Fatalf("encoded %v, item %d: %v", encoded, i, r)
				}
			}
			f.dir.m = testMap()
		}

		f.dir.calls = 0
		var calls []*Call
		for _, k := range keys {
			calls = append(calls, putCall("", k, "again"), getCall("", k))
		}
		f.Do(t.Context(), calls...)
		for i, c := range calls {
			if c.Err != nil {
				t.Fatalf("call %d: %v", i, c.Err)
			}
		}
		f.executed(t, keys, 2)
		// The writes are refused at once and share a look, the reads' refusals come later.
		if f.dir.calls > 2 {
			t.Fatalf("the map was read %d times for one frame", f.dir.calls)
		}
	})
}

// Items of one part that go to several groups become parts of their own; an
// atomic batch becomes a transaction over them.
func TestBatchesSplitByANewerMap(t *testing.T) {
	var kept, gone []string
	moved := half(1)
	for _, k := range keysNamed(400) {
		if slot := keyspace.SlotOf(1, k); moved.Has(slot) {
			gone = append(gone, k)
		} else if g, _ := founded.GroupOf(slot); g == 1 {
			kept = append(kept, k)
		}
	}
	both := slices.Concat(kept, gone)
	for name, c := range map[string]struct {
		keys   []string
		atomic bool
		code   fault.Code
		want   uint64
	}{
		"both groups":         {both, false, "", 1},
		"both, atomic":        {both, true, "", 1},
		"the new one, atomic": {gone, true, "", 1},
		"the old one, atomic": {kept, true, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.host.give(1, 5, moved)
				f.follows()
				call := batchPut(c.atomic, c.keys...)
				f.Do(t.Context(), call)
				wantCode(t, call.Err, c.code)
				synctest.Wait() // commits follow the answer
				f.executed(t, c.keys, c.want)
			})
		})
	}
}

// Slots have no owner for a moment, and the map follows later still.
func TestBetweenOwners(t *testing.T) {
	for name, c := range map[string]struct {
		accepted, recorded time.Duration
		code               fault.Code
		most               time.Duration
	}{
		"a moment":   {20 * time.Millisecond, 30 * time.Millisecond, "", 150 * time.Millisecond},
		"map is old": {0, 300 * time.Millisecond, "", 900 * time.Millisecond},
		"for ever":   {time.Hour, time.Hour, fault.Unavailable, DefaultTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				begin := time.Now()
				moved := founded.Owned(1)
				f.host.take(1, moved)
				f.dir.refresh = func(m *Map) error {
					if time.Since(begin) >= c.recorded {
						f.record(m, 0)
					}
					return nil
				}
				timer := time.AfterFunc(c.accepted, func() { f.host.own(5, moved) })
				defer timer.Stop()
				var calls []*Call
				keys := keysNamed(40)
				for _, k := range keys {
					calls = append(calls, putCall("", k, "v"))
				}
				f.Do(t.Context(), calls...)
				if took := time.Since(begin); took > c.most {
					t.Errorf("took %s, want at most %s", took, c.most)
				}
				for i, k := range keys {
					want := c.code
					if g, _ := founded.GroupOfKey(1, k); g != 1 {
						want = ""
					}
					if fault.CodeOf(calls[i].Err) != want {
						t.Errorf("%s: %v, want %q", k, calls[i].Err, want)
					}
				}
				if most := 1 + int(time.Since(begin)/refreshGap); f.dir.calls > most {
					t.Errorf("the map was read %d times, want at most %d", f.dir.calls, most)
				}
			})
		})
	}
}

// Slots move on while their operations are on the way.
func TestMovesBetweenAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		keys := keysNamed(200)
		moves := 0
		f.host.submit = func(rs []*replica.Request) bool {
			if moves++; moves <= 2 { // just before the first two attempts are judged
				from := []keyspace.GroupID{1, 5}[moves-1]
				f.host.give(from, keyspace.GroupID(moves+4), half(1))
			}
			return false
		}
		f.follows()
		call := batchPut(false, keys...)
		f.Do(t.Context(), call)
		wantCode(t, call.Err, "")
		for i, r := range call.Result.GetBatchPut().GetResults() {
			if r.Status != nil {
				t.Fatalf("item %d: %v", i, r)
			}
		}
		f.executed(t, keys, 1)
		if f.dir.calls != 2 {
			t.Fatalf("the map was read %d times", f.dir.calls)
		}
	})
}

// A freeze costs about what it lasts, here and at another node, whose hint as
// the leader stays.
func TestFreezeIsWaitedFor(t *testing.T) {
	const freeze = 50 * time.Millisecond
	for _, remote := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			f.host.frozen = allSlots
			begin := time.Now()
			timer := time.AfterFunc(freeze, func() {
				f.host.mu.Lock()
				defer f.host.mu.Unlock()
				f.host.frozen = format.SlotSet{}
			})
			defer timer.Stop()
			asked := 0
			if remote {
				f.remote("b", func(_ string, op *api.PipelineOp) *api.PipelineResult {
					if asked++; time.Since(begin) < freeze {
						return refused(fault.New(fault.Unavailable, "the slot changes its owner").WithRetry(5 * time.Millisecond))
					}
					return putResult(1)
				})
			}
			c := putCall("", "k", "v")
			f.Do(t.Context(), c)
			wantCode(t, c.Err, "")
			if took := time.Since(begin); took < freeze || took > freeze+30*time.Millisecond {
				t.Errorf("remote %v: a freeze of %s took %s", remote, freeze, took)
			}
			if remote {
				if leader, _ := f.hints.get(1); asked > 8 || leader != "b" {
					t.Errorf("%d attempts, leader %q", asked, leader)
				}
			}
		})
	}
}

// After a freeze the slots have no owner for a moment; waiting for the one has
// not made the other longer.
func TestFreezeAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.follows()
		begin := time.Now()
		f.host.frozen = founded.Owned(1)
		at := func(after time.Duration, do func()) {
			timer := time.AfterFunc(after, do)
			t.Cleanup(func() { timer.Stop() })
		}
		f.dir.refresh = func(m *Map) error {
			if time.Since(begin) > 220*time.Millisecond {
				f.record(m, 0)
			}
			return nil
		}
		at(200*time.Millisecond, func() { f.host.take(1, founded.Owned(1)) })
		at(220*time.Millisecond, func() {
			f.host.mu.Lock()
			f.host.frozen = format.SlotSet{}
			f.host.mu.Unlock()
			f.host.own(5, founded.Owned(1))
		})
		c := batchPut(false, keysNamed(40)...)
		f.Do(t.Context(), c)
		wantCode(t, c.Err, "")
		if took := time.Since(begin); took > 300*time.Millisecond {
			t.Errorf("took %s", took)
		}
	})
}

// The leader that froze the slots is asked again, not others.
func TestFreezeStaysWithTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		begin := time.Now()
		f.remote("c", nil)
		asked := map[keyspace.NodeID]int{}
		f.peers.client = func(id keyspace.NodeID) (api.PeerClient, error) {
			return &fakeClient{forward: func(ctx context.Context) (ForwardStream, error) {
				s := newStream(ctx)
				go s.serve(func(string, *api.PipelineOp) *api.PipelineResult {
					asked[id]++
					switch {
					case id == "c":
						return refused(errWrongLeader(1, "b"))
					case time.Since(begin) < 40*time.Millisecond:
						return refused(fault.New(fault.Unavailable, "the slot changes its owner").WithRetry(5 * time.Millisecond))
					}
					return putResult(1)
				})
				return s, nil
			}}, nil
		}
		c := putCall("", "k", "v")
		f.Do(t.Context(), c)
		wantCode(t, c.Err, "")
		if asked["c"] != 1 || asked["b"] < 3 {
			t.Errorf("attempts %v", asked)
		}
	})
}

// What another node's group does not own goes where a newer map says; the frame
// names the group, so that the peer's own map does not matter.
func TestForwardedPartsNameTheirGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.give(1, 5, founded.Owned(1))
		f.follows()
		peer, err := New(Options{Node: "b", Host: f.host, Peers: &fakePeers{}, Directory: &fakeDirectory{m: testMap()}, Clock: newClock(), Rand: &countRand{}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = peer.Close() }()
		f.host.hosted = func(keyspace.GroupID) bool { return true }
		var groups []keyspace.GroupID
		f.o.Host = &elsewhereHost{fakeHost: f.host}
		for g := range keyspace.GroupID(testGroups + 3) {
			f.hints.set(g, "b")
		}
		f.peers.client = func(keyspace.NodeID) (api.PeerClient, error) {
			return &fakeClient{forward: func(ctx context.Context) (ForwardStream, error) {
				s := newStream(ctx)
				go s.relay(peer, &groups)
				return s, nil
			}}, nil
		}
		key := ""
		for _, k := range keysNamed(100) {
			if g, _ := founded.GroupOfKey(1, k); g == 1 {
				key = k
			}
		}
		call := putCall("", key, "v")
		f.Do(t.Context(), call)
		wantCode(t, call.Err, "")
		f.executed(t, []string{key}, 1)
		if want := []keyspace.GroupID{1, 5}; !slices.Equal(groups, want) {
			t.Errorf("groups %v were asked, want %v", groups, want)
		}
	})
}

// elsewhereHost hosts and leads nothing here.
type elsewhereHost struct{ *fakeHost }

func (*elsewhereHost) Hosts(keyspace.GroupID) bool                           { return false }
func (*elsewhereHost) Leader(keyspace.GroupID) (keyspace.NodeID, bool, bool) { return "", false, false }

// relay executes frames on a router, as package peer does.
func (s *fakeStream) relay(r *Router, groups *[]keyspace.GroupID) {
	for {
		select {
		case frame := <-s.frames:
			for i, op := range frame.Ops {
				c := &Call{Op: op, Forwarded: true, Routed: true, Group: keyspace.GroupID(frame.Groups[i])}
				*groups = append(*groups, c.Group)
				r.Do(s.ctx, c)
				s.answer <- &api.PipelineResponse{Results: []*api.PipelineResult{c.Result}}
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// A peer's operation is for a group of its namespace's kind.
func TestRoutedToTheWrongKindOfGroup(t *testing.T) {
	f := newFixture(t)
	for _, c := range []*Call{
		{Op: putCall("", "k", "v").Op, Forwarded: true, Routed: true, Group: keyspace.MetaGroup},
		{Op: putCall("_system", "k", "v").Op, Identity: SystemIdentity, Forwarded: true, Routed: true, Group: 2},
	} {
		f.Do(t.Context(), c)
		wantCode(t, c.Err, fault.InvalidArgument)
	}
}
