package mvcc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/engine/mem"
	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
	"kvstore/internal/sstable"
)

// entry is one version in the model.
type entry struct {
	inst  keyspace.InstanceID
	key   string
	rev   keyspace.Revision
	value string
	del   bool
}

// model is every version ever inserted, by position.
type model map[string]entry

func position(inst keyspace.InstanceID, key string, rev keyspace.Revision) string {
	return fmt.Sprintf("%d %x %d", inst, key, rev)
}

func (m model) insert(e entry) { m[position(e.inst, e.key, e.rev)] = e }

// scan returns what a scan has to return.
func (m model) scan(o ScanOptions) []entry {
	var all []entry
	for _, e := range m {
		if e.inst == o.Instance && e.rev <= o.At && e.key >= string(o.Lower) && (o.Upper == nil || e.key < string(o.Upper)) {
			all = append(all, e)
		}
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].key != all[j].key {
			return all[i].key < all[j].key != o.Reverse
		}
		return all[i].rev > all[j].rev
	})
	if o.AllVersions {
		return all
	}
	var newest []entry
	for i, e := range all {
		if (i == 0 || all[i-1].key != e.key) && !e.del {
			newest = append(newest, e)
		}
	}
	return newest
}

// frozen is a view with the model of its moment.
type frozen struct {
	view  *View
	model model
	last  keyspace.Revision
}

// machine drives a Store and a model by random actions.
type machine struct {
	store  *Store
	model  model
	last   keyspace.Revision
	floor  keyspace.Revision
	views  []frozen
	sealed []DeltaID

	engine  *mem.Mem
	disk    *simfs.FS // nil without a history
	history *sstable.History
	runs    bool
	middle  bool
	log     []logged // what a restart would replay
}

type logged struct {
	entry
	delta DeltaID
	// imported: of a revision that may lie below the floor.
	imported bool
}

func newMachine(t *rapid.T, c modelCase) *machine {
	m := &machine{model: model{}, engine: mem.Open(), runs: c.runs, middle: c.middle}
	if c.history {
		m.disk = simfs.New()
	}
	m.open(t)
	m.tellFlushed(t)
	return m
}

func (m *machine) open(t *rapid.T) {
	o := Options{SealBytes: 1 << 10, MaxSealed: 4, FlushBatchBytes: 200, RecordBytes: recordShards * 2 * (recordBytes + 20)}
	if m.disk != nil {
		var err error
		if m.history, err = sstable.OpenHistory(m.disk, "history", sstable.Options{}); err != nil {
			t.Fatal(err)
		}
		o.History = m.history
	}
	if m.runs {
		var err error
		if o.Runs, err = sstable.OpenRuns(m.disk, "runs", sstable.Options{}); err != nil {
			t.Fatal(err)
		}
		o.MergeRuns, o.SmallBytes, o.LargeBytes, o.ApartBytes = 3, 350, 700, apartBytes
		if m.middle {
			o.SmallBytes = 1 // no run is small
		}
	}
	m.store, m.sealed = New(m.engine, o), nil
}

// draws is an env.Rand.
type draws struct{ t *rapid.T }

func (d draws) Uint64() uint64 { return rapid.Uint64().Draw(d.t, "crash") }

// Crash loses what was not synced and replays what was not flushed.
func (m *machine) Crash(t *rapid.T) {
	m.close()
	m.engine = m.engine.Crash(func(int) bool { return rapid.Bool().Draw(t, "keep") })
	if m.disk != nil {
		m.disk = m.disk.Crash(draws{t})
	}
	m.open(t)
	m.store.SetFloor(m.floor)
	m.tellFlushed(t)
	for i := range m.log {
		e := &m.log[i]
		e.delta = m.store.Active()
		m.store.Insert(e.inst, []byte(e.key), e.rev, []byte(e.value), e.del)
	}
}

// tellFlushed says how far the flushed versions of some instances reach, as
// checkpoints do.
func (m *machine) tellFlushed(t *rapid.T) {
	for inst := keyspace.InstanceID(1); inst <= 3; inst++ {
		var top keyspace.Revision
		for _, e := range m.model {
			replayed := slices.ContainsFunc(m.log, func(l logged) bool { return l.entry == e })
			if e.inst == inst && !replayed {
				top = max(top, e.rev)
			}
		}
		if rapid.Bool().Draw(t, "told") {
			m.store.Flushed(inst, top)
		}
	}
}

