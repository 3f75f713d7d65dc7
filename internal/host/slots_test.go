package host

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
)

// testGroup owns all slots in the harness; these tests let some of them leave, or
// come. The group at the other end is not there.
var leaving = slotsOf("1000-1999")

const movesOut = format.MoveID(3)

func slotsOf(text string) format.SlotSet {
	s, err := format.ParseSlotSet(text)
	if err != nil {
		panic(err)
	}
	return s
}

// keyIn returns the n-th key of a slot in the set.
func keyIn(set format.SlotSet, n int) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("s", i); set.Has(keyspace.SlotOf(keyspace.DefaultNamespace, key)) {
			if n == 0 {
				return key
			}
			n--
		}
	}
}

// step takes a step of a move on the leader.
func (c *cluster) takeStep(change format.SlotChange) (a SlotAnswer, err error) {
	c.t.Helper()
	c.pump("a leader serves", func() bool { return c.serving() != nil })
	done := false // on the loop, which is this goroutine's: no time passes meanwhile but that of messages
	c.serving().host.ChangeSlotsAsync(context.Background(), testGroup, change, func(got SlotAnswer, e error) { a, err, done = got, e, true })
	c.pump("a step of a move ends", func() bool { return done })
	return a, err
}

// patient lets a freeze outlast what the test does meanwhile.
func patient(c *cluster) {
	c.opt = func(o *Options) { o.MaxFreeze = time.Hour }
}

func (c *cluster) mustStep(change format.SlotChange) SlotAnswer {
	c.t.Helper()
	a, err := c.takeStep(change)
	if err != nil {
		c.t.Fatalf("step %+v: %v", change, err)
	}
	return a
}

func freezing() format.SlotChange {
	return format.SlotChange{Kind: format.SlotFreeze, Move: movesOut, Peer: 9, Slots: leaving}
}

func leavingBy(nonce keyspace.Index) format.SlotChange {
	return format.SlotChange{Kind: format.SlotLeave, Move: movesOut, Nonce: nonce, Floor: 77}
}

// try writes a key on the leader and returns how that ends.
func (c *cluster) try(key string) error {
	c.t.Helper()
	c.pump("a leader serves", func() bool { return c.serving() != nil })
	r, answers := c.serving().submit(testOp(key, "v"))
	c.pump("the write is answered", func() bool { return answers.Load() > 0 })
	if r.Err == nil {
		return r.Ops[0].Result.Err
	}
	return r.Err
}

func (n *node) slots() *format.SlotState { return n.group().core.State().Slots }

// mustHaveSlots requires that every replica has the leader's state.
func (c *cluster) mustHaveSlots() *format.SlotState {
	c.t.Helper()
	c.settle()
	want := c.serving().slots()
	for _, m := range c.serving().group().core.State().Members {
		if n := c.node(m.Node); n.host != nil && !reflect.DeepEqual(n.slots(), want) {
			c.t.Fatalf("node %s has %+v, the leader %+v", n.id, n.slots(), want)
		}
	}
	return want
}

// Frozen, then left: what the log says of the slots is the same on all replicas,
// after a crash of any of them, from the log alone and from a checkpoint.
func TestSlotStateSurvivesRestarts(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		c := newCluster(t, 3, 3, patient)
		key := keyIn(leaving, 0)
		c.write(testOp(key, "v"), testOp("other", "v"))
		nonce := c.mustStep(freezing()).Nonce
		frozen := c.mustHaveSlots()
		c.nodes[2].crash()
		if got := c.mustHaveSlots(); !reflect.DeepEqual(got, frozen) || got.Out.Nonce != nonce {
			t.Fatalf("after a restart: %+v, frozen %+v", got, frozen)
		}
		a := c.mustStep(leavingBy(nonce))
		if a.Ceiling == 0 || a.Floor != 77 || !a.Slots.Out.Left {
			t.Fatalf("left with %+v", a)
		}
		if sealed {
			for _, n := range c.nodes {
				n.host.seal()
			}
			c.pass(time.Second)
		}
		want := c.mustHaveSlots()
		for _, n := range c.nodes {
			n.crash()
		}
		c.pump("a leader serves again", func() bool { return c.serving() != nil })
		if got := c.mustHaveSlots(); !reflect.DeepEqual(got, want) || got.Out.Ceiling != a.Ceiling {
			t.Fatalf("after a restart of all: %+v, before %+v", got, want)
		}
		mustBe(t, c.try(key), fault.WrongGroup)
		mustBe(t, c.try("other"), "")
		if again := c.mustStep(leavingBy(nonce)); again.Ceiling != a.Ceiling || again.Floor != a.Floor {
			t.Fatalf("asked again: %+v, first %+v", again, a)
		}
	}
}

