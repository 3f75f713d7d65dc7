package mvcc

import (
	"bytes"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"kvstore/internal/keyspace"
)

// records remembers the newest version of keys that were read from below the deltas,
// so that a key that is read often costs one look instead of a search through
// every level. Nothing is remembered of absent keys.
//
// What it holds is right only together with the deltas: a reader looks at its
// deltas first, and before a flushed delta goes, each of its keys that is remembered
// takes over its newest version there, or is forgotten: a key that is read and
// overwritten again and again stays. A reader that took its deltas before that and comes back from the engine after
// it would bring an old version: it says which deltas it had (oldest), and is
// refused when a flush has begun to follow a delta that it still relied on
// (least). A version that is newer than what the reader asked for may have been
// flushed, too: so only a reader whose revision covers all flushed versions of the
// instance may add, and nobody as long as it is not known how far those reach.
//
// Each shard is a fixed number of bytes of entries in a ring (CLOCK): one that was
// used since the hand passed stays for another round. When it is full, a key is
// remembered the second time that it comes: where all keys are read alike and there
// are more than fit, the one that would go is as good as the one that comes, and
// copying it is for nothing.
type records struct {
	shards [recordShards]recordShard
	// least is the oldest delta that a reader must have had to add.
	least atomic.Uint64
	// flushed is the highest flushed revision of each instance of which it is
	// known; copied on write, under mu.
	mu      sync.Mutex
	flushed atomic.Pointer[map[keyspace.InstanceID]keyspace.Revision]
	limit   int64 // bytes of a shard
}

const (
	recordShards = 64
	// recordBytes is what an entry costs beside key and value.
	recordBytes = 128
	// largestRecord keeps one value from taking a shard.
	largestRecord = 64 << 10
)

type recordShard struct {
	mu    sync.Mutex
	byKey map[uint64]*cached // by hash; of two keys with one hash the later stays
	ring  []*cached
	hand  int
	bytes int64
	// came has of keys that came lately a part of their hash, where another part
	// says; made when the shard is full.
	came []uint16
}

// cameBytes is how many bytes of a shard there are for one place in came: about two
// places for each record that fits.
const cameBytes = 256

type cached struct {
	hash     uint64
	instance keyspace.InstanceID
	key      []byte
	value    []byte
	rev      keyspace.Revision
	used     bool
	at       int // in the ring, or gone
}

// gone is at of what is not remembered any more.
const gone = -1

func (c *cached) size() int64 { return int64(recordBytes + len(c.key) + len(c.value)) }

func newRecords(limit int64) *records {
	r := &records{limit: limit / recordShards}
	r.flushed.Store(&map[keyspace.InstanceID]keyspace.Revision{})
	for i := range r.shards {
		r.shards[i].byKey = make(map[uint64]*cached)
	}
	return r
}

func (r *records) shard(hash uint64) *recordShard { return &r.shards[hash%recordShards] }

// get returns the newest version of a key that no delta of the reader has, when
// it is at or below at.
func (r *records) get(hash uint64, inst keyspace.InstanceID, key []byte, at keyspace.Revision) (value []byte, rev keyspace.Revision, ok bool) {
	if r.limit == 0 {
		return nil, 0, false
	}
	s := r.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.byKey[hash]
	if c == nil || c.instance != inst || c.rev > at || !bytes.Equal(c.key, key) {
		return nil, 0, false
	}
	c.used = true
	return c.value, c.rev, true
}

// add remembers what a reader at revision at, whose oldest delta was oldest,
// found in the engine. It copies key and value.
func (r *records) add(hash uint64, inst keyspace.InstanceID, key, value []byte, rev, at keyspace.Revision, oldest DeltaID) {
	if top, known := r.top(inst); r.limit == 0 || len(value) > largestRecord || !known || at < top {
		return
	}
	s := r.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if uint64(oldest) < r.least.Load() {
		return
	}
	old := s.byKey[hash]
	full := s.bytes+int64(recordBytes+len(key)+len(value)) > r.limit
	if old == nil && full && !s.cameBefore(hash, r.limit) {
		return
	}
	s.remove(old)
	c := &cached{hash: hash, instance: inst, key: bytes.Clone(key), value: bytes.Clone(value), rev: rev, used: full, at: len(s.ring)}
	s.byKey[hash] = c
	s.ring = append(s.ring, c)
	s.bytes += c.size()
	for s.bytes > r.limit {
		s.evict()
	}
}

// cameBefore notes a key and reports whether it was noted already.
func (s *recordShard) cameBefore(hash uint64, limit int64) bool {
	if s.came == nil {
		s.came = make([]uint16, max(1, limit/cameBytes))
	}
	place := &s.came[hash>>16%uint64(len(s.came))]
	tag := uint16(hash>>48) | 1
	before := *place == tag
	*place = tag
	return before
}

