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

// merging compares a page with what the receiver has.
//
// A key's versions are the same wherever it was, and they come in ascending order:
// so what the receiver lacks of a key is what is newer than its own newest version,
// and a copy that is done again writes only what changed. Whatever else the
// receiver has of the slots is left over from a copy that was given up.
//
// Leftovers that the sender does not know are writes that the sender's group lost
// with a quorum, after they were copied (kvctl cluster recover); it then started its
// clock above them. They get hidden at the revision of the view: a key that the
// page lacks by a deletion, one of which the sender has only older versions by the
// newest of these, once more. Reads below that revision could still meet them, so
// the page's floor rises to it.
type merging struct {
	look
	walk keyWalk
	page *ExportPage
	at   keyspace.Revision
	out  []format.ExportKey
	// done is how many of the page's keys were compared.
	done int
}

// MergePage returns what the group, which receives slots and is led here, has to
// import of a page that begins behind the disk key after and was read at revision
// at; of a page of changes neither matters. All earlier imports must be applied.
//
// It may raise the page's floor, and where the receiver has many other keys it
// shortens the page: the caller goes on behind the page's Last as it is then.
func (h *Host) MergePage(ctx context.Context, id keyspace.GroupID, slots *format.SlotSet, page *ExportPage, after []byte, at keyspace.Revision) ([]format.ExportKey, error) {
	g := h.lookup(id)
	if g == nil {
		return nil, errNotHosted(id)
	}
	if p := g.published.Load(); p == nil || !p.serving {
		return nil, wrongLeader(id, p)
	}
	l, err := h.lookAt(g, ReadPoint{Group: id, Rev: keyspace.MaxRevision})
	if err != nil {
		return nil, err
	}
	defer l.close()
	if s := l.state; s != nil && s.Owned.Meets(slots) {
		return nil, fault.New(fault.FailedPrecondition, "the group owns slots that it should receive", "group", id, "owned", s.Owned.String())
	}
	m := merging{look: l, page: page, at: at}
	m.walk.slots = slots
	if page.To != 0 {
		err = m.changes()
	} else {
		err = m.keys(ctx, after)
	}
	return m.out, err
}

// scan begins to walk over the newest versions of a range of keys.
func (m *merging) scan(lower, upper []byte) {
	m.walk.it = m.view.Scan(mvcc.ScanOptions{Instance: m.instance.id, Lower: lower, Upper: upper,
		At: keyspace.MaxRevision, AllVersions: true, KeysOnly: true})
}

// changes compares a page of changes: only what it has.
func (m *merging) changes() error {
	keys := m.page.Keys
	if len(keys) == 0 {
		return nil
	}
	m.scan(keys[0].Key, behindKey(keys[len(keys)-1].Key))
	it := m.walk.it
	defer it.Close()
	for i := range keys {
		k := &keys[i]
		it.Seek(k.Key)
		newest := keyspace.Revision(0)
		if it.Valid() && bytes.Equal(it.Key(), k.Key) {
			newest = it.Revision()
		}
		m.take(k, newest)
	}
	return it.Err()
}

// keys compares a range of keys.
func (m *merging) keys(ctx context.Context, after []byte) error {
	upper := userKeysEnd()
	if !m.page.Done {
		upper = behindKey(m.page.Last)
	}
	m.scan(behindKey(after), upper)
	w := &m.walk
	defer w.it.Close()
	for w.next() {
		if err := late(ctx); err != nil {
			return err
		}
		if err := m.compare(); err != nil {
			return err
		}
		w.leave()
		if w.visited >= m.host.opt.ScanRecords && w.it.Valid() {
			m.shorten()
			return nil
		}
	}
	m.takeBelow(nil)
	return w.it.Err()
}

// compare deals with the receiver's current key and the page's up to it.
func (m *merging) compare() error {
	m.takeBelow(m.walk.key)
	wanted, err := m.walk.wanted()
	if err != nil || !wanted {
		return err
	}
	newest, deleted := m.walk.it.Revision(), m.walk.it.Deleted()
	if m.done < len(m.page.Keys) && bytes.Equal(m.page.Keys[m.done].Key, m.walk.key) {
		k := &m.page.Keys[m.done]
		m.done++
		if k.Versions[len(k.Versions)-1].Revision < newest {
			return m.restore(k, newest, deleted)
		}
		m.take(k, newest)
		return nil
	}
	if deleted {
		return nil
	}
	return m.hide(format.ExportKey{Key: bytes.Clone(m.walk.key), Versions: []format.ExportVersion{{Revision: m.at, Delete: true}}}, newest)
}

