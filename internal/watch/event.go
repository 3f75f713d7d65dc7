package watch

import (
	"sync/atomic"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// event is one write. All watches share it; it is decoded and encoded when the
// first of them is sent it, on that stream's goroutine, and the encoding stays
// for the others.
type event struct {
	group keyspace.GroupID
	rev   keyspace.Revision
	key   []byte // disk key
	value []byte // encoded record
	// encoded are the forms that were sent, by variant.
	encoded [variants]atomic.Pointer[encoding]
}

// variant is what a watch is sent of an event.
type variant uint8

const (
	withPrevious variant = 1 << iota
	keysOnly

	variants = 1 << iota
)

// eventBytes is what an event costs beside its key and value.
const eventBytes = 160

func (ev *event) cost() int { return eventBytes + len(ev.key) + len(ev.value) }

func (ev *event) slot() keyspace.SlotID {
	ns, key, err := keyspace.DecodeDataKey(ev.key)
	if err != nil {
		return 0 // never: the key was written by an operation
	}
	return keyspace.SlotOf(ns, string(key))
}

// versions reads records as they were.
type versions interface {
	version(g keyspace.GroupID, diskKey []byte, rev keyspace.Revision, keysOnly bool) (*format.Record, error)
}

func (ev *event) message(from versions, v variant) (*api.WatchEvent, error) {
	rec, key, err := ev.record()
	if err != nil {
		return nil, err
	}
	m := &api.WatchEvent{Record: &api.Record{Key: key, Revision: uint64(ev.rev), UpdatedAtMs: ev.rev.UnixMilli()}}
	if rec.Flags&format.FlagTombstone != 0 {
		m.Type = api.WatchEvent_DELETE
		m.Reason, m.Record.Lease = reasonOf(&rec), rec.Lease
	} else {
		if rec.Flags&format.FlagChunked != 0 && v&keysOnly == 0 {
			whole, err := from.version(ev.group, ev.key, ev.rev, false)
			if err != nil {
				return nil, err
			}
			if whole == nil {
				return nil, fault.New(fault.Corruption, "the value of an event is missing", "revision", uint64(ev.rev))
			}
			rec.Value = whole.Value
		}
		fill(m.Record, &rec, v&keysOnly != 0)
	}
	if v&withPrevious != 0 {
		err = ev.addPrevious(m, from, v)
	}
	return m, err
}

// Reasons of deletions.
const (
	reasonDeleted      = "deleted"
	reasonExpired      = "expired"
	reasonLeaseExpired = "lease_expired"
	reasonLeaseRevoked = "lease_revoked"
)

// reasonOf is why a key was deleted.
func reasonOf(tombstone *format.Record) string {
	expired := tombstone.Flags&format.FlagExpired != 0
	switch {
	case tombstone.Lease != "" && expired:
		return reasonLeaseExpired
	case tombstone.Lease != "":
		return reasonLeaseRevoked
	case expired:
		return reasonExpired
	}
	return reasonDeleted
}

// addPrevious leaves a previous value out that does not fit beside the new one. What
// had expired is what its expiry replaced, and nothing to a later write.
func (ev *event) addPrevious(m *api.WatchEvent, from versions, v variant) error {
	rec, err := from.version(ev.group, ev.key, ev.rev-1, v&keysOnly != 0)
	expiry := m.Reason == reasonExpired || m.Reason == reasonLeaseExpired
	if err != nil || rec == nil || !expiry && !rec.Exists(ev.rev.UnixMilli()) {
		return err
	}
	m.Previous = &api.Record{Key: m.Record.Key}
	tooLarge := len(rec.Value)+len(m.Record.Value) > keyspace.MaxValueBytes
	fill(m.Previous, rec, v&keysOnly != 0 || tooLarge)
	return nil
}

func (ev *event) record() (rec format.Record, key string, err error) {
	_, name, err := keyspace.DecodeDataKey(ev.key)
	if err != nil {
		return rec, "", err
	}
	rec, err = format.DecodeRecord(ev.value, ev.rev)
	return rec, string(name), err
}

// carries reports whether the event's record, or the one it replaced, has tags.
func (ev *event) carries(from versions, tags map[string]string) (bool, error) {
	rec, _, err := ev.record()
	if err != nil || rec.Flags&format.FlagTombstone == 0 && hasTags(&rec, tags) {
		return err == nil, err
	}
	old, err := from.version(ev.group, ev.key, ev.rev-1, true)
	return err == nil && old != nil && hasTags(old, tags), err
}

func hasTags(rec *format.Record, want map[string]string) bool {
	for name, value := range want {
		if got, ok := rec.Tags[name]; !ok || got != value {
			return false
		}
	}
	return true
}

func fill(out *api.Record, r *format.Record, keysOnly bool) {
	out.ContentType, out.Encoding, out.Checksum = r.ContentType, r.Encoding, r.Checksum
	out.CreatedAtMs, out.UpdatedAtMs, out.ExpiresAtMs = r.Created.UnixMilli(), r.Revision.UnixMilli(), r.Expires
	out.Version, out.Revision, out.Tags, out.Metadata, out.Size = r.Version, uint64(r.Revision), r.Tags, r.Metadata, r.Size
	out.CreatedRevision, out.Lease = uint64(r.Created), r.Lease
	if !keysOnly {
		out.Value = r.Value
	}
}
