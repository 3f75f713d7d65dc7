package host

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
)

// Get reads one key with the permission p. It answers not_found for absent,
// deleted and expired keys, wrong_group for one of a slot that the group did not
// own then, and corruption when a checksum does not match. It waits for the end of
// a transaction that was prepared before the permission and may write the key, or
// looked at it when its deadline had not passed yet; unavailable when ctx ends
// first.
// With keysOnly large values are not joined.
func (h *Host) Get(ctx context.Context, p ReadPoint, ns keyspace.NamespaceID, key string, keysOnly bool) (*format.Record, error) {
	g := h.lookup(p.Group)
	if g == nil {
		return nil, errNotHosted(p.Group)
	}
	for {
		if err := h.passLocks(ctx, g, &p, ns, key); err != nil {
			return nil, err
		}
		rec, err := h.getAt(g, p, ns, key, keysOnly)
		if err != nil {
			return nil, err
		}
		if rec == nil || rec.Flags&format.FlagTombstone != 0 {
			return nil, notFound(key)
		}
		if rec.Expires == 0 || rec.Expires > max(p.Physical, p.Clock.UnixMilli()) {
			return rec, nil
		}
		if rec.Expires <= p.Clock.UnixMilli() {
			waited, err := h.passExpiry(ctx, g, &p, ns, key)
			switch {
			case err != nil:
				return nil, err
			case waited:
				continue
			}
			return nil, notFound(key)
		}
		if p.Level != Linearizable {
			return rec, nil
		}
		// Physical time says expired, the applied ceiling does not reach that
		// far: an entry raises it first (DESIGN 6).
		if p, err = h.ReadIndexWait(ctx, p.Group, keyspace.RevisionAt(p.Physical)); err != nil {
			return nil, err
		}
	}
}

func notFound(key string) error {
	return fault.New(fault.NotFound, "the key does not exist", "key", key)
}

// ReadIndexWait is ReadIndex that blocks; the answer's clock is at least atLeast.
func (h *Host) ReadIndexWait(ctx context.Context, id keyspace.GroupID, atLeast keyspace.Revision) (ReadPoint, error) {
	type answer struct {
		p   ReadPoint
		err error
	}
	out := make(chan answer, 1)
	h.readIndex(ctx, id, atLeast, func(p ReadPoint, err error) { out <- answer{p, err} })
	select {
	case a := <-out:
		return a.p, a.err
	case <-ctx.Done():
		return ReadPoint{}, fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "the read was not confirmed in time", "group", id)
	}
}

func (h *Host) getAt(g *group, p ReadPoint, ns keyspace.NamespaceID, key string, keysOnly bool) (*format.Record, error) {
	r, err := h.lookAt(g, p)
	if err != nil {
		return nil, err
	}
	defer r.close()
	p.Slots = r.slots
	if err := p.owns(ns, key); err != nil {
		return nil, err
	}
	rec := new(format.Record)
	found, err := r.get(ns, key, keysOnly, rec)
	if err != nil || !found {
		return nil, err
	}
	if rec.Flags&format.FlagChunked == 0 {
		rec.Value = slices.Clone(rec.Value)
	}
	return rec, nil
}

// Locked reports whether something is prepared that a reader at p has to know: Get may
// wait for it.
func (h *Host) Locked(p ReadPoint) bool {
	g := h.lookup(p.Group)
	if g == nil {
		return false
	}
	locked, _ := g.locks.look(p.Rev)
	return locked
}

// GetEach is Get for many keys of a group with one view of its replica. It
// calls each with every key's number in order and its record or error, until
// that returns false; the record is valid during the call, with its value. With
// an error it has called none.
func (h *Host) GetEach(ctx context.Context, p ReadPoint, ns keyspace.NamespaceID, n int, key func(int) string, keysOnly bool,
	each func(i int, rec *format.Record, err error) bool) error {
	g := h.lookup(p.Group)
	if g == nil {
		return errNotHosted(p.Group)
	}
	if locked, _ := g.locks.look(p.Rev); locked {
		for i := range n {
			if err := h.passLocks(ctx, g, &p, ns, key(i)); err != nil {
				return err
			}
		}
	}
	r, err := h.lookAt(g, p)
	if err != nil {
		return err
	}
	defer r.close()
	p.Slots = r.slots
	var rec format.Record
	var keys [mvcc.PrefetchKeys][]byte
	for from := 0; from < n; from += len(keys) {
		some := keys[:min(len(keys), n-from)]
		r.diskKeys(ns, some, func(i int) string { return key(from + i) })
		if len(some) > 1 {
			r.view.Prefetch(r.instance.id, some)
		}
		for i, diskKey := range some {
			name := key(from + i)
			if err := p.owns(ns, name); err != nil {
				if !each(from+i, nil, err) {
					return nil
				}
				continue
			}
			found, err := r.read(diskKey, name, keysOnly, &rec)
			at := &rec
			switch {
			case err != nil:
			case !found || rec.Flags&format.FlagTombstone != 0:
				err = notFound(name)
			case rec.Expires != 0 && rec.Expires <= max(p.Physical, p.Clock.UnixMilli()):
				at, err = h.Get(ctx, p, ns, name, keysOnly) // perhaps it has to wait
			}
			if !each(from+i, at, err) {
				return nil
			}
		}
	}
	return nil
}

