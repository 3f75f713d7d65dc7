package host

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/replica"
)

// receiver receives slots of testGroup in these tests.
const receiver = newGroup

// slotMove drives a move of slots from testGroup to receiver, both led by one node,
// as far as its records go.
type slotMove struct {
	*cluster
	n     *node
	id    format.MoveID
	slots format.SlotSet
	// pageBytes bounds pages; 0 for the default.
	pageBytes int
	rev       keyspace.Revision
	base      keyspace.Index
	floor     keyspace.Revision
	pages     int
}

func newMove(t *testing.T, change ...func(*cluster)) *slotMove {
	t.Helper()
	// Simulated time passes while the test works: no freeze is too long by itself.
	patient := func(c *cluster) { c.opt = func(o *Options) { o.MaxFreeze = time.Hour } }
	c := newCluster(t, 1, 1, append([]func(*cluster){patient}, change...)...)
	m := &slotMove{cluster: c, n: c.nodes[0]}
	m.must("the new group is founded", func(ctx context.Context) error {
		return m.n.host.FoundGroup(ctx, GroupSeed{Group: receiver, Members: []format.Member{{Replica: 1, Node: m.n.id}}, Self: 1})
	})
	m.led()
	return m
}

// led waits until the node serves both groups.
func (m *slotMove) led() {
	m.t.Helper()
	m.pump("both groups are led", func() bool {
		return !slices.ContainsFunc([]keyspace.GroupID{testGroup, receiver}, func(id keyspace.GroupID) bool {
			p := m.published(id)
			return p == nil || !p.serving
		})
	})
}

func (m *slotMove) published(id keyspace.GroupID) *published {
	g := m.n.host.lookup(id)
	if g == nil {
		return nil
	}
	return g.published.Load()
}

// must runs a blocking call that has to succeed.
func (m *slotMove) must(what string, f func(context.Context) error) {
	m.t.Helper()
	var err error
	m.call(what, func() { err = f(context.Background()) })
	if err != nil {
		m.t.Fatalf("%s: %v", what, err)
	}
}

// begin opens the next move.
func (m *slotMove) begin(slots format.SlotSet) {
	m.t.Helper()
	m.id, m.slots = m.id+1, slots
	m.must("the move begins", func(ctx context.Context) error {
		_, err := m.n.host.ChangeSlots(ctx, receiver, format.SlotChange{Kind: format.SlotBegin, Move: m.id, Peer: testGroup, Slots: slots})
		return err
	})
}

// abort gives the move up and leaves what was copied behind.
func (m *slotMove) abort() {
	m.t.Helper()
	m.must("the move is given up", func(ctx context.Context) error {
		_, err := m.n.host.ChangeSlots(ctx, receiver, format.SlotChange{Kind: format.SlotAbort, Move: m.id, Peer: testGroup})
		return err
	})
}

// view takes a new view for the copy.
func (m *slotMove) view() {
	m.t.Helper()
	m.must("the clock", func(ctx context.Context) error {
		r, err := m.n.host.Clock(ctx, testGroup, 0)
		if m.base == 0 {
			m.base = r.Index
		}
		m.rev = r.Clock
		return err
	})
}

// export reads a page, of a new view when the floor has passed the present one.
func (m *slotMove) export(after []byte) (page ExportPage) {
	m.t.Helper()
	m.must("a page", func(ctx context.Context) (err error) {
		page, err = m.n.host.ExportSlots(ctx, ExportRequest{Group: testGroup, Slots: m.slots, Rev: m.rev, Index: m.base, After: after, MaxBytes: m.pageBytes})
		if fault.CodeOf(err) == fault.OutOfRange {
			err, page.Last = nil, nil
			page.To = 1 // no range has it
		}
		return err
	})
	if page.To != 0 {
		m.view()
		return m.export(after)
	}
	return m.wire(page)
}

// wire sends a page.
func (m *slotMove) wire(page ExportPage) ExportPage {
	m.t.Helper()
	got, err := format.DecodeExportPage(format.AppendExportPage(nil, &page))
	if err != nil {
		m.t.Fatal(err)
	}
	return got
}