// A freeze that its mover forgot is undone by an entry after a while; what it was
// meant for is impossible then, and writes go on. Whoever begins to lead counts
// from then.
func TestFreezesEnd(t *testing.T) {
	c := newCluster(t, 3, 3, func(c *cluster) {
		c.opt = func(o *Options) { o.MaxFreeze = 2 * time.Minute }
	})
	key := keyIn(leaving, 0)
	nonce := c.mustStep(freezing()).Nonce
	mustBe(t, c.try(key), fault.Unavailable)
	mustBe(t, c.try(keyIn(slotsOf("0-999"), 0)), "")
	for _, leads := range []int{0, 1, 0} { // the first of them again
		for _, n := range c.nodes {
			n.host.Guide(testGroup, []keyspace.NodeID{c.nodes[leads].id})
		}
		c.pump("leadership moves", func() bool { return c.serving() == c.nodes[leads] })
		c.pass(80 * time.Second)
		mustBe(t, c.try(key), fault.Unavailable)
	}
	c.pass(80 * time.Second)
	mustBe(t, c.try(key), "")
	_, err := c.takeStep(leavingBy(nonce))
	mustBe(t, err, fault.FailedPrecondition)
	if s := c.mustHaveSlots(); s.Out == nil || s.Out.Nonce != 0 || !s.Owned.Has(1000) {
		t.Fatalf("after the thaw: %+v", s)
	}
	again := c.mustStep(freezing()).Nonce
	if again <= nonce {
		t.Fatalf("nonce %d after %d", again, nonce)
	}
	old := c.serving()
	old.stop()
	c.pump("another leads", func() bool { n := c.serving(); return n != nil && n != old })
	mustBe(t, c.try(key), fault.Unavailable)
	c.pass(200 * time.Second)
	mustBe(t, c.try(key), "")
	if s := c.serving().slots(); s.Out.Nonce != 0 || s.Out.Left {
		t.Fatalf("after the second thaw: %+v", s)
	}
}

// What left is not thawed, however long it takes until the map knows.
func TestWhatLeftStaysAway(t *testing.T) {
	c := newCluster(t, 1, 1)
	c.mustStep(leavingBy(c.mustStep(freezing()).Nonce))
	c.pass(5 * time.Second)
	if s := c.nodes[0].slots(); !s.Out.Left || s.Owned.Has(1000) {
		t.Fatalf("later: %+v", s)
	}
}

// A freeze that is in the leader's log only, when the leader is lost, never was;
// one that a quorum has goes on under the next leader.
func TestLeaderChangeWithAFreezeInFlight(t *testing.T) {
	for name, kept := range map[string]bool{"lost": false, "kept": true} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3, 3, patient)
			c.settle()
			old := c.nodes[0]
			c.drop = func(from, to *node, m *api.GroupMessage) bool {
				return from == old && (!kept || to == c.nodes[2]) || to == old
			}
			var answered atomic.Int32
			var code fault.Code
			old.host.ChangeSlotsAsync(context.Background(), testGroup, freezing(), func(_ SlotAnswer, err error) {
				code = fault.CodeOf(err)
				answered.Add(1)
			})
			c.pump("the freeze is in the log", func() bool { return old.group().core.InFlight() > 0 })
			write, answers := old.submit(testOp(keyIn(leaving, 0), "v"))
			c.pump("the write behind it is refused", func() bool { return answers.Load() > 0 })
			mustBe(t, write.Err, fault.Unavailable)
			c.pump("another leads", func() bool { n := c.serving(); return n != nil && n != old })
			c.drop = nil
			c.pump("the old leader knows", func() bool { return answered.Load() == 1 })
			if code != fault.UnknownOutcome {
				t.Fatalf("answered %q", code)
			}
			c.settle()
			if frozen := c.serving().slots().Frozen(1000); frozen != kept {
				t.Fatalf("frozen: %v", frozen)
			}
			if n := c.mustStep(freezing()).Nonce; n == 0 {
				t.Fatal("asked again, and not frozen")
			}
			c.mustHaveSlots()
		})
	}
}

