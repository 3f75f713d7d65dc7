package replica

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// span is the keys of a namespace with a prefix.
func span(prefix string) Spans {
	lower := keyspace.AppendDataKey(nil, 1, []byte(prefix))
	return Spans{{Lower: lower[:len(lower)-2], Upper: keyspace.PrefixEnd(lower[:len(lower)-2])}}
}

// The memory of recent keys never says "no change" of what changed, and says it of
// all that it reaches.
func TestRecentKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r recent
		var all []stamped
		at := keyspace.Revision(rapid.IntRange(1, 9).Draw(t, "start"))
		r.reach = at
		long := rapid.Bool().Draw(t, "long keys")
		for range rapid.IntRange(0, 3).Draw(t, "bursts") {
			n := rapid.SampledFrom([]int{1, 5, 100, maxRecent - 1, maxRecent + 7}).Draw(t, "burst")
			for i := range n {
				at += keyspace.Revision(i % 2)
				key := fmt.Sprint(i % 7)
				if long {
					key += strings.Repeat("x", 200)
				}
				r.add(at, string(diskKey(key)))
				all = append(all, stamped{at: at, key: key})
			}
			if len(r.keys)-r.head > maxRecent || r.bytes > maxRecentBytes || cap(r.keys) > 4*maxRecent {
				t.Fatalf("%d keys of %d bytes are kept, room for %d", len(r.keys)-r.head, r.bytes, cap(r.keys))
			}
			since := at - keyspace.Revision(rapid.IntRange(0, min(int(at), 3000)).Draw(t, "back"))
			prefix := rapid.SampledFrom([]string{"0", "3", "5x", "8", ""}).Draw(t, "prefix")
			changed := slices.ContainsFunc(all, func(s stamped) bool { return s.at > since && strings.HasPrefix(s.key, prefix) })
			switch got := r.changed(since, span(prefix)); {
			case changed && !got:
				t.Fatalf("%q changed since %d and the answer is no; reach %d", prefix, since, r.reach)
			case !changed && got && since >= r.reach:
				t.Fatalf("%q did not change since %d and the answer is yes; reach %d", prefix, since, r.reach)
			}
		}
	})
}

func TestSpans(t *testing.T) {
	s := Spans{{Lower: []byte("b"), Upper: []byte("d")}, {Lower: []byte("f"), Upper: []byte("g")}, {Lower: []byte("x")}}
	for key, want := range map[string]bool{"a": false, "b": true, "c": true, "d": false, "e": false, "f": true, "g": false, "x": true, "zz": true} {
		if s.has(key) != want {
			t.Errorf("%q: %v", key, !want)
		}
	}
}

// askClock enqueues a reading of the clock.
func (r *rig) askClock(op *ClockOp) *answer {
	a := &answer{req: &Request{Group: 1, Clock: op}}
	a.req.Done = func(*Request) { a.done = true }
	r.core.Enqueue(a.req)
	return a
}

// read asks and confirms.
func (r *rig) read(op *ClockOp) *ClockOp {
	r.t.Helper()
	a := r.askClock(op)
	out := r.evaluate()
	r.applyAll()
	if out.Confirm != 0 {
		r.core.Confirmed(r.term, out.Confirm)
	}
	a.mustBe(r.t, true, "")
	return op
}

func (op *ClockOp) since() Reading { return Reading{Term: op.Term, Clock: op.Result} }