// look is a view of a replica at a point.
type look struct {
	host     *Host
	group    *group
	instance *instance
	state    *format.SlotState // when the view was taken
	slots    *format.SlotState // what the group owned at rev
	view     *mvcc.View
	rev      keyspace.Revision
	key      *[]byte // of keyBuffers
}

// lookAt holds the replica of a point's group; close must be called.
//
// What was committed since the permission may have been acknowledged before it,
// at a revision that another group's clock gave: then the newest state is read.
func (h *Host) lookAt(g *group, p ReadPoint) (look, error) {
	_, freed := g.locks.look(p.Rev)
	pub, err := g.acquire(h) // after the locks: it has what they were let go for
	if err != nil {
		return look{}, err
	}
	if pub.index < p.Index {
		pub.instance.release(h)
		return look{}, errYounger(p)
	}
	l := look{host: h, group: g, instance: pub.instance, state: pub.slots, slots: p.Slots,
		view: h.opt.Store.View(), rev: p.Rev, key: keyBuffers.Get().(*[]byte)}
	if freed && !p.Fixed && p.Level == Linearizable {
		l.rev, l.slots = max(p.Rev, pub.readRev), pub.slots
	}
	return l, nil
}

// keyBuffers hold disk keys while they are looked up.
var keyBuffers = sync.Pool{New: func() any { return new([]byte) }}

func (r *look) close() {
	keyBuffers.Put(r.key)
	r.view.Close()
	r.instance.release(r.host)
}

// get reads one key into rec, whose value is valid until close unless it was
// joined from chunks.
func (r *look) get(ns keyspace.NamespaceID, key string, keysOnly bool, rec *format.Record) (found bool, err error) {
	*r.key = keyspace.AppendDataKey((*r.key)[:0], ns, []byte(key))
	return r.read(*r.key, key, keysOnly, rec)
}

// diskKeys fills keys, which are valid until the next call.
func (r *look) diskKeys(ns keyspace.NamespaceID, keys [][]byte, name func(int) string) {
	b := (*r.key)[:0]
	var ends [mvcc.PrefetchKeys]int
	for i := range keys {
		b = keyspace.AppendDataKey(b, ns, []byte(name(i)))
		ends[i] = len(b)
	}
	*r.key = b
	from := 0
	for i := range keys {
		keys[i] = b[from:ends[i]]
		from = ends[i]
	}
}

func (r *look) read(diskKey []byte, key string, keysOnly bool, rec *format.Record) (found bool, err error) {
	value, rev, ok, err := r.view.Get(r.instance.id, diskKey, r.rev)
	if err != nil || !ok {
		return false, err
	}
	if *rec, err = format.DecodeRecord(value, rev); err != nil {
		return false, fmt.Errorf("key %q in group %d: %w", key, r.group.id, err)
	}
	if keysOnly {
		rec.Value = nil
		return true, nil
	}
	if err := joinChunks(r.view, r.instance.id, rec); err != nil {
		return false, fmt.Errorf("key %q in group %d: %w", key, r.group.id, err)
	}
	return true, nil
}

// errYounger answers a permission that an earlier replica on this node gave:
// the present one has not caught up with it.
func errYounger(p ReadPoint) error {
	return fault.New(fault.Unavailable, "the replica on this node was replaced during the read", "group", p.Group, "index", p.Index)
}

// joinChunks loads a large value and verifies its checksum. Chunks are read at
// the record's own revision, where no later write has deleted them.
func joinChunks(view *mvcc.View, inst keyspace.InstanceID, rec *format.Record) error {
	if rec.Flags&format.FlagChunked == 0 || rec.Flags&format.FlagTombstone != 0 {
		return nil
	}
	value := make([]byte, 0, rec.Size)
	err := eachChunk(view, inst, rec, func(b []byte) { value = append(value, b...) })
	if err == nil {
		rec.Value = value
	}
	return err
}