// DESIGN 7: a read sees the ownership of its own moment, on any replica, at any
// level.
func TestReadsOfWhatLeft(t *testing.T) {
	c := newCluster(t, 3, 3, patient)
	gone, kept := keyIn(leaving, 0), keyIn(slotsOf("0-999"), 0)
	c.write(testOp(gone, "v"), testOp(kept, "v"))
	follower := c.nodes[1]
	before := c.readPoint(follower)
	nonce := c.mustStep(freezing()).Nonce
	c.mustGet(follower, gone, "v") // frozen is not gone
	past := c.readPoint(follower).Rev
	c.mustStep(leavingBy(nonce))
	for _, n := range c.nodes {
		_, err := c.get(n, gone)
		mustBe(t, err, fault.WrongGroup)
		c.mustGet(n, kept, "v")
	}
	if rec, err := c.getAt(follower, before, gone); err != nil || string(rec.Value) != "v" {
		t.Fatalf("a read that was permitted before: %v", err)
	}
	c.settle()
	c.pass(2 * time.Second)
	stale, err := follower.host.StaleRead(testGroup, time.Minute)
	mustBe(t, err, "")
	_, err = c.getAt(follower, stale, gone)
	mustBe(t, err, fault.WrongGroup)
	old, err := follower.host.PointAt(testGroup, past)
	mustBe(t, err, "")
	_, err = c.getAt(follower, old, gone)
	mustBe(t, err, fault.WrongGroup)
	if rec, err := c.getAt(follower, old, kept); err != nil || string(rec.Value) != "v" {
		t.Fatalf("in the past: %v", err)
	}

	keys := []string{kept, gone, "absent in " + kept, kept}
	var codes []fault.Code
	p := c.readPoint(follower)
	c.call("keys are read", func() {
		err = follower.host.GetEach(context.Background(), p, keyspace.DefaultNamespace, len(keys), func(i int) string { return keys[i] }, false,
			func(i int, rec *format.Record, err error) bool {
				if i != len(codes) || (rec == nil) != (fault.CodeOf(err) == fault.WrongGroup) {
					t.Errorf("key %d: record %v with %v", i, rec, err)
				}
				codes = append(codes, fault.CodeOf(err))
				return true
			})
	})
	if want := []fault.Code{"", fault.WrongGroup, codes[2], ""}; err != nil || !slices.Equal(codes, want) {
		t.Fatalf("%v: %q", err, codes)
	}
	if s := follower.host.SlotStates()[testGroup]; s == nil || s.Owned.Has(1000) || follower.host.Groups()[0].Slots != s {
		t.Fatalf("published: %+v", s)
	}
}

// A read that a follower began before the slots left, and that is confirmed at an
// index behind that, is refused: another group may have new values by then.
func TestReadConfirmedBehindTheLeave(t *testing.T) {
	c := newCluster(t, 3, 3, patient)
	gone := keyIn(leaving, 0)
	c.write(testOp(gone, "v"))
	c.settle()
	late := c.nodes[2]
	lag := true
	c.drop = func(_, to *node, m *api.GroupMessage) bool { return lag && to == late && m.GetRaft() != nil }
	c.mustStep(leavingBy(c.mustStep(freezing()).Nonce))
	if late.slots().Out != nil {
		t.Fatal("the follower does not lag")
	}
	var p ReadPoint
	var err error
	var done atomic.Bool
	late.host.ReadIndex(context.Background(), testGroup, func(at ReadPoint, e error) { p, err = at, e; done.Store(true) })
	for range 20 {
		c.step()
	}
	lag = false
	c.pump("the read is confirmed", done.Load)
	if err != nil || !p.Slots.Gone.Has(1000) {
		t.Fatalf("confirmed with %+v, %v", p.Slots, err)
	}
	_, err = c.getAt(late, p, gone)
	mustBe(t, err, fault.WrongGroup)
}