// The second reading knows what was stamped since the first, applied or not, and
// nothing of other keys.
func TestReadingsTellWhatChanged(t *testing.T) {
	r := newRig(t)
	r.elect()
	sets := []Spans{span("a/"), span("b/")}
	read := func(since Reading) *ClockOp { return r.read(&ClockOp{Sets: sets, Since: since}) }
	for name, c := range map[string]struct {
		between func()
		want    []int
	}{
		"nothing":        {func() {}, nil},
		"another key":    {func() { r.submit(put("c/1", "v")) }, nil},
		"one":            {func() { r.submit(put("a/1", "v")) }, []int{0}},
		"a set":          {func() { r.submit(put("a/1", "w"), put("b/1", "w")) }, []int{0, 1}},
		"a deletion":     {func() { r.submit(Op{Delete: true, Namespace: 1, Key: "b/1"}) }, []int{1}},
		"a refusal":      {func() { r.submit(putIfAbsent("a/1", "x")) }, nil},
		"in flight":      {func() { r.submit(put("b/2", "v")); r.evaluate() }, []int{1}},
		"another leader": {func() { r.electLater() }, []int{0, 1}},
		"slots found": {func() {
			r.core.Enqueue(&Request{Group: 1, Slots: &SlotOp{Change: format.SlotChange{Kind: format.SlotFound, Slots: allSlots()}}})
			r.evaluate()
		}, []int{0, 1}},
	} {
		r.submit(put("a/1", "v"), put("b/1", "v"))
		r.evaluate()
		r.applyAll()
		first := read(Reading{})
		if len(first.Unsettled) != 0 {
			t.Fatalf("%s: %v are locked", name, first.Unsettled)
		}
		c.between()
		if got := read(first.since()).Unsettled; !slices.Equal(got, c.want) {
			t.Errorf("%s: %v changed, want %v", name, got, c.want)
		}
	}
}

// electLater is elect when time has caught up with the ceiling.
func (r *rig) electLater() {
	r.now.Physical += 5000
	r.now.Mono += 5 * time.Second
	r.elect()
}

func allSlots() (s format.SlotSet) {
	s.AddRange(0, keyspace.SlotCount-1)
	return s
}

// A record whose time ended after the first reading, and that was swept before the
// second one, is a change, also of held keys; one that was gone before is none.
func TestReadingsAndSweeps(t *testing.T) {
	for _, hold := range []uint64{0, 5} {
		for _, ended := range []int64{0, 2000} { // when the time of the record ends: before the first reading, or after
			r := newRig(t)
			r.elect()
			r.submit(expiring("a/1", "v", time.Second))
			r.settle()
			r.now.Physical += 2000 - ended
			r.raise()
			first := r.read(&ClockOp{Sets: []Spans{span("a/")}, Hold: hold})
			r.now.Physical += ended
			r.raise()
			index, _ := r.deadlines()
			if got := r.sweep(false, index...); got.Swept != 1 {
				t.Fatalf("swept %+v", got)
			}
			second := r.read(&ClockOp{Sets: []Spans{span("a/")}, Hold: hold, Since: first.since()})
			if changed := len(second.Unsettled) > 0; changed != (ended > 0) {
				t.Errorf("hold %d, time ended %d ms after the reading: changed is %v", hold, ended-1000, changed)
			}
		}
	}
}

// What is prepared on a key, applied or not, locks it for a first reading, and is a
// change for a second one. What is committed is there once it locks nothing.
func TestReadingsTellWhatIsLocked(t *testing.T) {
	r := newRig(t)
	r.elect()
	sets := []Spans{span("a/"), span("b/"), span("c/"), {{Lower: diskKey("b/7"), Upper: append(diskKey("b/7"), 0)}, span("x/")[0]}}
	read := func(since Reading, want ...int) *ClockOp {
		t.Helper()
		op := r.read(&ClockOp{Sets: sets, Since: since})
		if !slices.Equal(op.Unsettled, want) {
			t.Fatalf("%v are unsettled, want %v", op.Unsettled, want)
		}
		return op
	}
	first := read(Reading{})
	p := r.prepareTxn(aTxn(1), TxnOp{Checks: []Op{check("a/7", atVersion(0))}, Then: []Op{put("b/7", "v")}})
	r.evaluate()
	read(Reading{}, 1, 3)
	read(first.since(), 1, 3)
	r.settle()
	read(Reading{}, 1, 3)
	p.mustSay(t, "prepared true true true")
	at := p.req.Order.Result.Stamp + keyspace.RevisionAt(50)
	r.commitTxn(aTxn(1), at, twophase.Then)
	r.evaluate()
	last := read(Reading{})
	if last.Result < at || r.core.state.LastRev < at {
		t.Fatalf("committed at %v, the clock says %v, the last revision is %v", at, last.Result, r.core.state.LastRev)
	}
	read(first.since(), 1, 3)
	read(last.since())
}

