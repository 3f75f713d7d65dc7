package sstable

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"kvstore/internal/env"
	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// crashTest opens images that a power cut may leave after each operation on the
// disk.
type crashTest struct {
	t     *testing.T
	kind  *kind
	open  func(env.FS) (*dir, error)
	fs    *simfs.FS
	r     *rand.Rand
	files map[uint64][]placed // what was or is being written, by number
	// done are the files that have to be there, gone those that need not.
	done, gone map[uint64]bool
	repeat     int // how long values are
	images     int
	partial    int // images without the file that is being written
}

func newCrashTest(t *testing.T, k *kind, open func(env.FS) (*dir, error)) *crashTest {
	return &crashTest{t: t, kind: k, open: open, repeat: 30, fs: simfs.New(), r: rand.New(rand.NewPCG(5, 6)),
		files: map[uint64][]placed{}, done: map[uint64]bool{}, gone: map[uint64]bool{}}
}

func openHistoryDir(fs env.FS) (*dir, error) {
	s, err := OpenHistory(fs, testDir, Options{})
	if err != nil {
		return nil, err
	}
	s.kind = inPages(s.kind)
	return &s.dir, nil
}

// inPages is a kind whose pieces are single pages, so that small files have some.
func inPages(k *kind) *kind {
	small := *k
	small.pieceBytes = pageBytes
	return &small
}

// versions of file n: three instances, and so three blocks, of a few sectors.
func (c *crashTest) versions(n uint64) (all []placed) {
	for inst := range keyspace.InstanceID(3) {
		for key := range 3 {
			v := ver(inst+1, fmt.Sprintf("key %d", key), keyspace.Revision(n*10), keyspace.Revision(n*10+5))
			v.Value = []byte(strings.Repeat(string(v.Value), c.repeat+c.r.IntN(20)))
			if c.kind.current {
				v.Until = 0
			}
			all = append(all, v)
		}
	}
	return all
}

// A power cut at any moment leaves a file whole or not at all, and a finished
// one whole; of what was expired, too, nothing in between remains.
func TestFileIsWholeOrAbsentAfterACrash(t *testing.T) {
	c := newCrashTest(t, &historyKind, openHistoryDir)
	s := mustOpen(t, c.fs)
	s.kind = inPages(s.kind)
	c.repeat = 250
	c.cutAlways()
	for n := uint64(1); n <= 4; n++ {
		c.write(s, n)
		if n >= 3 {
			c.gone[n-2] = true
			s.SetFloor(keyspace.Revision((n-2)*10 + 5))
			s.Expire(nil)
		}
		c.cut(simfs.Op{Kind: "none", Name: fmt.Sprintf("file %d is finished", n)})
	}
	c.reached()
}

// write makes file n.
func (c *crashTest) write(s writable, n uint64) {
	c.t.Helper()
	c.files[n] = c.versions(n)
	mustWrite(c.t, s, c.files[n]...)
	c.done[n] = true
}

func (c *crashTest) reached() {
	c.t.Helper()
	if c.images < 1000 || c.partial < 100 {
		c.t.Errorf("%d images, %d without the unfinished file: the test reaches too little", c.images, c.partial)
	}
	c.t.Logf("%d images", c.images)
}

// cutAlways cuts after each operation that changes the disk.
func (c *crashTest) cutAlways() {
	c.fs.After(func(o simfs.Op, _ error) {
		if !slices.Contains([]simfs.Kind{simfs.OpRead, simfs.OpList, simfs.OpOpen, simfs.OpMkdir}, o.Kind) {
			c.cut(o)
		}
	})
}

// cut looks at images of this moment: nothing, everything, each unit missing
// alone, each there alone, and some at random, torn ones among them.
func (c *crashTest) cut(o simfs.Op) {
	c.t.Helper()
	const none, all = 0, 1
	pending := c.fs.Pending()
	image := func(rest, odd int) {
		c.check(o, c.fs.Image(func(n int, u simfs.Unit) simfs.Choice {
			if (n == odd) == (rest == all) {
				return simfs.Choice{}
			}
			return simfs.Choice{Version: u.Versions}
		}))
	}
	image(none, -1)
	image(all, -1)
	for n := range pending {
		image(none, n)
		image(all, n)
	}
	for range 8*len(pending) + 16 {
		c.check(o, c.fs.Crash(c.r))
	}
}

// check opens an image, goes on writing there, and cuts once more.
func (c *crashTest) check(o simfs.Op, image *simfs.FS) {
	c.t.Helper()
	c.images++
	found := c.shown(o, image, c.mustOpen(o, image))
	for n := range c.done {
		if _, ok := found[n]; !ok && !c.gone[n] {
			c.t.Fatalf("after %v: finished file %d is not there", o, n)
		}
	}
	for n := range c.files {
		if _, ok := found[n]; !ok && !c.done[n] {
			c.partial++
		}
	}
	if c.r.IntN(8) > 0 {
		return
	}
	s := c.mustOpen(o, image)
	more := c.versions(1 << 20)
	number := s.next
	mustWrite(c.t, s, more...)
	again := image.Image(func(int, simfs.Unit) simfs.Choice { return simfs.Choice{} })
	s = c.mustOpen(o, again)
	if f := find(s, number); f == nil {
		c.t.Fatalf("after %v and a start: file %d, which was written then, is not there", o, number)
	} else if got, err := readFile(f); err != nil || !slices.EqualFunc(got, more, equal) {
		c.t.Fatalf("after %v and a start:%s\nwant%s\nerror %v", o, list(got), list(more), err)
	}
	for n := range found {
		if f := find(s, n); f == nil {
			c.t.Fatalf("after %v and a start: file %d, which was there, is not", o, n)
		}
	}
}

func find(s *dir, number uint64) *file {
	for _, f := range s.files.Load().files {
		if f.number == number {
			return f
		}
	}
	return nil
}

func (c *crashTest) mustOpen(o simfs.Op, image *simfs.FS) *dir {
	c.t.Helper()
	s, err := c.open(image)
	if err != nil {
		c.t.Fatalf("after %v: %v", o, err)
	}
	return s
}

// shown returns the files of an image; they are whole, and nothing else is there.
func (c *crashTest) shown(o simfs.Op, image *simfs.FS, s *dir) map[uint64]*file {
	c.t.Helper()
	found := map[uint64]*file{}
	for _, f := range s.files.Load().files {
		got, err := readFile(f)
		if err != nil || !slices.EqualFunc(got, c.files[f.number], equal) {
			c.t.Fatalf("after %v: file %d has%s\nwant%s\nerror %v", o, f.number, list(got), list(c.files[f.number]), err)
		}
		found[f.number] = f
	}
	if left := names(c.t, image); len(left) != len(found) {
		c.t.Fatalf("after %v: files %q, %d opened", o, left, len(found))
	}
	return found
}

func TestUnfinishedFilesAreRemovedAtOpen(t *testing.T) {
	fs := simfs.New()
	s := mustOpen(t, fs)
	mustWrite(t, s, ver(1, "a", 1, 2))
	w := s.Writer()
	for _, v := range manyBlocks() {
		if err := w.Add(v.inst, v.Version); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := names(t, fs), []string{historyKind.nameOf(1), historyKind.nameOf(2) + temporary}; !slices.Equal(got, want) {
		t.Fatalf("files %q, want %q", got, want)
	}
	s = mustOpen(t, fs)
	wantNames(t, fs, 1)
	mustWrite(t, s, ver(1, "b", 3, 4))
	wantNames(t, fs, 1, 2)
}

// errDisk is what a broken disk says.
var errDisk = errors.New("input/output error")