// sent is the revision of the first record that comes.
const sent = keyspace.Revision(testWall<<16 + 100)

// exported is a page as another group would give it.
func exported(keys int, value func(i int) string) (page []format.ExportKey) {
	for i := range keys {
		v := value(i)
		rec := format.Record{Header: format.Header{Version: 1, Created: 5, Size: uint64(len(v)), Checksum: format.CRC32C([]byte(v))}, Value: []byte(v)}
		x := format.ExportVersion{Revision: sent + keyspace.Revision(i)}
		if len(v) > 1000 {
			rec.Flags, rec.Value, rec.Chunks = format.FlagChunked, nil, format.ChunkRef{Upload: 9, Count: uint32((len(v) + 799) / 800)}
			for rest := []byte(v); len(rest) > 0; rest = rest[min(800, len(rest)):] {
				x.Chunks = append(x.Chunks, rest[:min(800, len(rest))])
			}
		}
		x.Value = format.AppendRecord(nil, &rec)
		page = append(page, format.ExportKey{Key: keyspace.AppendDataKey(nil, keyspace.DefaultNamespace, []byte(keyIn(leaving, i))), Versions: []format.ExportVersion{x}})
	}
	return page
}

// comingTo founds the groups without the slots.
func comingTo(c *cluster) { c.without = leaving }

// A move to a group: pages of any size, the cursor with the last of their
// entries, a crash between them, a snapshot to a follower that missed all, and in
// the end the group serves what came, on all replicas alike.
func TestImportAndAccept(t *testing.T) {
	c := newCluster(t, 3, 3, comingTo, func(c *cluster) {
		c.opt = func(o *Options) { o.MaxEntryBytes, o.LogBytes, o.LogTail = 4000, 1, 1 }
		c.store.SealBytes = 5000
	})
	values := func(i int) string { return strings.Repeat(fmt.Sprint(i, ","), 1+i*13) }
	pages := exported(60, values)
	begin := format.SlotChange{Kind: format.SlotBegin, Move: 8, Peer: 2, Slots: leaving}
	c.mustStep(begin)
	mustBe(t, c.try(keyIn(leaving, 0)), fault.WrongGroup)
	late := c.nodes[2]
	instance := late.group().instance.id
	late.stop()
	load := func(keys []format.ExportKey, cursor string, done bool) error {
		var err error
		change := format.SlotChange{Kind: format.SlotImport, Move: 8, Base: 4, Rev: 1000, Cursor: []byte(cursor), Done: done, Floor: sent - 10}
		lead := c.serving().host
		c.call("a page is imported", func() { err = lead.ImportSlots(context.Background(), testGroup, change, keys) })
		return err
	}
	before := c.serving().group().core.State().Index
	mustBe(t, load(pages[:30], "half", false), "")
	if s := c.serving().group().core.State(); s.Index-before < 4 || string(s.Slots.In.Cursor) != "half" || len(s.Uploads) != 0 {
		t.Fatalf("%d entries, in %+v, uploads %v", s.Index-before, s.Slots.In, s.Uploads)
	}
	c.nodes[1].crash()
	c.pump("a leader serves", func() bool { return c.serving() != nil })
	mustBe(t, load(pages[:35], "half", false), "") // again, and more
	mustBe(t, load(pages[35:], "", true), "")
	for i := range 40 { // let the log go
		c.write(testOp(keyIn(slotsOf("0-999"), i), strings.Repeat("y", 900)))
	}
	c.pump("the log no longer reaches back", func() bool {
		first, err := c.serving().group().storage.FirstIndex()
		return err == nil && keyspace.Index(first) > c.serving().group().core.State().Index-30
	})
	late.open()
	c.mustHaveSlots()
	if late.group().instance.id == instance {
		t.Fatal("the follower that missed all took no snapshot")
	}
	c.mustStep(format.SlotChange{Kind: format.SlotReady, Move: 8, Nonce: 44})
	ceiling := keyspace.RevisionAt(c.Wall() + 2000)
	a := c.mustStep(format.SlotChange{Kind: format.SlotAccept, Move: 8, Nonce: 44, Ceiling: ceiling, Floor: sent - 5})
	if a.Slots.Mixed() || !a.Slots.Owned.Contains(&leaving) {
		t.Fatalf("accepted: %+v", a.Slots)
	}
	for _, n := range c.nodes {
		for i := range 60 {
			c.mustGet(n, keyIn(leaving, i), values(i))
		}
		_, err := n.host.PointAt(testGroup, sent-6)
		mustBe(t, err, fault.OutOfRange)
		p, err := n.host.PointAt(testGroup, sent+10)
		mustBe(t, err, "")
		if rec, err := c.getAt(n, p, keyIn(leaving, 10)); err != nil || string(rec.Value) != values(10) {
			t.Fatalf("in the past: %v", err)
		}
		_, err = c.getAt(n, p, keyIn(leaving, 11))
		mustBe(t, err, fault.NotFound)
	}
	ops := c.write(testOp(keyIn(leaving, 3), "new"))
	if rev := ops[0].Result.Revision; rev <= ceiling || ops[0].Result.Version != 2 {
		t.Fatalf("written as %+v, the sender's ceiling was %v", ops[0].Result, ceiling)
	}
	c.mustAgree()
}

