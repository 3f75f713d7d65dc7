package mem

import (
	"bytes"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

type reader struct{ m *Mem }

// Get returns the newest version at or below at.
func (r *reader) Get(key []byte, at keyspace.Revision) ([]byte, keyspace.Revision, bool, error) {
	v := r.m.root().seek(key, at)
	if v == nil || v.delete || !bytes.Equal(v.key, key) {
		return nil, 0, false, nil
	}
	return v.value, v.rev, true, nil
}

// Iterate returns an iterator on the first key of its range.
func (r *reader) Iterate(o engine.IterOptions) engine.Iterator {
	if o.Reverse && o.AllVersions {
		panic("mem: an iterator over all versions cannot be reversed")
	}
	root := r.m.root()
	i := &iterator{root: root, o: o}
	switch {
	case !o.Reverse:
		i.forward(o.Lower)
	case o.Upper == nil:
		i.backward(root.last())
	default:
		i.backward(root.seekBefore(o.Upper, keyspace.MaxRevision))
	}
	return i
}

func (r *reader) Close() { r.m = nil }

type iterator struct {
	root *tree
	o    engine.IterOptions
	at   *version // nil when not valid
}

func (i *iterator) covers(v *version) bool {
	return v != nil && bytes.Compare(v.key, i.o.Lower) >= 0 &&
		(i.o.Upper == nil || bytes.Compare(v.key, i.o.Upper) < 0)
}

// forward goes to the first version to return at or after key.
func (i *iterator) forward(key []byte) {
	i.settleForward(i.root.seek(key, i.o.At))
}

func (i *iterator) settleForward(v *version) {
	for i.at = nil; i.covers(v); v = i.root.seek(v.key, 0) {
		// v is the first version after a step: of a new key it may be too new.
		if v.rev > i.o.At {
			old := i.root.seek(v.key, i.o.At)
			if old == nil || !bytes.Equal(old.key, v.key) {
				continue
			}
			v = old
		}
		if v.delete && !i.o.AllVersions {
			continue
		}
		i.at = v
		return
	}
}

// backward goes to the last key to return that is not after v's.
func (i *iterator) backward(v *version) {
	for i.at = nil; i.covers(v); v = i.root.seekBefore(v.key, keyspace.MaxRevision) {
		newest := i.root.seek(v.key, i.o.At)
		if newest == nil || newest.delete || !bytes.Equal(newest.key, v.key) {
			continue
		}
		i.at = newest
		return
	}
}

// Seek goes to key, or the nearest after it, within the range.
func (i *iterator) Seek(key []byte) {
	switch {
	case !i.o.Reverse && bytes.Compare(key, i.o.Lower) < 0:
		key = i.o.Lower
	case i.o.Reverse && i.o.Upper != nil && bytes.Compare(key, i.o.Upper) >= 0:
		i.backward(i.root.seekBefore(i.o.Upper, keyspace.MaxRevision))
		return
	}
	if i.o.Reverse {
		i.backward(i.root.seekBefore(key, 0))
		return
	}
	i.forward(key)
}

// Next moves on by one key, or one version with AllVersions.
func (i *iterator) Next() {
	switch {
	case i.at == nil:
	case i.o.Reverse:
		i.backward(i.root.seekBefore(i.at.key, keyspace.MaxRevision))
	case i.o.AllVersions:
		i.settleForward(i.root.seek(i.at.key, i.at.rev-1))
	default:
		i.settleForward(i.root.seek(i.at.key, 0))
	}
}

func (i *iterator) Valid() bool                 { return i.at != nil }
func (i *iterator) Key() []byte                 { return i.at.key }
func (i *iterator) Revision() keyspace.Revision { return i.at.rev }
func (i *iterator) Value() ([]byte, error)      { return i.at.value, nil }
func (i *iterator) Deleted() bool               { return i.at.delete }
func (i *iterator) Err() error                  { return nil }
func (i *iterator) Close()                      { i.at, i.root = nil, nil }