// take merges and imports a page.
func (m *slotMove) take(page *ExportPage, after []byte) {
	m.t.Helper()
	var keys []format.ExportKey
	m.must("a page is merged", func(ctx context.Context) (err error) {
		keys, err = m.n.host.MergePage(ctx, receiver, &m.slots, page, after, m.rev)
		return err
	})
	m.floor = max(m.floor, page.Floor)
	m.pages++
	m.must("a page is imported", func(ctx context.Context) error {
		return m.n.host.ImportSlots(ctx, receiver, format.SlotChange{Kind: format.SlotImport, Move: m.id, Base: m.base, Rev: m.rev,
			Cursor: page.Last, Done: page.Done, Floor: page.Floor}, keys)
	})
}

// copy copies up to so many pages; between is called before each.
func (m *slotMove) copy(most int, between func()) (done bool) {
	m.t.Helper()
	m.base, m.floor = 0, 0
	m.view()
	var after []byte
	for range most {
		between()
		page := m.export(after)
		m.take(&page, after)
		if page.Done {
			return true
		}
		after = page.Last
	}
	return false
}

// tail takes what changed since the copy.
func (m *slotMove) tail() {
	m.t.Helper()
	to := m.published(testGroup).index
	var skip uint32
	for from := m.base; from < to; {
		var page ExportPage
		m.must("changes", func(ctx context.Context) (err error) {
			page, err = m.n.host.ExportChanged(ctx, ChangedRequest{Group: testGroup, Slots: m.slots, From: from, To: to, Skip: skip, MaxBytes: m.pageBytes})
			return err
		})
		if page.To < from || page.To == from && page.Skip <= skip {
			m.t.Fatalf("a page from %d, %d reaches %d, %d", from, skip, page.To, page.Skip)
		}
		page = m.wire(page)
		m.take(&page, nil)
		from, skip = page.To, page.Skip
	}
	m.base = to
}

// image is what a group has of slots at a revision, one line a key.
func (m *slotMove) image(id keyspace.GroupID, slots *format.SlotSet, at keyspace.Revision) (lines []string) {
	m.t.Helper()
	view := m.n.host.opt.Store.View()
	defer view.Close()
	inst := m.published(id).instance.id
	it := view.Scan(mvcc.ScanOptions{Instance: inst, Lower: behindKey(nil), Upper: userKeysEnd(), At: at})
	defer it.Close()
	for ; it.Valid(); it.Next() {
		ns, key, err := keyspace.DecodeDataKey(it.Key())
		if err != nil {
			m.t.Fatal(err)
		}
		if slots != nil && !slots.Has(keyspace.SlotOf(ns, string(key))) {
			continue
		}
		value, rev, ok, err := view.Get(inst, bytes.Clone(it.Key()), at)
		if err != nil || !ok || rev != it.Revision() {
			m.t.Fatalf("key %q at %v: %v, %t, %v; a scan has %v", key, at, rev, ok, err, it.Revision())
		}
		rec, err := format.DecodeRecord(value, rev)
		if err == nil {
			err = joinChunks(view, inst, &rec)
		}
		if err != nil {
			m.t.Fatalf("key %q of group %d at %v: %v", key, id, at, err)
		}
		rec.Chunks = format.ChunkRef{}
		lines = append(lines, fmt.Sprintf("%d %q %v %+v %x", ns, key, rev, rec.Header, format.CRC32C(rec.Value)))
	}
	if it.Err() != nil {
		m.t.Fatal(it.Err())
	}
	return lines
}

// mustEqual compares both groups at revisions at which both are whole.
func (m *slotMove) mustEqual(revs []keyspace.Revision) {
	m.t.Helper()
	m.mustBeIndexed(testGroup, m.n)
	m.mustBeIndexed(receiver, m.n)
	floor := max(m.floor, keyspace.Revision(m.n.host.floor.Load()))
	for _, at := range append(revs, floor, m.rev, keyspace.MaxRevision) {
		if at < floor {
			continue
		}
		want, got := m.image(testGroup, &m.slots, at), m.image(receiver, nil, at)
		if !slices.Equal(want, got) {
			m.t.Fatalf("at %v, floor %v, view %v:\nsender   %s\nreceiver %s", at, floor, m.rev,
				strings.Join(want, "\n         "), strings.Join(got, "\n         "))
		}
	}
}