// What a group has and does not own is in no digest: it may be copied while the
// digest looks, below the revision that it looks at.
func TestDigestsCoverOwnedSlots(t *testing.T) {
	c := newCluster(t, 1, 1, comingTo)
	n := c.nodes[0]
	kept := keyIn(slotsOf("0-999"), 0)
	c.write(testOp(kept, "v"))
	hash := func() Digest {
		d, err := n.host.StateHash(context.Background(), testGroup)
		mustBe(t, err, "")
		return Digest{Hash: d.Hash, Keys: d.Keys}
	}
	before := hash()
	c.mustStep(format.SlotChange{Kind: format.SlotBegin, Move: 8, Peer: 2, Slots: leaving})
	var err error
	c.call("a page is imported", func() {
		err = n.host.ImportSlots(context.Background(), testGroup, format.SlotChange{Kind: format.SlotImport, Move: 8, Done: true},
			exported(9, func(int) string { return "v" }))
	})
	mustBe(t, err, "")
	if got := hash(); got != before || got.Keys != 1 {
		t.Fatalf("digest %+v with a copy, %+v before", got, before)
	}
	c.mustStep(format.SlotChange{Kind: format.SlotReady, Move: 8, Nonce: 44})
	c.mustStep(format.SlotChange{Kind: format.SlotAccept, Move: 8, Ceiling: 1})
	if got := hash(); got.Keys != 10 {
		t.Fatalf("digest %+v of ten keys", got)
	}
}

