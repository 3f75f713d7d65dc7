package sstable

import (
	"bytes"
	"slices"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// smallRun has three instances, and so three blocks, of few bytes.
func smallRun() []placed {
	gone := cur(2, "b", 4)
	gone.Delete, gone.Value = true, nil
	empty := cur(2, "c", 70_000)
	empty.Value = nil
	return []placed{
		cur(1, "", 1), cur(1, "\x00", 9), cur(1, "a", 3), cur(1, "ab", 7),
		cur(2, "a", 300), gone, empty, cur(3, "\xff", 5),
	}
}

func smallRunFile(t *testing.T) []byte {
	t.Helper()
	fs := diskWithFile(t, runKind.nameOf(1), nil)
	if err := fs.Remove(testDir + "/" + runKind.nameOf(1)); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, mustOpenRuns(t, fs), smallRun()...)
	return contents(t, fs, runKind.nameOf(1))
}

// runDamage reads runs in every way. Whatever is not reported is right.
type runDamage struct {
	t        *testing.T
	runs     *Runs
	reported bool
}

// failed notes an error, which is corruption.
func (d *runDamage) failed(err error) bool {
	d.t.Helper()
	if err != nil {
		wantCode(d.t, err, fault.Corruption)
		d.reported = true
	}
	return err != nil
}

// damagedRun reports whether b as a run is reported as corrupt when it is opened
// or by a read.
func damagedRun(t *testing.T, b []byte) (atOpen, reported bool) {
	t.Helper()
	d := runDamage{t: t}
	var err error
	d.runs, err = OpenRuns(diskWithFile(t, runKind.nameOf(1), b), testDir, Options{})
	if d.failed(err) {
		return true, true
	}
	d.read()
	if f := d.runs.files.Load().files[0]; f.refs.Load() != 1 {
		t.Fatalf("%d references after the reads, want that of the set", f.refs.Load())
	}
	return false, d.reported
}

func (d *runDamage) read() {
	d.t.Helper()
	for _, v := range smallRun() {
		d.get(v)
	}
	for _, absent := range []placed{cur(1, "aa", 1), cur(2, "", 1), cur(3, "\xff\x00", 1), cur(4, "a", 1)} {
		d.getAbsent(absent)
	}
	for inst := keyspace.InstanceID(1); inst <= 3; inst++ {
		for _, o := range []Range{{}, {Reverse: true}, {AllVersions: true}} {
			o.Instance, o.At = inst, keyspace.MaxRevision
			walk, release := d.runs.Merge(o)
			d.walk(walk, o)
			release()
		}
	}
	m := mustTake(d.t, d.runs)
	defer m.Release()
	for _, inst := range m.Instances() {
		d.check(m.Merge(inst), inst, false)
	}
}

func (d *runDamage) get(want placed) {
	d.t.Helper()
	for _, at := range []keyspace.Revision{want.Revision - 1, want.Revision, keyspace.MaxRevision} {
		got, ok, stale, err := d.runs.Get(Hash(want.inst, want.Key), want.inst, want.Key, at)
		there := at >= want.Revision
		if !d.failed(err) && (stale || ok != there || ok && !equal(placed{want.inst, got}, want)) {
			d.t.Fatalf("get at %d: %t, stale %t, %v; want %v: %t", at, ok, stale, placed{want.inst, got}, want, there)
		}
	}
}

// getAbsent looks in the file itself: the filter has no part in it.
func (d *runDamage) getAbsent(absent placed) {
	d.t.Helper()
	f := d.runs.files.Load().files[0]
	if got, ok, err := f.get(absent.inst, absent.Key, keyspace.MaxRevision); !d.failed(err) && ok {
		d.t.Fatalf("get %v: %v", absent, placed{absent.inst, got})
	}
}

func (d *runDamage) walk(walk *Merge, o Range) {
	d.t.Helper()
	seekStart(walk, o.Reverse)
	d.check(walk, o.Instance, o.Reverse)
}

// check walks to the end: what comes is what there is, up to an error.
func (d *runDamage) check(walk *Merge, inst keyspace.InstanceID, reverse bool) {
	d.t.Helper()
	want := slices.DeleteFunc(smallRun(), func(v placed) bool { return v.inst != inst })
	if reverse {
		slices.Reverse(want)
	}
	var got []placed
	for ; walk.Version() != nil; walk.Next() {
		got = append(got, placed{inst, *walk.Version()})
	}
	if d.failed(walk.Err()) {
		want = want[:min(len(got), len(want))]
	}
	if walk.Version() != nil || !slices.EqualFunc(got, want, equal) {
		d.t.Fatalf("a walk of %d, reverse %t:%s\nwant%s", inst, reverse, list(got), list(want))
	}
}