// loadChunks is joinChunks that leaves the chunks as they are.
func loadChunks(view *mvcc.View, inst keyspace.InstanceID, rec *format.Record) (chunks [][]byte, err error) {
	if rec.Flags&format.FlagChunked == 0 || rec.Flags&format.FlagTombstone != 0 {
		return nil, nil
	}
	err = eachChunk(view, inst, rec, func(b []byte) { chunks = append(chunks, slices.Clone(b)) })
	return chunks, err
}

// eachChunk reads the chunks of a large value in order; the value is right only
// if there is no error in the end.
func eachChunk(view *mvcc.View, inst keyspace.InstanceID, rec *format.Record, each func([]byte)) error {
	var size uint64
	var sum uint32
	for n := range rec.Chunks.Count {
		b, _, ok, err := view.Get(inst, keyspace.AppendChunkKey(nil, rec.Chunks.Upload, n), rec.Revision)
		if err != nil {
			return err
		}
		if !ok {
			return fault.New(fault.Corruption, "a chunk of the value is missing", "chunk", n, "of", rec.Chunks.Count)
		}
		size, sum = size+uint64(len(b)), format.AddCRC32C(sum, b)
		each(b)
	}
	if size != rec.Size || sum != rec.Checksum {
		return fault.New(fault.Corruption, "the value does not match its checksum", "size", size, "want_size", rec.Size)
	}
	return nil
}

// StaleRead gives permission to read what this replica has, if that is at most
// maxAge old.
func (h *Host) StaleRead(id keyspace.GroupID, maxAge time.Duration) (ReadPoint, error) {
	g := h.lookup(id)
	if g == nil {
		return ReadPoint{}, errNotHosted(id)
	}
	p := g.published.Load()
	if p == nil {
		return ReadPoint{}, errNotHosted(id)
	}
	age := time.Duration(max(0, h.opt.Clock.Wall()-p.closed.UnixMilli())) * time.Millisecond
	if age > maxAge {
		return ReadPoint{}, fault.New(fault.Unavailable, "the replica on this node is too far behind for the asked staleness",
			"age", age, "limit", maxAge)
	}
	return ReadPoint{Group: id, Index: p.index, Rev: p.closed, Clock: p.closed, Level: BoundedStaleness, Age: age, Slots: p.slots}, nil
}

// PointAt gives permission to read a group as of rev: out_of_range below the
// history floor, failed_precondition when rev is not closed here yet.
func (h *Host) PointAt(id keyspace.GroupID, rev keyspace.Revision) (ReadPoint, error) {
	g := h.lookup(id)
	if g == nil {
		return ReadPoint{}, errNotHosted(id)
	}
	p := g.published.Load()
	if p == nil {
		return ReadPoint{}, errNotHosted(id)
	}
	floor := keyspace.Revision(h.floor.Load())
	if p.slots != nil {
		floor = max(floor, p.slots.Floor)
	}
	if rev < floor {
		return ReadPoint{}, fault.New(fault.OutOfRange, "the revision is older than the history that is kept",
			"revision", uint64(rev), "floor", uint64(floor))
	}
	if rev > p.closed {
		return ReadPoint{}, fault.New(fault.FailedPrecondition, "the revision is not closed on this replica",
			"revision", uint64(rev), "closed", uint64(p.closed))
	}
	return ReadPoint{Group: id, Index: p.index, Rev: rev, Clock: rev, Fixed: true, Slots: p.slots}, nil
}

// PointBehind is PointAt that takes a clock's reading for what is not closed here
// yet: it waits until this replica has what the reading covers, and that has to
// cover rev.
func (h *Host) PointBehind(ctx context.Context, at ScanPoint, rev keyspace.Revision) (ReadPoint, error) {
	point, err := h.PointAt(at.Group, rev)
	if fault.CodeOf(err) != fault.FailedPrecondition || at.Index == 0 {
		return point, err
	}
	if err := h.awaitIndex(ctx, at.Group, at.Index); err != nil {
		return ReadPoint{}, err
	}
	g := h.lookup(at.Group)
	if g == nil {
		return ReadPoint{}, errNotHosted(at.Group)
	}
	p := g.published.Load()
	if p == nil || p.index < at.Index {
		return ReadPoint{}, errYounger(ReadPoint{Group: at.Group, Index: at.Index})
	}
	return ReadPoint{Group: at.Group, Index: at.Index, Rev: rev, Clock: rev, Fixed: true, Slots: p.slots}, nil
}
