package mvcc

import (
	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
	"kvstore/internal/sstable"
)

// View reads a Store from one moment on. It serves one goroutine and must be
// closed. It keeps the memory of its deltas, so it should not live long.
type View struct {
	store  *Store
	layers layers
	reader engine.Reader // opened when first needed, after the deltas were taken
	buf    []byte        // the engine key being asked for
}

// View takes the deltas of this moment.
func (s *Store) View() *View { return &View{store: s, layers: s.layers()} }

// Active returns the delta that was active when the view was taken: the view
// may hold data of instances that were dropped since.
func (v *View) Active() DeltaID { return v.layers.active().id }

// Get returns the newest version of key (without instance) at or below at. ok
// is false when there is none or it is an engine deletion; tombstone records
// are returned as records. value is valid until Close and must not be changed.
func (v *View) Get(inst keyspace.InstanceID, key []byte, at keyspace.Revision) (value []byte, rev keyspace.Revision, ok bool, err error) {
	hash := hashKey(inst, key)
	if found := v.layers.get(hash, inst, key, at); found != nil {
		if found.del {
			return nil, 0, false, nil
		}
		return found.value, found.rev, true, nil
	}
	records := v.store.records
	if value, rev, ok := records.get(hash, inst, key, at); ok {
		return value, rev, true, nil
	}
	value, rev, ok, err = v.flushed(hash, inst, key, at)
	if ok {
		records.add(hash, inst, key, value, rev, at, v.layers.oldest().id)
	}
	return value, rev, ok, err
}

// flushed looks in what deltas have left behind: first in the runs, from which
// versions go to the others.
func (v *View) flushed(hash uint64, inst keyspace.InstanceID, key []byte, at keyspace.Revision) (value []byte, rev keyspace.Revision, ok bool, err error) {
	found, here, err := v.inFiles(hash, inst, key, at)
	if err != nil || here && found.Revision > v.store.apart.top(inst) {
		return current(found, err)
	}
	v.buf = append(keyspace.AppendInstance(v.buf[:0], inst), key...)
	value, rev, ok, err = v.open().Get(v.buf, at)
	if here && err == nil && (!ok || rev < found.Revision) {
		return current(found, nil)
	}
	return value, rev, ok, err
}

// current is the answer that a version is.
func current(found sstable.Version, err error) (value []byte, rev keyspace.Revision, ok bool, _ error) {
	if err != nil || found.Delete {
		return nil, 0, false, err
	}
	return found.Value, found.Revision, true, nil
}

// inFiles returns the newest version at or below at in runs and history.
func (v *View) inFiles(hash uint64, inst keyspace.InstanceID, key []byte, at keyspace.Revision) (found sstable.Version, here bool, err error) {
	if r := v.store.options.Runs; r != nil {
		for stale := true; stale; {
			if found, here, stale, err = r.Get(hash, inst, key, at); err != nil {
				return sstable.Version{}, false, err
			}
		}
	}
	if h := v.store.options.History; h != nil && h.Covers(inst, at) {
		old, replaced, err := h.Get(inst, key, at)
		if err != nil {
			return sstable.Version{}, false, err
		}
		if replaced && (!here || old.Revision > found.Revision) {
			found, here = old, true
		}
	}
	return found, here, nil
}

func (v *View) open() engine.Reader {
	if v.reader == nil {
		v.reader = v.store.engine.Reader()
	}
	return v.reader
}

// Close ends the view. Scanners must be closed before.
func (v *View) Close() {
	if v.reader != nil {
		v.reader.Close()
		v.reader = nil
	}
	v.layers = nil
}
