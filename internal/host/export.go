package host

import (
	"bytes"
	"context"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
)

// ExportRequest asks for one page of what a group has of some slots.
type ExportRequest struct {
	Group keyspace.GroupID
	Slots format.SlotSet
	// Rev is the revision of the view that is read, Index what a replica must
	// have applied to have all of it: those of a ClockReading.
	Rev   keyspace.Revision
	Index keyspace.Index
	// After is the disk key that the page before reached.
	After []byte
	// MaxBytes is where the page ends, at the next border of keys; 0 for the
	// default. A key that has more than that is whole in one page.
	MaxBytes int
}

// ExportPage is a part of what a group has of some slots.
type ExportPage = format.ExportPage

const (
	defaultExportBytes = 512 << 10
	// maxExportHistory bounds the versions of one key, in bytes.
	maxExportHistory = 1 << 20
	// exportSeek is how many versions of a key are stepped over before the rest is
	// left behind by a seek.
	exportSeek = 16
)

// export reads one page for a group that receives slots.
//
// Of each key it takes, from the newest version down, all that a read above the
// history floor may want: down to the newest one at or below the floor. The floor
// may rise on the way, and what it passes may be gone by then; so the page names
// the floor as it is at the end, above which nothing was missed. Of a key that was
// overwritten so often that it would fill the page of anybody, only the newest
// versions go, and the page's floor rises to the oldest of them.
//
// It holds a replica's instance like any reader, and nothing else waits for it. Like
// a page of a scan it looks at Options.ScanRecords versions at most: where few keys
// are of the slots it ends without any.
type export struct {
	look
	slots *format.SlotSet
	walk  keyWalk
	// from is the floor when the page began.
	from  keyspace.Revision
	page  ExportPage
	bytes int
}

// ExportSlots returns one page of the records of slots in the order of their
// disk keys: of each key all versions at or below the request's revision that
// a read above the history floor may want, with the chunks of large values. Any
// replica here serves it, once it has applied the request's index. It answers
// out_of_range when the floor has passed the revision, and failed_precondition
// when the group does not own the slots.
func (h *Host) ExportSlots(ctx context.Context, r ExportRequest) (ExportPage, error) {
	e, err := h.startExport(ctx, r.Group, r.Index, &r.Slots)
	if err != nil {
		return ExportPage{}, err
	}
	defer e.close()
	e.walk.it = e.view.Scan(mvcc.ScanOptions{Instance: e.instance.id, Lower: behindKey(r.After), Upper: userKeysEnd(),
		At: r.Rev, AllVersions: true})
	defer e.walk.it.Close()
	err = e.readRange(ctx, r.MaxBytes)
	if floor := e.floor(); r.Rev < floor { // first: then chunks may be missing
		return ExportPage{}, fault.New(fault.OutOfRange, "the revision is older than the history that is kept",
			"revision", uint64(r.Rev), "floor", uint64(floor))
	}
	if err != nil {
		return ExportPage{}, err
	}
	return e.finish(), nil
}

// startExport waits for an index and holds the replica; close must be called.
func (h *Host) startExport(ctx context.Context, id keyspace.GroupID, index keyspace.Index, slots *format.SlotSet) (*export, error) {
	if err := h.awaitIndex(ctx, id, index); err != nil {
		return nil, err
	}
	g := h.lookup(id)
	if g == nil {
		return nil, errNotHosted(id)
	}
	l, err := h.lookAt(g, ReadPoint{Group: id, Index: index, Rev: keyspace.MaxRevision})
	if err != nil {
		return nil, err
	}
	if s := l.state; !mayExport(s, slots) {
		l.close()
		return nil, fault.New(fault.FailedPrecondition, "the group does not own all of the slots", "group", id, "owned", s.Owned.String())
	}
	e := &export{look: l, slots: slots}
	e.walk.slots, e.from = slots, e.floor()
	return e, nil
}

// mayExport reports whether a group owns slots, or has given them up in a move
// that is not over: their records are deleted only after that.
func mayExport(s *format.SlotState, slots *format.SlotSet) bool {
	if s == nil {
		return true
	}
	has := s.Owned
	if s.Out != nil {
		has = has.With(&s.Out.Slots)
	}
	return has.Contains(slots)
}

func (e *export) finish() ExportPage {
	e.page.Floor = max(e.page.Floor, e.floor())
	return e.page
}