// A purge deletes what was given away, in entries of its own.
func TestPurgeOfWhatLeft(t *testing.T) {
	c := newCluster(t, 3, 3, patient)
	var keys []format.ExportKey
	for i := range 20 {
		c.write(testOp(keyIn(leaving, i), strings.Repeat("v", 1+i*200)))
		keys = append(keys, format.ExportKey{Key: keyspace.AppendDataKey(nil, keyspace.DefaultNamespace, []byte(keyIn(leaving, i)))})
	}
	c.mustStep(leavingBy(c.mustStep(freezing()).Nonce))
	purge := func(change format.SlotChange, keys []format.ExportKey) (err error) {
		change.Kind = format.SlotPurged
		lead := c.serving().host
		c.call("a purge goes on", func() { err = lead.ImportSlots(context.Background(), testGroup, change, keys) })
		return err
	}
	mustBe(t, purge(format.SlotChange{}, keys), fault.FailedPrecondition)
	c.mustStep(format.SlotChange{Kind: format.SlotForget, Move: movesOut})
	mustBe(t, purge(format.SlotChange{Move: movesOut, Cursor: keys[9].Key}, keys[:10]), "")
	if s := c.mustHaveSlots(); !s.Purging || string(s.Purged) != string(keys[9].Key) {
		t.Fatalf("half way: %+v", s)
	}
	c.nodes[1].crash()
	c.pump("a leader serves", func() bool { return c.serving() != nil })
	mustBe(t, purge(format.SlotChange{Move: movesOut, Done: true}, keys[10:]), "")
	if s := c.mustHaveSlots(); s.Purging || s.Mixed() {
		t.Fatalf("purged: %+v", s)
	}
	for _, n := range c.nodes {
		if left := n.records(); left != 0 {
			t.Fatalf("node %s still has %d records and chunks", n.id, left)
		}
	}
}

// records counts all that the newest state of the group has on a node.
func (n *node) records() (count int) {
	view := n.host.opt.Store.View()
	defer view.Close()
	it := view.Scan(mvcc.ScanOptions{Instance: n.group().instance.id, At: n.group().core.State().LastRev})
	defer it.Close()
	for ; it.Valid(); it.Next() {
		count++
	}
	return count
}

// A recovered group goes on with its slots, and with the move that it was in.
func TestAdoptionKeepsSlots(t *testing.T) {
	c := newCluster(t, 3, 3, patient)
	nonce := c.mustStep(freezing()).Nonce
	c.settle()
	n := c.nodes[2]
	c.lose(n, c.nodes[0], c.nodes[1])
	c.adopt(n)
	c.pump("the survivor serves", func() bool { return c.serving() == n })
	if s := n.slots(); s.Out == nil || s.Out.Nonce != nonce || !s.Owned.Has(5) {
		t.Fatalf("recovered with %+v", s)
	}
	c.mustStep(leavingBy(nonce))
	n.crash()
	c.pump("it serves again", func() bool { return c.serving() == n })
	mustBe(t, c.try(keyIn(leaving, 0)), fault.WrongGroup)
}

// A page that breaks off moves neither the cursor nor the base, whatever of it is
// in the log.
func TestImportThatBreaksOff(t *testing.T) {
	c := newCluster(t, 1, 1, comingTo, func(c *cluster) {
		c.opt = func(o *Options) { o.MaxEntryBytes = 4000 }
	})
	n := c.nodes[0]
	c.mustStep(format.SlotChange{Kind: format.SlotBegin, Move: 8, Peer: 2, Slots: leaving})
	page := exported(30, func(int) string { return strings.Repeat("v", 500) })
	foreign := page[29]
	foreign.Key = keyspace.AppendDataKey(nil, keyspace.DefaultNamespace, []byte(keyIn(slotsOf("0-999"), 0)))
	change := format.SlotChange{Kind: format.SlotImport, Move: 8, Base: 4, Rev: 1000, Cursor: []byte("c"), Floor: 90}
	load := func(keys []format.ExportKey) (err error) {
		c.call("an import ends", func() { err = n.host.ImportSlots(context.Background(), testGroup, change, keys) })
		return err
	}
	mustBe(t, load(append(page[:29:29], foreign)), fault.InvalidArgument)
	if in := n.slots().In; in.Cursor != nil || in.Base != 0 || in.Rev != 0 || in.Floor != 90 || n.records() == 0 || n.records() >= 29 {
		t.Fatalf("in %+v with %d records", in, n.records())
	}
	mustBe(t, load(page), "")
	if in := n.slots().In; string(in.Cursor) != "c" || in.Base != 4 || in.Rev != 1000 || n.records() != 30 || in.Copied {
		t.Fatalf("in %+v with %d records", in, n.records())
	}
	change.Kind = format.SlotBegin
	mustBe(t, load(nil), fault.InvalidArgument)
}
