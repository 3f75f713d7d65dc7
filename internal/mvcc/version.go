package mvcc

import (
	"sync/atomic"

	"kvstore/internal/keyspace"
)

// version is one value of a key. Nothing of it changes once it is reachable.
//
// The versions of a key form a list, newest first, with jump pointers: jump
// skips back over a number of versions that follows the digits of depth in the
// skew binary system (Myers, "An applicative random-access stack", 1983), so
// that the version of an old revision is found in a logarithmic number of
// steps however often a key was overwritten, with one pointer per version and
// none to change. It is of the size of a cache line, and slabs of them begin at one.
type version struct {
	rev   keyspace.Revision
	prev  *version
	jump  *version
	value []byte
	depth uint32 // versions behind this one
	skips uint32 // how many of them jump skips, itself included
	del   bool
}

// behind links v in front of prev, which may be nil.
func (v *version) behind(prev *version) {
	v.prev, v.jump, v.depth, v.skips = prev, prev, 0, 0
	if prev == nil {
		return
	}
	v.depth, v.skips = prev.depth+1, 1
	if far := prev.jump; far != nil && far.jump != nil && prev.skips == far.skips {
		v.jump, v.skips = far.jump, 1+prev.skips+far.skips
	}
}

// at returns the newest version at or below rev, nil when there is none.
func (v *version) at(rev keyspace.Revision) *version {
	for v != nil && v.rev > rev {
		if v.jump != nil && v.jump.rev > rev {
			v = v.jump
		} else {
			v = v.prev
		}
	}
	return v
}

// after returns the oldest version above rev, nil when there is none.
func (v *version) after(rev keyspace.Revision) *version {
	var last *version
	for v != nil && v.rev > rev {
		last = v
		if v.jump != nil && v.jump.rev > rev {
			v = v.jump
		} else {
			v = v.prev
		}
	}
	return last
}

// ascending returns v and what is behind it, oldest first.
func (v *version) ascending() []*version {
	all := make([]*version, v.depth+1)
	for i := len(all) - 1; i >= 0; i-- {
		all[i] = v
		v = v.prev
	}
	return all
}

// item is a key of one instance with its versions.
type item struct {
	key      []byte
	instance keyspace.InstanceID
	newest   atomic.Pointer[version]
}

func (it *item) at(rev keyspace.Revision) *version { return it.newest.Load().at(rev) }

// add puts v where its revision belongs; a version of the same revision is
// replaced. Versions come in ascending order, but for repetitions, so that all
// but the first case are rare: what is newer than v is then linked anew.
func (it *item) add(v *version) {
	head := it.newest.Load()
	if head == nil || head.rev < v.rev {
		v.behind(head)
		it.newest.Store(v)
		return
	}
	var newer []*version
	for head != nil && head.rev > v.rev {
		newer = append(newer, head)
		head = head.prev
	}
	if head != nil && head.rev == v.rev {
		head = head.prev
	}
	v.behind(head)
	for i := len(newer) - 1; i >= 0; i-- {
		again := &version{rev: newer[i].rev, value: newer[i].value, del: newer[i].del}
		again.behind(v)
		v = again
	}
	it.newest.Store(v)
}