// takeBelow takes the page's keys below a key that the receiver has: those are not
// here. nil is above all.
func (m *merging) takeBelow(key []byte) {
	for m.done < len(m.page.Keys) && (key == nil || bytes.Compare(m.page.Keys[m.done].Key, key) < 0) {
		m.take(&m.page.Keys[m.done], 0)
		m.done++
	}
}

// take takes the versions of a key that are newer than the receiver's newest, 0
// for none.
func (m *merging) take(k *format.ExportKey, newest keyspace.Revision) {
	n := 0
	for n < len(k.Versions) && k.Versions[n].Revision <= newest {
		n++
	}
	if n == len(k.Versions) {
		return
	}
	if n > 0 && k.Versions[n-1].Revision != newest {
		// The sender does not know the receiver's newest: until the next one it
		// stands where it should not.
		m.page.Floor = max(m.page.Floor, k.Versions[n].Revision)
	}
	m.out = append(m.out, format.ExportKey{Key: k.Key, Versions: k.Versions[n:]})
}

// restore brings the sender's newest version back in front of a newer one that
// the sender does not know.
func (m *merging) restore(k *format.ExportKey, newest keyspace.Revision, deleted bool) error {
	last := k.Versions[len(k.Versions)-1]
	if deleted && last.Delete {
		return nil
	}
	last.Revision = m.at
	return m.hide(format.ExportKey{Key: k.Key, Versions: []format.ExportVersion{last}}, newest)
}

// hide takes a key whose version hides one that the sender does not know.
func (m *merging) hide(k format.ExportKey, newest keyspace.Revision) error {
	if newest >= m.at {
		return fault.New(fault.FailedPrecondition, "the receiver has a version that is newer than the copy",
			"group", m.group.id, "revision", uint64(newest), "limit", uint64(m.at))
	}
	m.page.Floor = max(m.page.Floor, m.at)
	m.out = append(m.out, k)
	return nil
}

// shorten ends the page behind the current key.
func (m *merging) shorten() {
	m.page.Keys, m.page.Last, m.page.Done = m.page.Keys[:m.done], slices.Clone(m.walk.key), false
}

// Default bounds of LeftoverPage.
const maxLeftoverKeys = 1000

// LeftoverPage returns deletions of keys behind the disk key after of slots that
// the group gave away, and the disk key that it reached. The leader that proposes
// them gives them their revision. It looks at a bounded number of keys: there may be
// none before done.
func (h *Host) LeftoverPage(ctx context.Context, id keyspace.GroupID, after []byte, maxKeys int) (keys []format.ExportKey, last []byte, done bool, err error) {
	g := h.lookup(id)
	if g == nil {
		return nil, nil, false, errNotHosted(id)
	}
	l, err := h.lookAt(g, ReadPoint{Group: id, Rev: keyspace.MaxRevision})
	if err != nil {
		return nil, nil, false, err
	}
	defer l.close()
	if maxKeys <= 0 || maxKeys > maxLeftoverKeys {
		maxKeys = maxLeftoverKeys
	}
	slots := purgeable(l.state)
	if slots.Empty() {
		return nil, after, true, nil
	}
	w := keyWalk{slots: &slots}
	w.it = l.view.Scan(mvcc.ScanOptions{Instance: l.instance.id, Lower: behindKey(after), Upper: userKeysEnd(), At: keyspace.MaxRevision, KeysOnly: true})
	defer w.it.Close()
	for ; w.next(); w.it.Next() {
		if len(keys) == maxKeys || w.visited > h.opt.ScanRecords {
			return keys, last, false, nil
		}
		if err := late(ctx); err != nil {
			return nil, nil, false, err
		}
		wanted, err := w.wanted()
		if err != nil {
			return nil, nil, false, err
		}
		if last = append(last[:0], w.key...); wanted {
			keys = append(keys, format.ExportKey{Key: bytes.Clone(w.key), Versions: []format.ExportVersion{{Delete: true}}})
		}
	}
	return keys, last, true, w.it.Err()
}

// purgeable are the slots that the group gave away, for good: not those of a move
// that the map does not know yet.
func purgeable(s *format.SlotState) (slots format.SlotSet) {
	if s == nil {
		return slots
	}
	slots = s.Gone.Without(&s.Owned)
	if s.Out != nil {
		slots = slots.Without(&s.Out.Slots)
	}
	return slots
}