// evict removes the first entry that was not used since the hand passed it.
func (s *recordShard) evict() {
	for {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		c := s.ring[s.hand]
		if !c.used {
			s.remove(c)
			return
		}
		c.used = false
		s.hand++
	}
}

func (s *recordShard) remove(c *cached) {
	if c == nil {
		return
	}
	last := len(s.ring) - 1
	s.ring[c.at] = s.ring[last]
	s.ring[c.at].at = c.at
	s.ring[last] = nil
	s.ring = s.ring[:last]
	s.bytes -= c.size()
	delete(s.byKey, c.hash)
	c.at = gone
}

// follow brings what is remembered of a delta's keys up to date; the delta is
// flushed and about to go.
func (r *records) follow(d *delta) {
	if r.limit == 0 {
		return
	}
	r.raise(d)
	r.least.Store(uint64(d.id) + 1)
	f := followers{records: r}
	d.index.each(f.add)
	f.drain()
}

// followers are items on their way into records, by shard: a shard is locked for some
// of them at a time, and what they look at is brought into the processor's caches
// together, as Prefetch does.
type followers struct {
	records *records
	shards  [recordShards][]follower
	waiting int
	seen    uint64
}

type follower struct {
	hash uint64
	item *item
}

// maxFollowers is how many items are collected before the shards get them.
const maxFollowers = 64 * recordShards

func (f *followers) add(hash uint64, it *item) {
	some := &f.shards[hash%recordShards]
	*some = append(*some, follower{hash, it})
	if f.waiting++; f.waiting == maxFollowers {
		f.drain()
	}
}

func (f *followers) drain() {
	for i := range f.shards {
		for some := range slices.Chunk(f.shards[i], PrefetchKeys) {
			f.seen += f.records.shards[i].renewAll(some, f.records.limit)
		}
		f.shards[i] = f.shards[i][:0]
	}
	f.waiting = 0
	runtime.KeepAlive(f.seen)
}

// renewAll renews what is remembered of at most PrefetchKeys items.
func (s *recordShard) renewAll(some []follower, limit int64) (seen uint64) {
	var known [PrefetchKeys]*cached
	var newest [PrefetchKeys]*version
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range some {
		known[i] = s.byKey[f.hash]
	}
	for i, f := range some {
		if c := known[i]; c != nil {
			newest[i] = f.item.newest.Load()
			seen += uint64(c.rev) + uint64(len(f.item.key))
		}
	}
	for i, f := range some {
		if c := known[i]; c != nil && len(c.key) > 0 && len(f.item.key) > 0 {
			seen += uint64(newest[i].depth) + uint64(c.key[0]) + uint64(f.item.key[0])
		}
	}
	for _, v := range newest {
		if v != nil {
			seen += v.touch(prefetchBytes)
		}
	}
	for i, f := range some {
		if c := known[i]; c != nil && c.at != gone { // it makes room for one before it, maybe
			s.renew(c, f.item, newest[i])
			for s.bytes > limit {
				s.evict()
			}
		}
	}
	return seen
}

// renew gives what is remembered of a key the newest version that was flushed, or
// forgets it. What slots that moved here brought may be older than what is
// remembered.
func (s *recordShard) renew(c *cached, it *item, newest *version) {
	switch {
	case newest.del, newest.rev <= c.rev, len(newest.value) > largestRecord, c.instance != it.instance, !bytes.Equal(c.key, it.key):
		s.remove(c)
	default:
		s.bytes -= c.size()
		c.value, c.rev = bytes.Clone(newest.value), newest.rev // readers may still have the old one
		s.bytes += c.size()
	}
}

// top returns how far the flushed versions of an instance reach, if it is known.
func (r *records) top(inst keyspace.InstanceID) (rev keyspace.Revision, known bool) {
	rev, known = (*r.flushed.Load())[inst]
	return rev, known
}

// raise notes the revisions of a delta before its keys are followed. What was
// not known stays so: the delta may be older than what was flushed before.
func (r *records) raise(d *delta) {
	tops := make(map[keyspace.InstanceID]keyspace.Revision)
	for inst, o := range *d.orders.Load() {
		if _, known := r.top(inst); known {
			tops[inst] = o.newest
		}
	}
	r.raiseTo(tops)
}

func (r *records) raiseTo(tops map[keyspace.InstanceID]keyspace.Revision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := maps.Clone(*r.flushed.Load())
	for inst, rev := range tops {
		next[inst] = max(next[inst], rev)
	}
	r.flushed.Store(&next)
}
