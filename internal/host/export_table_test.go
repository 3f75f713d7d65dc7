package host

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

func allSlots() (s format.SlotSet) {
	s.AddRange(0, keyspace.SlotCount-1)
	return s
}

// A key that was overwritten without end goes with its newest versions, and the
// page says from where on its history is whole.
func TestExportCutsHistories(t *testing.T) {
	m := newMove(t, func(c *cluster) { c.store.SealBytes = 64 << 20 })
	h := &history{slotMove: m}
	const versions, size = 5, 300_000 // chunked; three fit
	h.write("small", 10, false, 0)
	for i := range versions {
		h.write("hot", size, false, i)
	}
	m.pageBytes = 2 << 20
	m.begin(allSlots())
	m.view()
	page := m.export(nil)
	if len(page.Keys) != 2 || len(page.Keys[0].Versions) != 3 || len(page.Keys[1].Versions) != 1 || !page.Done {
		t.Fatalf("%d keys, %t", len(page.Keys), page.Done)
	}
	if want := h.revs[3]; page.Floor != want || page.Keys[0].Versions[0].Revision != want {
		t.Fatalf("floor %v, oldest %v, want %v", page.Floor, page.Keys[0].Versions[0].Revision, want)
	}
	if got := len(page.Keys[0].Versions[0].Chunks); got != size/1000 {
		t.Fatalf("%d chunks", got)
	}
	m.take(&page, nil)
	if m.floor != h.revs[3] {
		t.Fatalf("floor %v after the merge", m.floor)
	}
	m.mustEqual(h.revs)
}

// One value larger than a page is a page.
func TestExportTakesLargeValuesWhole(t *testing.T) {
	m := newMove(t, func(c *cluster) { c.store.SealBytes = 64 << 20 })
	h := &history{slotMove: m}
	h.write("a", 3<<20, false, 0)
	h.write("b", 10, false, 0)
	m.begin(allSlots())
	m.view()
	page := m.export(nil)
	if len(page.Keys) != 1 || len(page.Keys[0].Versions[0].Chunks) != 3<<20/1000+1 || page.Done {
		t.Fatalf("%d keys", len(page.Keys))
	}
	if page = m.export(page.Last); len(page.Keys) != 1 || !page.Done {
		t.Fatalf("%d keys, done %t", len(page.Keys), page.Done)
	}
}

// Pages end where they have looked at enough, with nothing found or not, and in the
// end every key of the slots has come once.
func TestExportVisitsAreBounded(t *testing.T) {
	m := newMove(t, func(c *cluster) { c.opt = func(o *Options) { o.ScanRecords = 10 } })
	h := &history{slotMove: m}
	for i := range 60 {
		h.write(fmt.Sprintf("foreign%03d", i), 10, false, 0)
	}
	for i := range 40 { // more versions of one key than a page visits
		h.write("many", 10, false, i%26)
	}
	h.write("mine", 10, false, 0)
	var slots format.SlotSet
	slots.Add(keyspace.SlotOf(keyspace.DefaultNamespace, "mine"))
	m.begin(slots)
	m.view()
	var got []string
	pages := 0
	for after, done := []byte(nil), false; !done; pages++ {
		page := m.export(after)
		for _, k := range page.Keys {
			_, key, err := keyspace.DecodeDataKey(k.Key)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(key))
		}
		if !page.Done && string(page.Last) <= string(after) {
			t.Fatalf("a page behind %x reaches %x", after, page.Last)
		}
		after, done = page.Last, page.Done
	}
	if !slices.Equal(got, []string{"mine"}) || pages < 6 {
		t.Fatalf("%q in %d pages", got, pages)
	}
}

// A follower serves pages once it has applied what they need.
func TestFollowersExport(t *testing.T) {
	c := newCluster(t, 3, 3)
	leader, follower := c.nodes[0], c.nodes[1]
	c.drop = func(_, to *node, _ *api.GroupMessage) bool { return to == follower }
	c.write(testOp("a", "of a"))
	var r ClockReading
	c.call("the clock", func() { r, _ = leader.host.Clock(context.Background(), testGroup, 0) })
	request := ExportRequest{Group: testGroup, Slots: allSlots(), Rev: r.Clock, Index: r.Index}
	changed := ChangedRequest{Group: testGroup, Slots: allSlots(), From: bootstrapIndex, To: r.Index}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := follower.host.ExportSlots(ended, request); fault.CodeOf(err) != fault.DeadlineExceeded {
		t.Fatalf("a follower that lags: %v", err)
	}
	c.drop = nil
	for _, n := range c.nodes {
		var page, tail ExportPage
		var err, tailErr error
		c.call("pages", func() {
			page, err = n.host.ExportSlots(context.Background(), request)
			tail, tailErr = n.host.ExportChanged(context.Background(), changed)
		})
		if err != nil || tailErr != nil || len(page.Keys) != 1 || len(tail.Keys) != 1 || tail.To != r.Index {
			t.Fatalf("%s: %d keys, %v; %d changed up to %d, %v", n.id, len(page.Keys), err, len(tail.Keys), tail.To, tailErr)
		}
	}
	_, err := follower.host.MergePage(context.Background(), testGroup, &request.Slots, &ExportPage{}, nil, 1)
	mustBe(t, err, fault.WrongLeader)
	c.call("a page", func() { _, err = leader.host.ExportSlots(context.Background(), ExportRequest{Group: 77}) })
	mustBe(t, err, fault.CodeOf(errNotHosted(77)))
}

