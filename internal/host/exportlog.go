package host

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// ChangedRequest asks for one page of what log entries changed of some slots.
type ChangedRequest struct {
	Group keyspace.GroupID
	Slots format.SlotSet
	// From is exclusive, To inclusive; a replica must have applied To. Skip is
	// that of the page which reached From.
	From, To keyspace.Index
	Skip     uint32
	// MaxBytes is where the page ends, at the next border of entries; 0 for the
	// default. Only of entries that have much more it takes a part.
	MaxBytes int
}

const (
	// logReadBytes bounds the entries that the loop reads for a page at once.
	logReadBytes = 256 << 10
	// maxChangedVisit bounds the entries of one page, in bytes.
	maxChangedVisit = 8 << 20
	// maxChangedBytes is how much beyond its size a page may have rather than end
	// within an entry: one value of any size fits.
	maxChangedBytes = keyspace.MaxValueBytes
)

// changes reads a page of what follows a copy.
//
// The versions are those of the entries themselves, so that reading on costs what
// was written since, however often a key was overwritten; only chunks, which are
// entries of their own, are looked up. All of them go, whatever the view was that
// was copied: a copy that is resumed takes another one for the rest. What the floor has passed since its entry
// was applied may have lost them; then a newer version of the key, which comes
// later in the log, is all that anybody may read.
type changes struct {
	*export
	most    int
	visited int
	entry   format.Entry
	// places are the positions of the page's keys.
	places map[string]int
}

// ExportChanged returns one page of the versions that log entries wrote of keys
// of slots; its To is the entry that it reaches. It answers out_of_range when the
// log of this replica does not reach back to From any more, and
// failed_precondition when the group does not own the slots.
func (h *Host) ExportChanged(ctx context.Context, r ChangedRequest) (ExportPage, error) {
	e, err := h.startExport(ctx, r.Group, r.To, &r.Slots)
	if err != nil {
		return ExportPage{}, err
	}
	defer e.close()
	c := changes{export: e, most: r.MaxBytes, places: make(map[string]int)}
	if c.most <= 0 {
		c.most = defaultExportBytes
	}
	c.page.To, c.page.Skip = r.From, r.Skip
	for more := true; more && c.page.To < r.To; {
		entries, err := h.logEntries(ctx, r.Group, c.page.To+1, r.To)
		if err != nil {
			return ExportPage{}, err
		}
		if more, err = c.addEntries(entries); err != nil {
			return ExportPage{}, err
		}
	}
	slices.SortFunc(c.page.Keys, func(a, b format.ExportKey) int { return bytes.Compare(a.Key, b.Key) })
	return c.finish(), nil
}

// logEntries reads some entries from first on, up to last at most.
func (h *Host) logEntries(ctx context.Context, id keyspace.GroupID, first, last keyspace.Index) ([]*raftpb.Entry, error) {
	entries, err := onLoop(ctx, h, func() ([]*raftpb.Entry, error) {
		g := h.groups[id]
		if g == nil || g.core == nil {
			return nil, errNotHosted(id)
		}
		return g.storage.Entries(uint64(first), uint64(last)+1, logReadBytes)
	})
	switch {
	case errors.Is(err, raft.ErrCompacted), errors.Is(err, raft.ErrUnavailable):
		return nil, fault.Wrap(fault.OutOfRange, err, "the log of this replica does not reach back", "group", id, "index", first)
	case err != nil && ctx.Err() != nil:
		return nil, fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "the log was not read in time", "group", id)
	}
	return entries, err
}

// addEntries adds entries that follow those of the page; more is false when the
// page is full.
func (c *changes) addEntries(entries []*raftpb.Entry) (more bool, err error) {
	for _, e := range entries {
		if data := e.GetData(); e.GetType() == raftpb.EntryNormal && len(data) > 0 {
			if err := format.DecodeEntry(data, &c.entry); err != nil {
				return false, err
			}
			whole, err := c.addWrites()
			if err != nil || !whole {
				return false, err
			}
			c.visited += len(data)
		}
		c.page.To, c.page.Skip = keyspace.Index(e.GetIndex()), 0
		if c.bytes >= c.most || c.visited >= maxChangedVisit {
			return false, nil
		}
	}
	return true, nil
}

// addWrites adds what an entry wrote, unless that is too much.
func (c *changes) addWrites() (whole bool, err error) {
	for n := int(c.page.Skip); n < len(c.entry.Writes); n++ {
		w := &c.entry.Writes[n]
		if keyspace.KindOf(w.Key) != keyspace.KindData {
			continue
		}
		c.walk.key = w.Key
		wanted, err := c.walk.wanted()
		if err != nil {
			return false, err
		}
		if !wanted {
			continue
		}
		if full, err := c.addWrite(w); err != nil {
			return false, err
		} else if full {
			c.page.Skip = uint32(n)
			return false, nil
		}
	}
	return true, nil
}

// addWrite adds a version, unless the page would not fit into a message with it.
func (c *changes) addWrite(w *format.Write) (full bool, err error) {
	v := format.ExportVersion{Revision: w.Revision, Value: w.Value, Delete: w.Delete}
	size := exportVersionBytes + len(w.Value)
	if !w.Delete {
		rec, err := format.DecodeRecord(w.Value, w.Revision)
		if err == nil {
			v.Chunks, err = loadChunks(c.view, c.instance.id, &rec)
		}
		if fault.CodeOf(err) == fault.Corruption {
			passed, lookErr := c.passed(w)
			if lookErr != nil || passed {
				return false, lookErr
			}
		}
		if err != nil {
			return false, err
		}
		size += chunkedBytes(&rec)
	}
	if c.bytes > 0 && c.bytes+size > c.most+maxChangedBytes {
		return true, nil
	}
	at, present := c.places[string(w.Key)]
	if !present {
		at = len(c.page.Keys)
		c.places[string(w.Key)] = at
		c.page.Keys = append(c.page.Keys, format.ExportKey{Key: w.Key})
		size += len(w.Key)
	}
	c.bytes += size
	k := &c.page.Keys[at]
	n, again := slices.BinarySearchFunc(k.Versions, v.Revision, func(v format.ExportVersion, rev keyspace.Revision) int {
		return cmp.Compare(v.Revision, rev)
	})
	if !again {
		k.Versions = slices.Insert(k.Versions, n, v)
	}
	return false, nil
}

// passed reports whether the floor has passed the version that replaced w.
func (c *changes) passed(w *format.Write) (bool, error) {
	_, rev, ok, err := c.view.Get(c.instance.id, w.Key, c.floor())
	return ok && rev > w.Revision, err
}
