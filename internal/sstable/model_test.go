package sstable

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// machine drives a Store and a model, which is a slice for each file, by random
// actions.
type machine struct {
	fs      *simfs.FS
	store   *History
	last    keyspace.Revision
	current map[string]placed // newest version of each key: not yet in the history
	waiting []placed          // replaced since the last file
	files   [][]placed
	held    []heldScan
	opened  int
	blocks  int // most blocks of one file that continue an instance
}

// heldScan is open iterators and what was in the files when they were opened.
type heldScan struct {
	its     []*Iterator
	release func()
	r       Range
	files   [][]placed
}

var (
	genInstance = rapid.SampledFrom([]keyspace.InstanceID{1, 2, 3, 1 << 40})
	genKey      = rapid.SampledFrom([]string{"", "\x00", "a", "a\x00", "ab", "b\xff", strings.Repeat("k", 5000), "\xff\xff"})
	genBound    = rapid.OneOf(rapid.Just[[]byte](nil), rapid.Map(genKey, func(k string) []byte { return []byte(k) }))
	genSize     = rapid.SampledFrom([]int{0, 1, 7, 20, 64, 300, 300, 300, 5000, 40 << 10, 70 << 10})
)

// openStore opens the store, whose files are written in single pages every other time.
func (m *machine) openStore(t failer) {
	m.store = mustOpen(t, m.fs)
	if m.opened++; m.opened%2 == 0 {
		m.store.kind = inPages(m.store.kind)
	}
}

// Write replaces versions of keys.
func (m *machine) Write(t *rapid.T) {
	inst := genInstance.Draw(t, "instance")
	for range rapid.IntRange(1, 12).Draw(t, "count") {
		m.last += keyspace.Revision(rapid.IntRange(1, 300).Draw(t, "step"))
		next := placed{inst, Version{Key: []byte(genKey.Draw(t, "key")), Revision: m.last}}
		next.Value = bytes.Repeat([]byte{byte(m.last)}, genSize.Draw(t, "size"))
		next.Delete = rapid.IntRange(0, 4).Draw(t, "delete") == 0
		id := string(keyspace.AppendInstance(nil, inst)) + string(next.Key)
		if old, ok := m.current[id]; ok {
			old.Until = next.Revision
			m.waiting = append(m.waiting, old)
		}
		m.current[id] = next
	}
}

// Flush makes a file of some of what was replaced: a version's successor may be
// in a later delta, and so an older file may reach further than the next one.
func (m *machine) Flush(t *rapid.T) {
	slices.SortFunc(m.waiting, placed.order)
	var file, rest []placed
	some := rapid.Bool().Draw(t, "some")
	for _, v := range m.waiting {
		if some && rapid.IntRange(0, 3).Draw(t, "later") == 0 {
			rest = append(rest, v)
		} else {
			file = append(file, v)
		}
	}
	mustWrite(t, m.store, file...)
	for _, f := range m.store.files.Load().files {
		m.blocks = max(m.blocks, f.blocks.count()-len(f.spans))
	}
	if len(file) > 0 {
		m.files = append(m.files, file)
	}
	// A flush that fails after its file was finished makes another one of the same.
	if rapid.IntRange(0, 5).Draw(t, "again") > 0 {
		m.waiting = rest
	} else {
		m.waiting = slices.Clone(m.waiting)
	}
}