// Floor gives up the past, below what a restart would replay.
func (m *machine) Floor(t *rapid.T) {
	limit := m.last
	for _, e := range m.log {
		if !e.imported {
			limit = min(limit, e.rev-1)
		}
	}
	limit = max(limit, m.floor)
	m.floor = keyspace.Revision(rapid.Uint64Range(uint64(m.floor), uint64(limit)).Draw(t, "floor"))
	m.store.SetFloor(m.floor)
	m.engine.Compact()
}

var (
	genInstance = rapid.Map(rapid.IntRange(1, 3), func(i int) keyspace.InstanceID { return keyspace.InstanceID(i) })
	genKey      = rapid.SampledFrom([]string{"\x01", "\x01\x00", "a", "a\x00", "ab", "b", "b\xff", "c", "\xfe\xff"})
	genBound    = rapid.OneOf(rapid.Just[[]byte](nil), rapid.Map(genKey, func(k string) []byte { return []byte(k) }))
)

func (m *machine) Insert(t *rapid.T) {
	for range rapid.IntRange(1, 8).Draw(t, "count") {
		m.last += keyspace.Revision(rapid.IntRange(1, 2).Draw(t, "step"))
		m.insert(drawEntry(t, genInstance.Draw(t, "instance"), genKey.Draw(t, "key"), m.last), false)
	}
}

func (m *machine) insert(e entry, imported bool) {
	m.store.Insert(e.inst, []byte(e.key), e.rev, []byte(e.value), e.del)
	m.model.insert(e)
	m.log = append(m.log, logged{entry: e, delta: m.store.Active(), imported: imported})
}

// Import inserts versions of a key at any revisions above its newest one, also
// below those of other keys and below the floor, as slots that move here do.
// Nobody reads them meanwhile.
func (m *machine) Import(t *rapid.T) {
	m.closeViews()
	inst, key := genInstance.Draw(t, "instance"), genKey.Draw(t, "key")
	rev := m.model.newest(inst, key)
	for range rapid.IntRange(1, 4).Draw(t, "versions") {
		most := max(rev, m.last) + 2
		rev = keyspace.Revision(rapid.Uint64Range(uint64(rev)+1, uint64(most)).Draw(t, "rev"))
		m.insert(drawEntry(t, inst, key, rev), true)
	}
	m.last = max(m.last, rev)
}

// newest returns the highest revision of a key, 0 for none.
func (m model) newest(inst keyspace.InstanceID, key string) (rev keyspace.Revision) {
	for _, e := range m {
		if e.inst == inst && e.key == key {
			rev = max(rev, e.rev)
		}
	}
	return rev
}

func drawEntry(t *rapid.T, inst keyspace.InstanceID, key string, rev keyspace.Revision) entry {
	e := entry{inst: inst, key: key, rev: rev, del: rapid.IntRange(0, 4).Draw(t, "delete") == 0}
	if !e.del {
		e.value = fmt.Sprintf("value of %d", e.rev)
		if rapid.IntRange(0, 4).Draw(t, "large") == 0 {
			e.value += strings.Repeat("l", apartBytes)
		}
	}
	return e
}

// Again inserts what is there already, as a replay does.
func (m *machine) Again(t *rapid.T) {
	all := m.model.scan(ScanOptions{Instance: genInstance.Draw(t, "instance"), At: m.last, AllVersions: true})
	if len(all) == 0 {
		t.Skip("nothing there")
	}
	// Only the newest of a key: versions of a key come in order.
	e := all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
	for _, other := range all {
		if other.key == e.key && other.rev > e.rev {
			e = other
		}
	}
	if e.rev <= m.floor {
		t.Skip("flushed long ago")
	}
	m.insert(e, false)
}

func (m *machine) Seal(t *rapid.T) {
	if m.store.Sealed() >= 6 {
		t.Skip("enough")
	}
	active := m.store.Active()
	if id := m.store.Seal(); id != active || m.store.Active() != active+1 {
		t.Fatalf("sealed %d, active was %d and is %d", id, active, m.store.Active())
	}
	m.sealed = append(m.sealed, active)
}