// The log that was let go does not answer.
func TestChangesOfACompactedLog(t *testing.T) {
	m := newMove(t, func(c *cluster) { c.opt = func(o *Options) { o.LogTail = 1 } })
	h := &history{slotMove: m}
	from := m.published(testGroup).index
	for range 3 { // the log goes up to the checkpoint before the last
		h.write("a", 10, false, 0)
		h.flush()
	}
	to := m.published(testGroup).index
	var err error
	m.call("changes", func() {
		_, err = m.n.host.ExportChanged(context.Background(), ChangedRequest{Group: testGroup, Slots: allSlots(), From: from, To: to})
	})
	mustBe(t, err, fault.OutOfRange)
	m.call("no changes", func() {
		_, err = m.n.host.ExportChanged(context.Background(), ChangedRequest{Group: testGroup, Slots: allSlots(), From: to, To: to})
	})
	mustBe(t, err, "")
}

// An entry with more than a page holds is taken in parts.
func TestChangesOfALargeEntry(t *testing.T) {
	m := newMove(t, func(c *cluster) {
		c.store.SealBytes = 256 << 20
		c.opt = func(o *Options) { o.ChunkBytes, o.LogTail = 128<<10, 100_000 }
	})
	m.begin(allSlots())
	m.view()
	m.must("an empty copy", func(ctx context.Context) error {
		return m.n.host.ImportSlots(ctx, receiver, format.SlotChange{Kind: format.SlotImport, Move: m.id, Base: m.base, Rev: m.rev, Done: true}, nil)
	})
	var ops []replica.Op
	for i := range 4 {
		ops = append(ops, testOp(fmt.Sprint("key", i), strings.Repeat("x", 7<<20)))
	}
	m.write(ops...)
	m.pageBytes = 1
	pages := m.pages
	m.tail()
	if got := m.pages - pages; got < 2 {
		t.Fatalf("%d pages", got)
	}
	m.mustEqual(nil)
}

// Who does not own the slots does not hand them on, and who owns them does not
// receive them.
func TestExportNeedsOwnership(t *testing.T) {
	m := newMove(t)
	slots := allSlots()
	var err error
	m.call("a page", func() {
		_, err = m.n.host.ExportSlots(context.Background(), ExportRequest{Group: receiver, Slots: slots, Rev: keyspace.MaxRevision})
	})
	mustBe(t, err, fault.FailedPrecondition)
	m.call("changes", func() {
		_, err = m.n.host.ExportChanged(context.Background(), ChangedRequest{Group: receiver, Slots: slots})
	})
	mustBe(t, err, fault.FailedPrecondition)
	_, err = m.n.host.MergePage(context.Background(), testGroup, &slots, &ExportPage{}, nil, 1)
	mustBe(t, err, fault.FailedPrecondition)
}

// disk is the disk key of a key.
func disk(key string) []byte {
	return keyspace.AppendDataKey(nil, keyspace.DefaultNamespace, []byte(key))
}