func (m *machine) Abort(t *rapid.T) {
	slices.SortFunc(m.waiting, placed.order)
	w := m.store.Writer()
	for _, v := range m.waiting {
		if err := w.Add(v.inst, v.Version); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) Reopen(t *rapid.T) {
	for len(m.held) > 0 {
		m.Release(t)
	}
	floor := m.store.Floor()
	mustClose(t, m.store)
	m.openStore(t)
	m.store.SetFloor(floor)
}

func (m *machine) Expire(t *rapid.T) {
	floor := keyspace.Revision(rapid.Uint64Range(0, uint64(m.last)).Draw(t, "floor"))
	m.store.SetFloor(floor)
	var live func(keyspace.InstanceID) bool
	if rapid.Bool().Draw(t, "some are dead") {
		dead := genInstance.Draw(t, "dead")
		live = func(inst keyspace.InstanceID) bool { return inst != dead }
	}
	m.store.Expire(live)
	m.files = slices.DeleteFunc(slices.Clone(m.files), func(file []placed) bool {
		return !slices.ContainsFunc(file, func(v placed) bool {
			return v.Until > m.store.Floor() && (live == nil || live(v.inst))
		})
	})
}

// at is any revision, a boundary of a version more often than not.
func (m *machine) at(t *rapid.T) keyspace.Revision {
	if rapid.Bool().Draw(t, "any") || len(m.files) == 0 {
		return keyspace.Revision(rapid.Uint64Range(0, uint64(m.last)+2).Draw(t, "at"))
	}
	file := rapid.SampledFrom(m.files).Draw(t, "file")
	v := file[rapid.IntRange(0, len(file)-1).Draw(t, "version")]
	return rapid.SampledFrom([]keyspace.Revision{v.Revision - 1, v.Revision, v.Until - 1, v.Until}).Draw(t, "at")
}

func (m *machine) Get(t *rapid.T) {
	inst, key, at := genInstance.Draw(t, "instance"), []byte(genKey.Draw(t, "key")), m.at(t)
	var want *placed
	for _, file := range m.files {
		for _, v := range file {
			if v.inst == inst && bytes.Equal(v.Key, key) && v.stands(at) {
				want = &v
			}
		}
	}
	got, ok, err := m.store.Get(inst, key, at)
	if err != nil {
		t.Fatal(err)
	}
	if ok != (want != nil) || ok && !equal(placed{inst, got}, *want) {
		t.Fatalf("get %d/%.20q at %d: %t, %v; want %v", inst, key, at, ok, placed{inst, got}, want)
	}
	if want != nil && !m.store.Covers(inst, at) {
		t.Fatalf("does not cover %v at %d", want, at)
	}
}

func (m *machine) Covers(t *rapid.T) {
	inst, at := genInstance.Draw(t, "instance"), m.at(t)
	want := false
	for _, file := range m.files {
		for _, v := range file {
			want = want || v.inst == inst && at < v.Until
		}
	}
	if got := m.store.Covers(inst, at); got != want {
		t.Fatalf("covers %d at %d: %t, want %t", inst, at, got, want)
	}
}

func (m *machine) open(t *rapid.T) heldScan {
	r := Range{Instance: genInstance.Draw(t, "instance"), Lower: genBound.Draw(t, "lower"), Upper: genBound.Draw(t, "upper"), At: m.at(t)}
	switch rapid.IntRange(0, 2).Draw(t, "mode") {
	case 1:
		r.Reverse = true
	case 2:
		if r.AllVersions = true; rapid.Bool().Draw(t, "all of all") {
			r.At = keyspace.MaxRevision
		}
	}
	h := heldScan{r: r, files: m.files}
	h.its, h.release = m.store.Iterators(r)
	return h
}

func (m *machine) Scan(t *rapid.T) {
	h := m.open(t)
	defer h.release()
	for range rapid.IntRange(1, 4).Draw(t, "seeks") {
		h.check(t)
	}
}

// Hold keeps iterators open while files come and go.
func (m *machine) Hold(t *rapid.T) {
	if len(m.held) >= 3 {
		t.Skip("enough")
	}
	m.held = append(m.held, m.open(t))
}

func (m *machine) ReadHeld(t *rapid.T) {
	if len(m.held) == 0 {
		t.Skip("none")
	}
	rapid.SampledFrom(m.held).Draw(t, "which").check(t)
}

func (m *machine) Release(t *rapid.T) {
	if len(m.held) == 0 {
		t.Skip("none")
	}
	m.held[0].release()
	m.held = m.held[1:]
}

// check seeks and walks all iterators. Together they return what the files have
// in the range, each in order.
func (h heldScan) check(t *rapid.T) {
	key, inclusive := genBound.Draw(t, "seek"), rapid.Bool().Draw(t, "inclusive")
	switch r := h.r; { // callers stay in the range
	case !r.Reverse && bytes.Compare(key, r.Lower) < 0:
		key = r.Lower
	case r.Reverse && r.Upper != nil && (key == nil || bytes.Compare(key, r.Upper) >= 0):
		key, inclusive = r.Upper, false
	}
	var got []placed
	for _, it := range h.its {
		one := h.walk(t, it, key, inclusive)
		if !slices.IsSortedFunc(one, func(p, q placed) int {
			if h.r.Reverse {
				p, q = q, p
			}
			return p.order(q)
		}) {
			t.Fatalf("%+v from %.20q is out of order:%s", h.r, key, list(one))
		}
		got = append(got, one...)
	}
	var want []placed
	for _, file := range h.files {
		for _, v := range file {
			if h.wants(v, key, inclusive) {
				want = append(want, v)
			}
		}
	}
	slices.SortFunc(got, placed.order)
	slices.SortFunc(want, placed.order)
	if !slices.EqualFunc(got, want, equal) {
		t.Fatalf("%+v from %.20q, inclusive %t:%s\nwant%s", h.r, key, inclusive, list(got), list(want))
	}
}

func (h heldScan) walk(t *rapid.T, it *Iterator, key []byte, inclusive bool) (all []placed) {
	if h.r.Reverse {
		it.SeekBackward(key, inclusive)
	} else {
		it.SeekForward(key)
	}
	for ; it.Version() != nil; it.Next() {
		all = append(all, placed{h.r.Instance, *it.Version()})
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return all
}

func (h heldScan) wants(v placed, key []byte, inclusive bool) bool {
	switch r := h.r; {
	case !r.follows(v, key, inclusive):
		return false
	case r.AllVersions:
		return v.Revision <= r.At
	default:
		return v.stands(r.At)
	}
}

// Check compares what a Store tells of itself.
func (m *machine) Check(t *rapid.T) {
	instances := map[keyspace.InstanceID]bool{}
	for _, file := range m.files {
		for _, v := range file {
			instances[v.inst] = true
		}
	}
	if got, want := m.store.Instances(), slices.Sorted(maps.Keys(instances)); !slices.Equal(got, want) {
		t.Fatalf("instances %v, want %v", got, want)
	}
	if m.store.Files() != len(m.files) {
		t.Fatalf("%d files, want %d", m.store.Files(), len(m.files))
	}
	switch got, disk := m.store.Bytes(), m.fs.Used(); {
	case got > disk, len(m.held) == 0 && (got != disk || len(names(t, m.fs)) != len(m.files)):
		t.Fatalf("%d bytes, on disk %d in %q, want %d files", got, disk, names(t, m.fs), len(m.files))
	}
}

// What was replaced is found at every revision at which it stood, in every
// direction, whatever file it is in.
func TestStoreAgreesWithAModel(t *testing.T) {
	blocks := 0 // of a file, that continue an instance
	checkUntil(t, func() bool { return blocks >= 2 }, func(t *rapid.T) {
		m := &machine{fs: simfs.New(), current: map[string]placed{}}
		m.openStore(t)
		t.Repeat(map[string]func(*rapid.T){
			"": m.Check, "Write": m.Write, "WriteMore": m.Write, "WriteMuch": m.Write, "Flush": m.Flush, "Abort": m.Abort,
			"Reopen": m.Reopen, "Expire": m.Expire, "Get": m.Get, "Covers": m.Covers, "Scan": m.Scan,
			"Hold": m.Hold, "ReadHeld": m.ReadHeld, "Release": m.Release,
		})
		blocks = max(blocks, m.blocks)
		for len(m.held) > 0 {
			m.Release(t)
		}
		mustClose(t, m.store)
	})
}