// No damaged byte becomes an answer; in the index, the filter, or the trailer it
// is found when the run is opened. Only the bytes in front of the first block
// mean nothing.
func TestEveryDamagedByteOfARunIsFound(t *testing.T) {
	whole := smallRunFile(t)
	if _, reported := damagedRun(t, whole); reported {
		t.Fatal("an undamaged run is reported")
	}
	f := mustOpenRuns(t, diskWithFile(t, runKind.nameOf(1), whole)).files.Load().files[0]
	last := f.blocks.at(f.blocks.count() - 1)
	index := int(last.offset) + last.length
	if len(f.filter) != filterLine || f.blocks.count() != 3 {
		t.Fatalf("%d bytes of filter, %d blocks", len(f.filter), f.blocks.count())
	}
	for i := range whole {
		for _, flip := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			b := bytes.Clone(whole)
			b[i] ^= flip
			atOpen, reported := damagedRun(t, b)
			if reported != (i >= len(magic)) || atOpen != (i >= index) {
				t.Errorf("byte %d of %d, index at %d, flipped by %x: reported %t, when opened %t", i, len(whole), index, flip, reported, atOpen)
			}
		}
	}
}

func TestEveryTruncatedRunIsFoundAtOpen(t *testing.T) {
	whole := smallRunFile(t)
	for n := range whole {
		if atOpen, _ := damagedRun(t, whole[:n]); !atOpen {
			t.Errorf("cut at byte %d of %d: not found", n, len(whole))
		}
	}
	for _, more := range []string{"x", runMagic, string(whole[len(whole)-trailerBytes:])} {
		if atOpen, _ := damagedRun(t, append(bytes.Clone(whole), more...)); !atOpen {
			t.Errorf("%q behind the end: not found", more)
		}
	}
}

// A run may also lose its end, or a block, while it is open.
func TestDamageOfAnOpenRunIsFoundByReads(t *testing.T) {
	whole := smallRunFile(t)
	for n := range whole {
		fs := diskWithFile(t, runKind.nameOf(1), whole)
		d := runDamage{t: t, runs: mustOpenRuns(t, fs)}
		f, err := fs.Open(testDir + "/" + runKind.nameOf(1))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(int64(n)); err != nil {
			t.Fatal(err)
		}
		blocks := d.runs.files.Load().files[0].blocks.all()
		last := blocks[len(blocks)-1]
		if d.read(); d.reported != (int64(n) < last.offset+int64(last.length)) {
			t.Errorf("cut at byte %d of %d: reported %t", n, len(whole), d.reported)
		}
	}
}

// A damaged block of one run ends a walk over several, where the walk meets it.
func TestADamagedRunEndsTheWalkOverAll(t *testing.T) {
	fs := diskWithFile(t, runKind.nameOf(1), smallRunFile(t))
	r := mustOpenRuns(t, fs)
	mustWrite(t, r, manyRunBlocks()...)
	second := r.files.Load().files[1]
	damaged := second.blocks.at(blocksOf(r, 1, 1) + 4)
	if err := fs.FlipBit(second.path, damaged.offset+1, 3); err != nil {
		t.Fatal(err)
	}
	for _, reverse := range []bool{false, true} {
		walk, release := r.Merge(Range{Instance: 2, At: keyspace.MaxRevision, Reverse: reverse})
		n := 0
		d := runDamage{t: t}
		for seekStart(walk, reverse); walk.Version() != nil; walk.Next() {
			n++
		}
		if !d.failed(walk.Err()) || n < 3 || n > 22 {
			t.Errorf("reverse %t: %d versions before %v", reverse, n, walk.Err())
		}
		if seekStart(walk, reverse); walk.Version() != nil || walk.Err() == nil {
			t.Errorf("reverse %t: the error is forgotten", reverse)
		}
		release()
	}
	_, _, _, err := r.Get(Hash(2, damaged.key), 2, damaged.key, keyspace.MaxRevision)
	wantCode(t, err, fault.Corruption)
	wantGet(t, r, keyspace.MaxRevision, cur(3, "", 90))
}

func seekStart(walk *Merge, reverse bool) {
	if reverse {
		walk.SeekBackward(nil, false)
	} else {
		walk.SeekForward(nil)
	}
}

// A file is of one kind, whatever its name says.
func TestAFileOfTheOtherKindIsRefused(t *testing.T) {
	_, err := OpenRuns(diskWithFile(t, runKind.nameOf(1), smallFile(t)), testDir, Options{})
	wantCode(t, err, fault.Corruption)
	_, err = OpenHistory(diskWithFile(t, historyKind.nameOf(1), smallRunFile(t)), testDir, Options{})
	wantCode(t, err, fault.Corruption)
	// Under its own name it is nothing that the other kind looks at.
	fs := diskWithFile(t, historyKind.nameOf(1), smallFile(t))
	r := mustOpenRuns(t, fs)
	if r.Files() != 0 {
		t.Errorf("%d runs", r.Files())
	}
	mustWrite(t, r, cur(1, "a", 1))
	if got, want := names(t, fs), []string{historyKind.nameOf(1), runKind.nameOf(1)}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if s := mustOpen(t, fs); s.Files() != 1 {
		t.Errorf("%d files of history", s.Files())
	}
}
