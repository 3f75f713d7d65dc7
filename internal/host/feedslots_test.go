package host

import (
	"context"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// A follower is told in log order what its group gave up, and the past of that is
// refused from then on, unless it is asked for what the group itself wrote.
func TestFollowersSeeSlotsLeave(t *testing.T) {
	c := newCluster(t, 3, 3, patient)
	gone, kept := keyIn(leaving, 0), keyIn(slotsOf("0-999"), 0)
	n := c.nodes[1]
	r := &eventReader{c: c, pos: n.group().published.Load().settled}
	from := r.pos
	r.join(n)
	c.write(testOp(gone, "v"))
	a := c.mustStep(leavingBy(c.mustStep(freezing()).Nonce))
	last := c.write(testOp(kept, "v"))[0].Result.Revision
	c.settle()
	c.pump("the replica followed has all", func() bool { return n.group().core.State().LastRev >= last })
	p := r.f.Read(r.at, 1<<20)
	if len(p.Entries) != 3 || p.Entries[0].Left != nil || p.Entries[2].Left != nil {
		t.Fatalf("entries %+v", p.Entries)
	}
	e := p.Entries[1]
	if e.Left == nil || e.Left.Slots != leaving || e.Left.To != 9 || e.Left.Ceiling != a.Ceiling || e.Slots.Owns(1000) || len(e.Writes) != 0 || e.Index != a.Index {
		t.Fatalf("the entry that left is %+v, the answer %+v", e, a)
	}
	past := func(q PastRequest) (page PastPage, err error) {
		q.Group, q.After, q.Until = testGroup, from, keyspace.MaxRevision
		c.call("the past is read", func() { page, err = n.host.Past(context.Background(), q) })
		return page, err
	}
	_, err := past(PastRequest{Slots: &leaving})
	mustBe(t, err, fault.WrongGroup)
	for own, want := range map[bool]int{false: 1, true: 2} {
		page, err := past(PastRequest{Own: own})
		mustBe(t, err, "")
		if len(page.Writes) != want || page.Slots.Owns(1000) {
			t.Errorf("own %t: %d writes, want %d; slots %+v", own, len(page.Writes), want, page.Slots)
		}
	}
}

// What came with slots is in the past of who accepted them, at its own revisions,
// although no entry of the log wrote it so; it is none of the group's own writes.
func TestPastOfSlotsThatCame(t *testing.T) {
	c := newCluster(t, 1, 1, comingTo)
	n := c.nodes[0]
	from := sent - 1
	c.mustStep(format.SlotChange{Kind: format.SlotBegin, Move: 8, Peer: 2, Slots: leaving})
	var err error
	c.call("a page is imported", func() {
		err = n.host.ImportSlots(context.Background(), testGroup, format.SlotChange{Kind: format.SlotImport, Move: 8, Done: true, Floor: from},
			exported(3, func(int) string { return "v" }))
	})
	mustBe(t, err, "")
	past := func(after keyspace.Revision, own bool) (page PastPage, err error) {
		c.call("the past is read", func() {
			page, err = n.host.Past(context.Background(), PastRequest{Group: testGroup, After: after, Until: keyspace.MaxRevision, Own: own})
		})
		return page, err
	}
	page, err := past(from, false)
	mustBe(t, err, "")
	if len(page.Writes) != 0 {
		t.Errorf("%d writes of slots that are not the group's yet", len(page.Writes))
	}
	c.mustStep(format.SlotChange{Kind: format.SlotReady, Move: 8, Nonce: 44})
	c.mustStep(format.SlotChange{Kind: format.SlotAccept, Move: 8, Ceiling: sent + 100, Floor: from})
	for own, want := range map[bool]int{false: 3, true: 0} {
		page, err := past(from, own)
		mustBe(t, err, "")
		if len(page.Writes) != want || !page.Slots.Owned.Contains(&leaving) {
			t.Errorf("own %t: %d writes, want %d", own, len(page.Writes), want)
		}
	}
	_, err = past(from-1, false)
	mustBe(t, err, fault.OutOfRange)
}