var moveKeys = []string{"a", "a\x00b", "b", "{tag}1", "{tag}2", "c\xff", "d", "ee", "f", "g"}

// slotsOfKeys are those of the keys at which pick is true.
func slotsOfKeys(pick func(i int) bool) (slots format.SlotSet) {
	for i, k := range moveKeys {
		if pick(i) {
			slots.Add(keyspace.SlotOf(keyspace.DefaultNamespace, k))
		}
	}
	return slots
}

// history writes at random to the sender.
type history struct {
	*slotMove
	revs []keyspace.Revision
}

func (h *history) write(key string, size int, del bool, fill int) {
	op := testOp(key, strings.Repeat(string(rune('a'+fill)), size))
	op.TTL = time.Duration(fill%3) * time.Hour
	switch {
	case del:
		op = replica.Op{Delete: true, Namespace: op.Namespace, Key: key}
	case fill%5 == 0 && h.has(key):
		op = replica.Op{Touch: true, Namespace: op.Namespace, Key: key, TTL: op.TTL}
	}
	h.slotMove.write(op)
	h.revs = append(h.revs, h.published(testGroup).readRev)
}

func (h *history) random(t *rapid.T) {
	for range rapid.IntRange(0, 12).Draw(t, "writes") {
		size := rapid.SampledFrom([]int{0, 10, 300, 2500, 5000}).Draw(t, "size") // chunks have 1000
		h.write(rapid.SampledFrom(moveKeys).Draw(t, "key"), size, rapid.IntRange(0, 5).Draw(t, "delete") == 0, rapid.IntRange(0, 25).Draw(t, "fill"))
	}
	switch rapid.IntRange(0, 6).Draw(t, "then") {
	case 0:
		h.flush()
	case 1:
		h.pass(1500e6) // beyond the window
		h.flush()
		h.n.engine.Compact()
	case 2:
		h.n.crash()
		h.led()
	}
}

func (h *history) has(key string) bool {
	rec, _ := h.get(h.n, key)
	return rec != nil
}

// flush writes out all that is in memory.
func (h *history) flush() {
	h.n.host.control(h.n.host.seal)
	h.pump("all is flushed", func() bool { return h.n.host.opt.Store.Sealed() == 0 && !h.n.host.flush.running })
}

// A group's history, whatever happened to it, is the same where it was copied to,
// at every revision that may be read; also over what earlier copies left behind.
func TestCopyEqualsSource(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMove(t, func(c *cluster) {
			c.opt = func(o *Options) {
				o.Window, o.ScanRecords = 1e9, rapid.SampledFrom([]int{3, 20, 50_000}).Draw(rt, "visit")
			}
		})
		defer m.n.stop()
		h := &history{slotMove: m}
		h.random(rt)
		slots := slotsOfKeys(func(i int) bool { return i == 0 || rapid.Bool().Draw(rt, fmt.Sprintf("moves %q", moveKeys[i])) })
		m.pageBytes = rapid.SampledFrom([]int{1, 500, 4000, 0}).Draw(rt, "page bytes")
		for range rapid.IntRange(0, 2).Draw(rt, "copies given up") {
			m.begin(slots)
			if m.copy(rapid.IntRange(0, 4).Draw(rt, "pages"), func() { h.random(rt) }) {
				m.tail()
			}
			m.abort()
			h.random(rt)
		}
		m.begin(slots)
		if !m.copy(200, func() { h.random(rt) }) {
			rt.Fatal("the copy does not end")
		}
		for range rapid.IntRange(1, 3).Draw(rt, "tails") {
			h.random(rt)
			m.tail()
		}
		m.mustEqual(h.revs)
		h.flush()
		m.n.engine.Compact()
		m.mustEqual(h.revs)
	})
}