// A receiver that has more than the sender, which lost it with a quorum.
func TestMergeHidesWhatTheSenderLost(t *testing.T) {
	rec := func(value string) []byte {
		return format.AppendRecord(nil, &format.Record{Header: format.Header{Version: 1, Size: uint64(len(value)), Checksum: format.CRC32C([]byte(value))}, Value: []byte(value)})
	}
	versions := func(revs ...keyspace.Revision) (all []format.ExportVersion) {
		for _, rev := range revs {
			all = append(all, format.ExportVersion{Revision: rev, Value: rec(fmt.Sprint(uint64(rev)))})
		}
		return all
	}
	show := func(keys []format.ExportKey) (s string) {
		for _, k := range keys {
			_, name, _ := keyspace.DecodeDataKey(k.Key)
			s += string(name)
			for _, v := range k.Versions {
				value := "-"
				if !v.Delete {
					r, err := format.DecodeRecord(v.Value, v.Revision)
					if err != nil {
						t.Fatal(err)
					}
					value = string(r.Value)
				}
				s += fmt.Sprintf(" %d=%s", uint64(v.Revision), value)
			}
			s += ";"
		}
		return s
	}
	const at = keyspace.Revision(100)
	for _, c := range []struct {
		name      string
		own, page []keyspace.Revision
		deleted   keyspace.Revision // of the receiver's
		want      string
		floor     keyspace.Revision
		refused   bool
	}{
		{name: "nothing here", page: []keyspace.Revision{3, 5}, want: "k 3=3 5=5;"},
		{name: "all here", own: []keyspace.Revision{3, 5}, page: []keyspace.Revision{3, 5}},
		{name: "newer ones missing", own: []keyspace.Revision{3}, page: []keyspace.Revision{3, 5, 7}, want: "k 5=5 7=7;"},
		{name: "older ones forgotten by the sender", own: []keyspace.Revision{1}, page: []keyspace.Revision{3, 5}, want: "k 3=3 5=5;"},
		{name: "lost by the sender", own: []keyspace.Revision{3}, want: "k 100=-;", floor: at},
		{name: "lost and deleted here", own: []keyspace.Revision{3}, deleted: 50},
		{name: "newest lost", own: []keyspace.Revision{3, 9}, page: []keyspace.Revision{3}, want: "k 100=3;", floor: at},
		{name: "one in between lost", own: []keyspace.Revision{3, 6}, page: []keyspace.Revision{3, 8}, want: "k 8=8;", floor: 8},
		{name: "deleted here, there again", own: []keyspace.Revision{3}, deleted: 50, page: []keyspace.Revision{60}, want: "k 60=60;"},
		{name: "from the future", own: []keyspace.Revision{3, 100}, page: []keyspace.Revision{3}, refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMove(t)
			slots := allSlots()
			m.n.host.control(func() {
				inst := m.n.host.groups[receiver].instance.id
				for _, v := range versions(c.own...) {
					m.n.host.opt.Store.Insert(inst, disk("k"), v.Revision, v.Value, false)
				}
				if c.deleted != 0 {
					m.n.host.opt.Store.Insert(inst, disk("k"), c.deleted, nil, true)
				}
			})
			m.pass(1e8)
			page := ExportPage{Done: true}
			if len(c.page) > 0 {
				page.Keys = []format.ExportKey{{Key: disk("k"), Versions: versions(c.page...)}}
			}
			keys, err := m.n.host.MergePage(context.Background(), receiver, &slots, &page, nil, at)
			if (err != nil) != c.refused || fault.CodeOf(err) != fault.FailedPrecondition && c.refused {
				t.Fatal(err)
			}
			if got := show(keys); !c.refused && (got != c.want || page.Floor != c.floor) {
				t.Fatalf("%q, floor %v; want %q, %v", got, page.Floor, c.want, c.floor)
			}
		})
	}
}

// moveAll takes the slots from the sender to the receiver.
func (m *slotMove) moveAll(slots format.SlotSet) {
	m.t.Helper()
	m.begin(slots)
	if !m.copy(1000, func() {}) {
		m.t.Fatal("the copy does not end")
	}
	step := func(g keyspace.GroupID, c format.SlotChange) (a SlotAnswer) {
		c.Move = m.id
		m.must(fmt.Sprintf("step %d", c.Kind), func(ctx context.Context) (err error) {
			a, err = m.n.host.ChangeSlots(ctx, g, c)
			return err
		})
		return a
	}
	nonce := step(testGroup, format.SlotChange{Kind: format.SlotFreeze, Peer: receiver, Slots: slots}).Nonce
	m.tail()
	step(receiver, format.SlotChange{Kind: format.SlotReady, Nonce: nonce})
	left := step(testGroup, format.SlotChange{Kind: format.SlotLeave, Nonce: nonce, Floor: m.floor})
	step(receiver, format.SlotChange{Kind: format.SlotAccept, Nonce: nonce, Ceiling: left.Ceiling, Floor: left.Floor, LowWater: left.Slots.Out.LowWater})
}

// scanKeys lists what groups have together.
func (m *slotMove) scanKeys(groups ...keyspace.GroupID) (keys []string, page ScanPage) {
	m.t.Helper()
	_, rev := m.clocks(m.n, groups, 0)
	return m.scanKeysAt(rev, groups...)
}

// scanKeysAt lists what groups have together at a revision.
func (m *slotMove) scanKeysAt(rev keyspace.Revision, groups ...keyspace.GroupID) (keys []string, page ScanPage) {
	m.t.Helper()
	at, _ := m.clocks(m.n, groups, rev)
	r := ScanRequest{Namespace: keyspace.DefaultNamespace, Revision: rev, Limit: 3}
	for {
		var err error
		page, err = m.n.host.ScanTogether(context.Background(), at, r, func(key []byte, _ *format.Record) { keys = append(keys, string(key)) })
		if err != nil {
			m.t.Fatal(err)
		}
		if r.Start = page.Next; !page.More {
			return keys, page
		}
	}
}