func (m *machine) Flush(t *rapid.T) {
	id, ok, err := m.store.FlushOldest(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if ok != (len(m.sealed) > 0) {
		t.Fatalf("flushed %t with %d sealed", ok, len(m.sealed))
	}
	if !ok {
		return
	}
	if id != m.sealed[0] || m.store.Oldest() != id+1 {
		t.Fatalf("flushed %d, want %d; oldest is %d", id, m.sealed[0], m.store.Oldest())
	}
	m.sealed = m.sealed[1:]
	m.log = slices.DeleteFunc(m.log, func(e logged) bool { return e.delta == id })
}

// Move takes the oldest runs to the engine, now and then not to the end.
func (m *machine) Move(t *rapid.T) {
	before := m.store.RunsBytes()
	oldest := before.Large
	if oldest == 0 {
		oldest = before.Middle
	}
	m.walk(t, m.store.MoveRuns, oldest)
	if after := m.store.RunsBytes(); after != before && (after.Large != 0 || before.Large == 0 && after.Middle != 0) {
		t.Fatalf("%+v bytes of %+v in runs stay", after, before)
	}
}

// Merge merges small runs, now and then not to the end.
func (m *machine) Merge(t *rapid.T) {
	before := m.store.RunsBytes()
	m.walk(t, m.store.MergeRuns, before.Small)
	if after := m.store.RunsBytes(); after.Small != before.Small && after.All() > before.All() {
		t.Fatalf("%+v bytes in runs become %+v", before, after)
	}
}

// MergeLarge merges middle runs and large ones, now and then not to the end.
func (m *machine) MergeLarge(t *rapid.T) {
	before := m.store.RunsBytes()
	m.walk(t, m.store.MergeLarge, before.Middle)
	if after := m.store.RunsBytes(); after.Middle != before.Middle && after.All() > before.All() {
		t.Fatalf("%+v bytes in runs become %+v", before, after)
	}
}

func (m *machine) walk(t *rapid.T, walk func(context.Context) (int64, error), bytes int64) {
	batches, stop := 0, -1
	if rapid.IntRange(0, 3).Draw(t, "stop") == 0 {
		stop = rapid.IntRange(0, 2).Draw(t, "batches")
	}
	m.store.options.BetweenMoved = func(context.Context, MoveProgress) error {
		if batches++; batches > stop && stop >= 0 {
			return context.Canceled
		}
		return nil
	}
	before := m.store.Runs()
	done, err := walk(context.Background())
	switch {
	case err == nil && done < bytes: // a move takes what is older, too
		t.Fatalf("walked over %d of %d bytes", done, bytes)
	case err != nil && (!errors.Is(err, context.Canceled) || stop < 0 || m.store.Runs() != before):
		t.Fatalf("walked over %d bytes of %d, %d runs of %d stay: %v", done, bytes, m.store.Runs(), before, err)
	}
}

func (m *machine) Open(t *rapid.T) {
	if len(m.views) >= 4 {
		t.Skip("enough")
	}
	frozenModel := make(model, len(m.model))
	for k, v := range m.model {
		frozenModel[k] = v
	}
	m.views = append(m.views, frozen{m.store.View(), frozenModel, m.last})
}

func (m *machine) CloseOne(t *rapid.T) {
	if len(m.views) == 0 {
		t.Skip("none")
	}
	m.views[0].view.Close()
	m.views = m.views[1:]
}

// Read compares a view, perhaps an old one, with its model.
func (m *machine) Read(t *rapid.T) {
	f := frozen{m.store.View(), m.model, m.last}
	if len(m.views) > 0 && rapid.Bool().Draw(t, "old view") {
		f = m.views[rapid.IntRange(0, len(m.views)-1).Draw(t, "view")]
	} else {
		defer f.view.Close()
	}
	if f.last < m.floor {
		return // all of it is forgotten
	}
	f.checkGet(t, m.floor)
	f.checkScan(t, m.floor)
}

func (f *frozen) at(t *rapid.T, floor keyspace.Revision) keyspace.Revision {
	return keyspace.Revision(rapid.Uint64Range(uint64(floor), uint64(f.last)).Draw(t, "at"))
}

func (f *frozen) checkGet(t *rapid.T, floor keyspace.Revision) {
	inst, key, at := genInstance.Draw(t, "instance"), genKey.Draw(t, "key"), f.at(t, floor)
	value, rev, ok, err := f.view.Get(inst, []byte(key), at)
	if err != nil {
		t.Fatal(err)
	}
	want := f.model.scan(ScanOptions{Instance: inst, Lower: []byte(key), Upper: []byte(key + "\x00"), At: at})
	if ok != (len(want) == 1) || ok && (rev != want[0].rev || string(value) != want[0].value) {
		t.Fatalf("get %d %q at %d: %q, %d, %t; want %v", inst, key, at, value, rev, ok, want)
	}
}

func (f *frozen) checkScan(t *rapid.T, floor keyspace.Revision) {
	o := ScanOptions{Instance: genInstance.Draw(t, "instance"), Lower: genBound.Draw(t, "lower"), Upper: genBound.Draw(t, "upper"), At: f.at(t, floor)}
	switch rapid.IntRange(0, 2).Draw(t, "mode") {
	case 1:
		o.Reverse = true
	case 2:
		o.AllVersions = floor == 0 // else it may or may not have forgotten some
	}
	want := f.model.scan(o)
	s := f.view.Scan(o)
	defer s.Close()
	equalScan(t, o, s, want)
	if key := genKey.Draw(t, "seek"); rapid.Bool().Draw(t, "seeking") {
		s.Seek([]byte(key))
		equalScan(t, o, s, after(want, key, o.Reverse))
	}
}

func after(all []entry, key string, reverse bool) []entry {
	for i, e := range all {
		if e.key == key || e.key > key != reverse {
			return all[i:]
		}
	}
	return nil
}

func equalScan(t *rapid.T, o ScanOptions, s *Scanner, want []entry) {
	for i, w := range want {
		if !s.Valid() {
			t.Fatalf("scan %+v ended after %d of %d: %v", o, i, len(want), s.Err())
		}
		value, err := s.Value()
		if err != nil {
			t.Fatal(err)
		}
		if string(s.Key()) != w.key || s.Revision() != w.rev || string(value) != w.value || s.Deleted() != w.del {
			t.Fatalf("scan %+v at %d: %q@%d %q %t, want %+v", o, i, s.Key(), s.Revision(), value, s.Deleted(), w)
		}
		s.Next()
	}
	if s.Valid() || s.Err() != nil {
		t.Fatalf("scan %+v goes on with %q after %d, error %v", o, s.Key(), len(want), s.Err())
	}
}

// Latest knows deltas only.
func (m *machine) Latest(t *rapid.T) {
	inst, key := genInstance.Draw(t, "instance"), genKey.Draw(t, "key")
	value, rev, del, ok := m.store.Latest(inst, []byte(key))
	if !ok {
		return
	}
	all := m.model.scan(ScanOptions{Instance: inst, Lower: []byte(key), Upper: []byte(key + "\x00"), At: m.last, AllVersions: true})
	if len(all) == 0 || all[0].rev != rev || all[0].del != del || !bytes.Equal(value, []byte(all[0].value)) {
		t.Fatalf("latest of %d %q is %q@%d %t, want %v", inst, key, value, rev, del, all)
	}
}

func (m *machine) close() { m.closeViews() }

func (m *machine) closeViews() {
	for _, f := range m.views {
		f.view.Close()
	}
	m.views = nil
}

// middle: no run is small, and deltas are flushed at once, so that there is much to
// merge.
type modelCase struct{ history, runs, imports, middle bool }

// apartBytes is the size of large values.
const apartBytes = 300

func TestStoreAgainstModel(t *testing.T) {
	for _, c := range []modelCase{{}, {history: true}, {history: true, runs: true},
		{imports: true}, {history: true, imports: true}, {history: true, runs: true, imports: true},
		{history: true, runs: true, middle: true}, {history: true, runs: true, middle: true, imports: true}} {
		t.Run(fmt.Sprintf("history=%t,runs=%t,imports=%t,middle=%t", c.history, c.runs, c.imports, c.middle), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := newMachine(t, c)
				defer func() { m.close() }()
				actions := map[string]func(*rapid.T){
					"insert": m.Insert, "again": m.Again, "seal": m.Seal, "flush": m.Flush, "crash": m.Crash, "floor": m.Floor,
					"open": m.Open, "close": m.CloseOne, "read": m.Read, "latest": m.Latest,
				}
				if c.imports {
					actions["import"] = m.Import
				}
				if c.runs {
					actions["move"], actions["merge"], actions["merge large"] = m.Move, m.Merge, m.MergeLarge
				}
				if c.middle {
					delete(actions, "seal")
					actions["insert"] = func(t *rapid.T) { m.Insert(t); m.Seal(t); m.Flush(t) }
				}
				t.Repeat(actions)
			})
		})
	}
}
