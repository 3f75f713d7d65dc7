package mvcc

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// delta is one layer of versions: an index for reading a key, an order per
// instance for walking keys, and the versions of each key behind its item. Only
// the writer inserts, and only while the delta is the active one.
//
// Overwriting a key touches neither index nor order: a version is linked in
// front of the others. Items and versions are cut from slabs, so that a
// dropped delta is freed in few pieces. Keys and values are not copied: they
// are parts of log entries that are in memory anyway.
type delta struct {
	id    DeltaID
	index index
	// orders is copied on write: instances are few and seldom new.
	orders atomic.Pointer[map[keyspace.InstanceID]*order]
	bytes  atomic.Int64

	// The writer's own.
	items    []item
	versions []version
	recent   *order // of the instance below
	instance keyspace.InstanceID
}

const (
	slabItems    = 256
	slabVersions = 512
	// versionBytes is what a version costs beside its key and value, itemBytes
	// what the first one of a key costs more, in index and order.
	versionBytes = 64
	itemBytes    = 96
)

func newDelta(id DeltaID) *delta {
	d := &delta{id: id}
	d.orders.Store(&map[keyspace.InstanceID]*order{})
	return d
}

// insert adds versions, of at most PrefetchKeys keys. Only the writer calls it.
func (d *delta) insert(inst keyspace.InstanceID, writes []format.Write) {
	var hashes [PrefetchKeys]uint64
	var added [PrefetchKeys]*item
	for i := range writes {
		hashes[i] = hashKey(inst, writes[i].Key)
	}
	if len(writes) > 1 {
		d.warm(hashes, len(writes))
	}
	o := d.orderOf(inst)
	news, size, cost := 0, 0, versionBytes*len(writes)
	for i := range writes {
		w := &writes[i]
		if w.Revision == 0 || w.Revision == keyspace.MaxRevision {
			panic(fmt.Sprintf("mvcc: insert of instance %d key %x at revision %d", inst, w.Key, uint64(w.Revision)))
		}
		o.newest = max(o.newest, w.Revision)
		size += len(w.Key) + len(w.Value)
		cost += len(w.Value)
		if it := d.put(inst, hashes[i], w); it != nil {
			added[news] = it
			news++
			cost += itemBytes + len(w.Key)
		}
	}
	if news > 0 {
		o.insert(added[:news]...)
	}
	o.bytes.Store(o.bytes.Load() + int64(size))
	d.bytes.Add(int64(cost))
}

// put adds a version to the item of its key, and returns that if it is new.
func (d *delta) put(inst keyspace.InstanceID, hash uint64, w *format.Write) (added *item) {
	v := d.newVersion()
	v.rev, v.value, v.del = w.Revision, w.Value, w.Delete
	it := d.index.get(hash, inst, w.Key)
	if it == nil {
		it = d.newItem()
		it.instance, it.key = inst, w.Key
		added = it
	}
	it.add(v)
	if added != nil {
		d.index.put(hash, it)
	}
	return added
}

// get returns the newest version of key at or below at, nil when there is
// none.
func (d *delta) get(hash uint64, inst keyspace.InstanceID, key []byte, at keyspace.Revision) *version {
	it := d.index.get(hash, inst, key)
	if it == nil {
		return nil
	}
	return it.at(at)
}

// orderOf returns the order of an instance, for the writer.
func (d *delta) orderOf(inst keyspace.InstanceID) *order {
	if d.recent != nil && d.instance == inst {
		return d.recent
	}
	old := *d.orders.Load()
	o := old[inst]
	if o == nil {
		o = new(order)
		next := maps.Clone(old)
		next[inst] = o
		d.orders.Store(&next)
	}
	d.recent, d.instance = o, inst
	return o
}

// order returns the order of an instance for a reader, nil when the delta has
// nothing of it.
func (d *delta) order(inst keyspace.InstanceID) *order { return (*d.orders.Load())[inst] }

// instances returns the instances present, in order.
func (d *delta) instances() []keyspace.InstanceID {
	return slices.Sorted(maps.Keys(*d.orders.Load()))
}

func (d *delta) newItem() *item {
	if len(d.items) == 0 {
		d.items = make([]item, slabItems)
	}
	it := &d.items[0]
	d.items = d.items[1:]
	return it
}

func (d *delta) newVersion() *version {
	if len(d.versions) == 0 {
		d.versions = make([]version, slabVersions)
	}
	v := &d.versions[0]
	d.versions = d.versions[1:]
	return v
}