// Before, during and after a move a scan of both groups has every key once, and of
// one group what it owns; then the former owner deletes the rest.
func TestScansOfWhatIsOwned(t *testing.T) {
	m := newMove(t)
	h := &history{slotMove: m}
	for _, k := range moveKeys {
		h.write(k, 10, false, 0)
		h.write(k, 2500, false, 1)
	}
	all := slices.Sorted(slices.Values(moveKeys))
	moved := slotsOfKeys(func(i int) bool { return i%2 == 0 })
	var stay, move []string
	for _, k := range all {
		if moved.Has(keyspace.SlotOf(keyspace.DefaultNamespace, k)) {
			move = append(move, k)
		} else {
			stay = append(stay, k)
		}
	}
	check := func(what string, groups []keyspace.GroupID, want []string, slots format.SlotSet) {
		t.Helper()
		keys, page := m.scanKeys(groups...)
		if !slices.Equal(keys, want) || page.Slots != slots || page.Overlap || page.AnySlots {
			t.Fatalf("%s: %q of slots %v, overlap %t, any %t; want %q", what, keys, page.Slots, page.Overlap, page.AnySlots, want)
		}
	}
	a, b, both := []keyspace.GroupID{testGroup}, []keyspace.GroupID{receiver}, []keyspace.GroupID{testGroup, receiver}
	check("before", both, all, allSlots())
	m.begin(moved)
	m.copy(100, func() {})
	check("while it is copied", both, all, allSlots())
	check("while it is copied, receiver", b, nil, format.SlotSet{})
	m.abort()
	check("given up, receiver", b, nil, format.SlotSet{})
	m.moveAll(moved)
	rest := allSlots().Without(&moved)
	check("moved", both, all, allSlots())
	check("moved, sender", a, stay, rest)
	check("moved, receiver", b, move, moved)
	if keys, _, done, err := m.n.host.LeftoverPage(context.Background(), testGroup, nil, 0); len(keys) > 0 || !done || err != nil {
		t.Fatalf("%d keys to delete before the map knows, %t, %v", len(keys), done, err)
	}
	_, before := m.clocks(m.n, both, 0)
	m.purge()
	check("purged", both, all, allSlots())
	// A list that began before goes on at its revision, where the deletions are not.
	if keys, _ := m.scanKeysAt(before, both...); !slices.Equal(keys, all) {
		t.Fatalf("purged, at a revision before: %q, want %q", keys, all)
	}
	check("purged, sender", a, stay, rest)
	if got := m.image(testGroup, &moved, keyspace.MaxRevision); len(got) > 0 {
		t.Fatalf("the former owner has %q", got)
	}
}

// purge ends the move at the sender, two keys at a time.
func (m *slotMove) purge() {
	m.t.Helper()
	m.must("the sender forgets", func(ctx context.Context) error {
		_, err := m.n.host.ChangeSlots(ctx, testGroup, format.SlotChange{Kind: format.SlotForget, Move: m.id})
		return err
	})
	for after, done := []byte(nil), false; !done; {
		var keys []format.ExportKey
		var err error
		var last []byte
		if keys, last, done, err = m.n.host.LeftoverPage(context.Background(), testGroup, after, 2); err != nil || len(keys) > 2 {
			m.t.Fatalf("%d keys, %v", len(keys), err)
		}
		m.must("keys are deleted", func(ctx context.Context) error {
			return m.n.host.ImportSlots(ctx, testGroup, format.SlotChange{Kind: format.SlotPurged, Move: m.id, Cursor: last, Done: done}, keys)
		})
		after = last
	}
}

// Two groups that both believe to own a slot, and one that knows no slots.
func TestScanPagesTellWhatTheyCover(t *testing.T) {
	c := newCluster(t, 1, 1, func(c *cluster) { c.more = []keyspace.GroupID{2} })
	c.pump("both are led", func() bool {
		p := c.nodes[0].host.lookup(2).published.Load()
		return p != nil && p.serving
	})
	m := &slotMove{cluster: c, n: c.nodes[0]}
	if _, page := m.scanKeys(testGroup, 2); !page.Overlap || page.Slots != allSlots() {
		t.Fatalf("overlap %t, %v", page.Overlap, page.Slots)
	}
	c.nodes[0].host.control(func() {
		g := c.nodes[0].host.groups[2]
		g.core.State().Slots = nil
		c.nodes[0].host.publish(g)
	})
	c.pass(1e8)
	if _, page := m.scanKeys(testGroup, 2); page.Overlap || !page.AnySlots {
		t.Fatalf("overlap %t, any %t", page.Overlap, page.AnySlots)
	}
}