// Readings have those transactions finished that have been prepared for a while.
func TestReadingsHaveOldTransactionsFinished(t *testing.T) {
	r := newRig(t)
	told := 0
	r.core.cfg.Blocked = func(*format.Prepared) { told++ }
	r.elect()
	r.prepareTxn(aTxn(1), TxnOp{Then: []Op{put("b/7", "v")}})
	r.settle()
	for name, c := range map[string]struct {
		set  Spans
		wait int64
		want int
	}{"at once": {span("b/"), 0, 0}, "later": {span("b/"), 10, 1}, "other keys": {span("c/"), 10, 0}} {
		told = 0
		now := r.now
		r.now.Physical += c.wait
		r.read(&ClockOp{Sets: []Spans{c.set}})
		if r.now = now; told != c.want {
			t.Errorf("%s: told %d times", name, told)
		}
	}
}

// A hold keeps transactions from being prepared, and from nothing else: what is
// prepared already ends.
func TestHoldsAndTransactions(t *testing.T) {
	r := newRig(t)
	r.elect()
	old := r.prepareTxn(aTxn(1), TxnOp{Then: []Op{put("a/1", "v")}})
	doomed := r.prepareTxn(aTxn(2), TxnOp{Then: []Op{put("a/2", "v")}})
	r.settle()
	doomed.mustSay(t, "prepared true true true")
	sets := []Spans{span("a/")}
	if op := r.read(&ClockOp{Sets: sets, Hold: 5}); len(op.Unsettled) != 1 {
		t.Fatal("nothing is locked")
	}
	next := r.prepareTxn(aTxn(3), TxnOp{Then: []Op{put("a/3", "v")}})
	elsewhere := r.prepareTxn(aTxn(4), TxnOp{Then: []Op{put("b/3", "v")}})
	refused := r.order(OrderOp{Kind: OrderRefuse, Key: aTxn(5)}, nil)
	poisoned := r.order(OrderOp{Kind: OrderPoison, Key: aTxn(6)}, nil)
	r.commitTxn(aTxn(1), old.req.Order.Result.Stamp+50, twophase.Then)
	abort := r.order(OrderOp{Kind: OrderAbort, Key: aTxn(2)}, nil)
	r.settle()
	next.mustBe(t, false, "")
	for _, a := range []*answer{elsewhere, refused, poisoned, abort} {
		a.mustBe(t, true, "")
	}
	first := r.read(&ClockOp{Sets: sets, Hold: 5})
	second := r.read(&ClockOp{Sets: sets, Hold: 5, Since: first.since()})
	if len(first.Unsettled)+len(second.Unsettled) > 0 {
		t.Fatalf("unsettled: %v, then %v", first.Unsettled, second.Unsettled)
	}
	r.settle()
	next.mustSay(t, "prepared true true true")
}

// A request that is held is not remembered before it is carried out, and ends at
// its deadline.
func TestHeldRequestsAreNotRemembered(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.read(&ClockOp{Sets: []Spans{span("a/")}, Hold: 5})
	a := &answer{req: &Request{Group: 1, Ops: []Op{put("a/1", "v")}, ID: aTxn(1).ID, Deadline: r.now.Mono + 10*time.Millisecond}}
	a.req.Done = func(*Request) { a.done = true }
	for op := range a.req.Records {
		r.fetch(op)
	}
	r.fetch(&a.req.Ops[0])
	r.core.Enqueue(a.req)
	r.settle()
	a.mustBe(t, false, "")
	r.now.Mono += 11 * time.Millisecond
	r.core.Expire(r.now.Mono)
	a.mustBe(t, true, fault.DeadlineExceeded)
	r.now.Mono += maxHold
	r.settle()
	if n := len(r.core.lead.holds.held); n != 0 {
		t.Fatalf("%d are held", n)
	}
	if r.core.lead.overlay.find(a.req.named().DiskKey()) != nil {
		t.Fatal("the outcome of a request that was not carried out is remembered")
	}
}

