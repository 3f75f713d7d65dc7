package sstable

import (
	"bytes"
	"io"

	"kvstore/internal/keyspace"
)

// Range is what an Iterator returns.
type Range struct {
	Instance keyspace.InstanceID
	// Lower is inclusive, Upper exclusive; nil is unbounded.
	Lower, Upper []byte
	// At hides versions above it.
	At keyspace.Revision
	// Reverse goes from high keys to low ones. Not with AllVersions.
	Reverse bool
	// AllVersions returns every version at or below At, newest first per key.
	// Without it only those that stood at At are returned.
	AllVersions bool
}

// Iterator walks one file's versions within a range, deletions included. Seeks
// stay in the range. It serves one goroutine.
type Iterator struct {
	o Range
	c cursor
	v *Version // nil at the end
	// passed counts what a Merge passed over for newer versions of others.
	passed int64
}

// iterators returns one for each file, not yet at a position. Those over all versions
// read far ahead: snapshots and walks go through whole instances.
func iterators(files []*file, r Range) (its []*Iterator) {
	for _, f := range files {
		from := &window{f: f.f, size: f.size, list: !r.AllVersions}
		its = append(its, &Iterator{o: r, c: cursor{file: f, from: from, instance: r.Instance}})
	}
	return its
}

// Version returns the current version, nil at the end and after an error. It
// stays valid.
func (i *Iterator) Version() *Version { return i.v }

// Err returns why the iterator ended early.
func (i *Iterator) Err() error { return i.c.err }

// SeekForward goes to the first key at or above key.
func (i *Iterator) SeekForward(key []byte) {
	i.c.seek(key)
	i.settle()
}

// SeekBackward goes to the highest key below key, or at it if inclusive. A nil
// key is the end of the instance.
func (i *Iterator) SeekBackward(key []byte, inclusive bool) {
	switch {
	case key == nil:
		i.c.seekEnd()
	case inclusive:
		i.c.seek(append(bytes.Clone(key), 0))
	default:
		i.c.seek(key)
	}
	i.settleBack()
}

// Next goes on by one key, or one version with AllVersions.
func (i *Iterator) Next() {
	switch {
	case i.o.Reverse:
		i.c.seek(i.v.Key)
		i.settleBack()
		return
	case i.o.AllVersions:
		i.c.next()
	default:
		i.c.leave(i.v.Key)
	}
	i.settle()
}

// settle stops at the first version that the range has.
func (i *Iterator) settle() {
	for i.v = i.c.version(); i.v != nil; i.v = i.c.version() {
		switch {
		case i.o.Upper != nil && bytes.Compare(i.v.Key, i.o.Upper) >= 0:
			i.v = nil
			return
		case i.v.Revision > i.o.At:
			i.c.next()
		case i.o.AllVersions || i.v.stands(i.o.At):
			return
		default:
			i.c.leave(i.v.Key) // its successor is elsewhere
		}
	}
}

// settleBack goes back from the cursor, which stands on the first version of a
// key or at the end, to the first key before it of which a version stood at At.
func (i *Iterator) settleBack() {
	i.v = nil
	for i.c.prev() {
		v := i.c.version()
		if bytes.Compare(v.Key, i.o.Lower) < 0 {
			return
		}
		if v.Revision <= i.o.At && v.stands(i.o.At) {
			i.v = v
			return
		}
	}
}

// cursor is a position in one file, within one instance.
type cursor struct {
	file     *file
	from     io.ReaderAt // what blocks are read from
	instance keyspace.InstanceID
	block    int // of versions, when those are there
	versions []Version
	at       int
	err      error
}

// version returns the current one, nil at the end and after an error.
func (c *cursor) version() *Version {
	if c.err != nil || c.at < 0 || c.at >= len(c.versions) {
		return nil
	}
	return &c.versions[c.at]
}

// load goes to block n, if that is of the instance.
func (c *cursor) load(n int) bool {
	if c.err != nil || !c.file.blocks.of(n, c.instance) {
		return false
	}
	if c.versions == nil || c.block != n {
		c.versions, c.err = c.file.read(c.from, n)
		c.block = n
	}
	return c.err == nil
}

// seek goes to the newest version of the first key at or above key.
func (c *cursor) seek(key []byte) {
	const rev = keyspace.MaxRevision // the first of its key
	n := c.file.blocks.find(c.instance, key, rev)
	if !c.load(n) {
		if c.at = 0; !c.load(n + 1) {
			c.seekEnd()
		}
		return
	}
	for c.at = 0; c.at < len(c.versions); c.at++ {
		if v := &c.versions[c.at]; !before(v.Key, v.Revision, key, rev) {
			return
		}
	}
	c.skip()
}

// seekEnd goes behind the last version of the instance.
func (c *cursor) seekEnd() {
	n := c.file.blocks.behind(c.instance) - 1
	if !c.load(n) {
		c.versions, c.at = nil, 0
		return
	}
	c.at = len(c.versions)
}

func (c *cursor) next() {
	c.at++
	c.skip()
}

// leave goes on to the next key.
func (c *cursor) leave(key []byte) {
	for v := c.version(); v != nil && bytes.Equal(v.Key, key); v = c.version() {
		c.next()
	}
}

// skip goes on to the next block from the end of one; behind the last block the
// cursor stays at its end.
func (c *cursor) skip() {
	if c.at >= len(c.versions) && c.load(c.block+1) {
		c.at = 0
	}
}

// prev goes back by one version; false at the start of the instance.
func (c *cursor) prev() bool {
	if c.err != nil || c.versions == nil {
		return false
	}
	if c.at == 0 {
		if !c.load(c.block - 1) {
			return false
		}
		c.at = len(c.versions)
	}
	c.at--
	return true
}
