package sstable

import (
	"bytes"
	"maps"
	"slices"

	"pgregory.net/rapid"

	"kvstore/internal/keyspace"
)

// heldWalk is an open Merge, nil where there is nothing, and what was in the runs
// when it was opened.
type heldWalk struct {
	merge   *Merge
	release func()
	r       Range
	files   [][]placed
}

func (m *runsMachine) open(t *rapid.T) heldWalk {
	r := Range{Instance: genRunInstance.Draw(t, "instance"), Lower: genBound.Draw(t, "lower"), Upper: genBound.Draw(t, "upper"), At: m.at(t)}
	switch rapid.IntRange(0, 2).Draw(t, "mode") {
	case 1:
		r.Reverse = true
	case 2:
		r.AllVersions = true
	}
	h := heldWalk{r: r, files: m.files, release: func() {}}
	walk, release := m.runs.Merge(r)
	want := !m.dead[r.Instance] && slices.ContainsFunc(slices.Concat(m.files...), func(v placed) bool {
		return v.inst == r.Instance && v.Revision <= r.At
	})
	if (walk != nil) != want || (release != nil) != want {
		t.Fatalf("%+v: walk %t, release %t, want %t", r, walk != nil, release != nil, want)
	}
	if walk != nil {
		if h.merge, h.release = walk, release; walk.Version() != nil {
			t.Fatalf("%+v is at %v before a seek", r, walk.Version())
		}
	}
	return h
}

func (m *runsMachine) Scan(t *rapid.T) {
	h := m.open(t)
	defer h.release()
	for range rapid.IntRange(1, 4).Draw(t, "seeks") {
		h.check(t)
		m.doubles += h.doubles()
	}
}

// Hold keeps a walk open while runs come and go.
func (m *runsMachine) Hold(t *rapid.T) {
	if len(m.held) >= 3 {
		t.Skip("enough")
	}
	if h := m.open(t); h.merge != nil {
		m.held = append(m.held, h)
	}
}

func (m *runsMachine) ReadHeld(t *rapid.T) {
	for _, h := range m.held {
		h.check(t)
		if slices.ContainsFunc(h.merge.all, func(i *Iterator) bool { return !slices.Contains(m.runs.files.Load().files, i.c.file) }) {
			m.doomed++
		}
	}
}

func (m *runsMachine) Release(t *rapid.T) {
	if len(m.held) == 0 {
		t.Skip("none")
	}
	m.held[0].release()
	m.held = m.held[1:]
}

func (m *runsMachine) releaseAll() {
	for _, h := range m.held {
		h.release()
	}
	for _, h := range m.moves {
		h.taken.Release()
	}
	m.held, m.moves = nil, nil
}

// check seeks and walks on, to the end or not.
func (h heldWalk) check(t *rapid.T) {
	if h.merge == nil {
		return
	}
	key, inclusive := h.seek(t)
	want := h.want(key, inclusive)
	if most := rapid.IntRange(0, 20).Draw(t, "steps"); most < 10 {
		want = want[:min(most, len(want))] // the next seek is from the middle
		got := h.walk(key, inclusive, len(want))
		wantWalk(t, got, want)
		return
	}
	got := h.walk(key, inclusive, 1<<20)
	if !slices.EqualFunc(got, want, equal) || h.merge.Err() != nil {
		t.Fatalf("%+v from %.20q, inclusive %t:%s\nwant%s\nerror %v", h.r, key, inclusive, list(got), list(want), h.merge.Err())
	}
}

// seek is where to; callers stay in the range.
func (h heldWalk) seek(t *rapid.T) (key []byte, inclusive bool) {
	key, inclusive = genBound.Draw(t, "seek"), rapid.Bool().Draw(t, "inclusive")
	switch r := h.r; {
	case !r.Reverse && bytes.Compare(key, r.Lower) < 0:
		key = r.Lower
	case r.Reverse && r.Upper != nil && (key == nil || bytes.Compare(key, r.Upper) >= 0):
		key, inclusive = r.Upper, false
	}
	return key, inclusive
}

func (h heldWalk) walk(key []byte, inclusive bool, most int) (all []placed) {
	if h.r.Reverse {
		h.merge.SeekBackward(key, inclusive)
	} else {
		h.merge.SeekForward(key)
	}
	for ; len(all) < most && h.merge.Version() != nil; h.merge.Next() {
		all = append(all, placed{h.r.Instance, *h.merge.Version()})
	}
	return all
}