// readRange adds keys until the page is full.
func (e *export) readRange(ctx context.Context, most int) error {
	if most <= 0 {
		most = defaultExportBytes
	}
	w := &e.walk
	for w.next() {
		if err := late(ctx); err != nil {
			return err
		}
		wanted, err := w.wanted()
		if err == nil && wanted {
			err = e.addKey()
		}
		if err != nil {
			return err
		}
		w.leave()
		if e.bytes >= most || w.visited >= e.host.opt.ScanRecords {
			e.page.Last = slices.Clone(w.key)
			return nil
		}
	}
	e.page.Done, e.page.Last = true, slices.Clone(w.key)
	return w.it.Err()
}

// addKey adds the current key.
func (e *export) addKey() error {
	k := format.ExportKey{Key: bytes.Clone(e.walk.key)}
	it, size := e.walk.it, 0
	var newer keyspace.Revision // of the version before, 0 for none
	for ; it.Valid() && bytes.Equal(it.Key(), k.Key) && (newer == 0 || newer > e.from); it.Next() {
		e.walk.visited++
		v := format.ExportVersion{Revision: it.Revision(), Delete: it.Deleted()}
		more, err := e.readVersion(&v, maxExportHistory-size, newer)
		if err != nil {
			return err
		}
		if more < 0 {
			break
		}
		size += more
		newer = v.Revision
		k.Versions = append(k.Versions, v)
	}
	slices.Reverse(k.Versions)
	e.page.Keys = append(e.page.Keys, k)
	e.bytes += size + len(k.Key)
	return it.Err()
}

// readVersion fills v from the scan and returns what it takes; -1 for a version
// that does not go: there is no room for it, or the floor has passed it.
func (e *export) readVersion(v *format.ExportVersion, room int, newer keyspace.Revision) (size int, err error) {
	size = exportVersionBytes
	var rec format.Record
	if !v.Delete {
		value, err := e.walk.it.Value()
		if err != nil {
			return 0, err
		}
		v.Value = bytes.Clone(value)
		if rec, err = format.DecodeRecord(v.Value, v.Revision); err != nil {
			return 0, err
		}
		size += len(v.Value) + chunkedBytes(&rec)
	}
	if newer != 0 && size > room {
		e.page.Floor = max(e.page.Floor, newer)
		return -1, nil
	}
	v.Chunks, err = loadChunks(e.view, e.instance.id, &rec)
	if fault.CodeOf(err) == fault.Corruption && newer != 0 && newer <= e.floor() {
		return -1, nil // they went with what the floor has passed meanwhile
	}
	return size, err
}

// exportVersionBytes is about what a version takes beside its value.
const exportVersionBytes = 32

// chunkedBytes is the size of a value that is in chunks, else 0.
func chunkedBytes(rec *format.Record) int {
	if rec.Flags&format.FlagChunked == 0 || rec.Flags&format.FlagTombstone != 0 {
		return 0
	}
	return int(rec.Size)
}

// keyWalk walks over the keys of a scan of all versions, of which it looks at
// those of slots.
type keyWalk struct {
	it      *mvcc.Scanner
	slots   *format.SlotSet
	key     []byte // the current one, or the last one at the end
	visited int
}

// next takes the key that the scan stands on.
func (w *keyWalk) next() bool {
	if !w.it.Valid() {
		return false
	}
	w.key = append(w.key[:0], w.it.Key()...)
	w.visited++
	return true
}

// late reports the end of the time there is.
func late(ctx context.Context) error {
	if ctx.Err() != nil {
		return fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "the page was not read in time")
	}
	return nil
}

// wanted reports whether the current key is a user's, of one of the slots.
func (w *keyWalk) wanted() (bool, error) {
	ns, name, err := keyspace.DecodeDataKey(w.key)
	return err == nil && ns != keyspace.SystemNamespace && w.slots.Has(keyspace.SlotOf(ns, string(name))), err
}

// leave moves on to another key.
func (w *keyWalk) leave() {
	for n := 0; w.it.Valid() && bytes.Equal(w.it.Key(), w.key); n++ {
		if n == exportSeek {
			w.it.Seek(append(w.key, 0))
			return
		}
		w.visited++
		w.it.Next()
	}
}

// behindKey is the lower bound of what follows a disk key; nil is the start of
// the keys of users.
func behindKey(after []byte) []byte {
	if len(after) == 0 {
		return keyspace.AppendDataPrefix(nil, keyspace.DefaultNamespace, nil)
	}
	return append(bytes.Clone(after), 0)
}

// userKeysEnd is the upper bound of the keys of users.
func userKeysEnd() []byte { return keyspace.PrefixEnd([]byte{byte(keyspace.KindData)}) }