// A hold keeps keys as they are until the second reading, and time; not other
// keys.
func TestHold(t *testing.T) {
	r := newRig(t)
	r.elect()
	first := r.read(&ClockOp{Sets: []Spans{span("a/")}, Hold: 5, AtLeast: keyspace.RevisionAt(wall + 10)})
	if first.Result != keyspace.RevisionAt(wall+10) {
		t.Fatalf("the clock says %v", first.Result)
	}
	held, free := r.submit(put("a/1", "v")), r.submit(put("b/1", "v"))
	txn := &answer{req: &Request{Group: 1, Txn: &TxnOp{Checks: []Op{put("a/2", "")}, Then: []Op{put("b/2", "v")}}}}
	txn.req.Done = func(*Request) { txn.done = true }
	r.fetch(&txn.req.Txn.Checks[0])
	r.fetch(&txn.req.Txn.Then[0])
	r.core.Enqueue(txn.req)
	r.evaluate()
	r.applyAll()
	held.mustBe(t, false, "")
	txn.mustBe(t, false, "")
	free.mustBe(t, true, "")
	r.now.Physical += 25
	r.now.Mono += 25 * time.Millisecond
	if still := r.core.Still(r.now); still.Physical != wall+10 {
		t.Fatalf("time went on by %d ms", still.Physical-wall)
	}
	if left := r.core.HoldLeft(r.now.Mono); left != maxHold-25*time.Millisecond {
		t.Fatalf("the hold lasts for another %v", left)
	}
	r.now = r.core.Still(r.now)
	second := r.read(&ClockOp{Sets: []Spans{span("a/")}, Hold: 5, Since: first.since(), AtLeast: first.Result})
	if len(second.Unsettled) != 0 || second.Result.UnixMilli() != wall+10 {
		t.Fatalf("after a hold %v changed, the clock says %v", second.Unsettled, second.Result)
	}
	r.evaluate()
	r.applyAll()
	held.mustBe(t, true, "")
	txn.mustBe(t, true, "")
	if r.core.Still(Now{Physical: wall + 30}).Physical != wall+30 || r.core.HoldLeft(r.now.Mono) != 0 {
		t.Fatal("the hold is still there")
	}
}

// A hold that nobody ends lets writes through after maxHold, one after the other
// does not add up, and a change of leader ends it at once.
func TestHoldEnds(t *testing.T) {
	r := newRig(t)
	r.elect()
	hold := func(id uint64) *ClockOp { return r.read(&ClockOp{Sets: []Spans{span("a/")}, Hold: id}) }
	first := hold(1)
	held := r.submit(put("a/1", "v"))
	r.evaluate()
	r.now.Mono += maxHold * 3 / 4
	second := hold(2)
	r.evaluate()
	r.applyAll()
	held.mustBe(t, false, "")
	r.now.Mono += maxHold / 4
	r.evaluate()
	r.applyAll()
	held.mustBe(t, true, "")
	for id, since := range map[uint64]Reading{1: first.since(), 2: second.since()} {
		if got := r.read(&ClockOp{Sets: []Spans{span("a/")}, Hold: id, Since: since}); len(got.Unsettled) == 0 {
			t.Errorf("hold %d was broken, and nothing changed", id)
		}
	}
	hold(3)
	held = r.submit(put("a/1", "v"))
	r.evaluate()
	r.core.StepDown(fault.New(fault.Unavailable, "leadership changed"))
	held.mustBe(t, true, fault.Unavailable)
	r.electLater()
	next := r.submit(put("a/1", "v"))
	r.evaluate()
	r.applyAll()
	next.mustBe(t, true, "")
}

// What holds keep counts as what waits, and holds are bounded.
func TestHoldsAreBounded(t *testing.T) {
	r := newRig(t)
	r.elect()
	for id := range uint64(maxHolds + 5) {
		r.read(&ClockOp{Sets: []Spans{span("a/")}, Hold: id + 1})
	}
	if n := len(r.core.lead.holds.active); n != maxHolds {
		t.Fatalf("%d holds", n)
	}
	var last *answer
	for i := range 9 { // one more than the queue has room for
		last = r.submit(put(fmt.Sprint("a/", i), "v"))
		r.evaluate()
	}
	last.mustBe(t, true, fault.Overloaded)
}