// want is all that a walk from a key returns, in order.
func (h heldWalk) want(key []byte, inclusive bool) (all []placed) {
	for _, v := range slices.Concat(h.files...) {
		if h.inRange(v, key, inclusive) {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, placed.order)
	all = slices.CompactFunc(all, func(p, q placed) bool {
		return bytes.Equal(p.Key, q.Key) && (!h.r.AllVersions || p.Revision == q.Revision)
	})
	if h.r.Reverse {
		slices.Reverse(all)
	}
	return all
}

func (h heldWalk) inRange(v placed, key []byte, inclusive bool) bool {
	return h.r.follows(v, key, inclusive) && v.Revision <= h.r.At
}

// doubles is how many versions of a walk are in several runs.
func (h heldWalk) doubles() (n int) {
	seen := map[string]bool{}
	for _, v := range slices.Concat(h.files...) {
		if id := string(v.Key) + v.String(); h.merge != nil && h.inRange(v, nil, true) {
			if seen[id] {
				n++
			}
			seen[id] = true
		}
	}
	return n
}

// heldMove is what was taken, and the runs it has.
type heldMove struct {
	taken *Taken
	files [][]placed
}

func (m *runsMachine) Take(t *rapid.T) {
	if len(m.moves) >= 2 {
		t.Skip("enough")
	}
	m.take(t)
}

// take takes runs by their size, any more often than not; false for none.
func (m *runsMachine) take(t *rapid.T) bool {
	least, most := int64(0), int64(noSize)
	if len(m.files) > 0 && rapid.IntRange(0, 3).Draw(t, "some") == 0 {
		least = m.size(rapid.SampledFrom(m.files).Draw(t, "least"))
		most = m.size(rapid.SampledFrom(m.files).Draw(t, "most")) + int64(rapid.IntRange(0, 1).Draw(t, "more"))
	}
	var want [][]placed
	size := int64(0)
	for _, file := range m.files {
		if s := m.size(file); s >= least && s < most {
			want, size = append(want, file), size+s
		}
	}
	if files, bytes := m.runs.Count(least, most); files != len(want) || bytes != size {
		t.Fatalf("from %d to %d: %d files, %d bytes; want %d, %d", least, most, files, bytes, len(want), size)
	}
	taken := m.runs.Take(least, most)
	if taken == nil || len(want) == 0 {
		if (taken == nil) != (len(want) == 0) {
			t.Fatalf("%d runs from %d to %d are taken: %t", len(want), least, most, taken != nil)
		}
		return false
	}
	if len(taken.files) != len(want) || taken.Bytes != size {
		t.Fatalf("%d files, %d bytes; want %d, %d", len(taken.files), taken.Bytes, len(want), size)
	}
	m.moves = append(m.moves, heldMove{taken, want})
	return true
}

// size is that of the file, which the model tells by where it is.
func (m *runsMachine) size(file []placed) int64 { return m.sizes[&file[0]] }

// ReadMove walks over all that was taken, as often as it is asked, deleted
// instances included.
func (m *runsMachine) ReadMove(t *rapid.T) {
	for _, h := range m.moves {
		h.read(t)
	}
}

// read returns every version, once.
func (h heldMove) read(t *rapid.T) (got []placed) {
	all := slices.Concat(h.files...)
	slices.SortFunc(all, placed.order)
	all = slices.CompactFunc(all, equal)
	for _, inst := range h.taken.Instances() {
		before := len(got)
		if got = append(got, walked(t, h.taken.Merge(inst), inst)...); len(got) == before {
			t.Fatalf("nothing of instance %d", inst)
		}
	}
	wantWalk(t, got, all)
	return got
}

// Done removes what was taken, but not what came later, and forgets the deleted
// instances of which nothing is left.
func (m *runsMachine) Done(t *rapid.T) {
	if len(m.moves) == 0 {
		t.Skip("none")
	}
	h := m.moves[0]
	h.taken.Done()
	m.files = slices.DeleteFunc(slices.Clone(m.files), func(file []placed) bool { return h.has(file) })
	maps.DeleteFunc(m.dead, func(inst keyspace.InstanceID, _ bool) bool {
		return !slices.ContainsFunc(slices.Concat(m.files...), func(v placed) bool { return v.inst == inst })
	})
	m.ReadHeld(t)
}

// has tells files by where they are: another one may have the same versions.
func (h heldMove) has(file []placed) bool {
	return slices.ContainsFunc(h.files, func(f []placed) bool { return &f[0] == &file[0] })
}

// MoveAll is what a move does when nothing comes between.
func (m *runsMachine) MoveAll(t *rapid.T) {
	for len(m.moves) > 0 {
		m.ReleaseMove(t)
	}
	if m.take(t) {
		m.Done(t)
		m.ReleaseMove(t)
	}
}

// Merge makes one run of several: of each key the newest version stays.
func (m *runsMachine) Merge(t *rapid.T) {
	for len(m.moves) > 0 {
		m.ReleaseMove(t)
	}
	if !m.take(t) {
		return
	}
	m.write(t, slices.CompactFunc(m.moves[0].read(t), func(p, q placed) bool {
		return p.inst == q.inst && bytes.Equal(p.Key, q.Key)
	}))
	m.Done(t)
	m.ReleaseMove(t)
}

func (m *runsMachine) ReleaseMove(t *rapid.T) {
	if len(m.moves) == 0 {
		t.Skip("none")
	}
	m.moves[0].taken.Release()
	m.moves = m.moves[1:]
}
