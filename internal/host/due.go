package host

import (
	"bytes"
	"context"
	"math"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/replica"
)

// dueKeys is a part of the index of deadlines that is due.
type dueKeys struct {
	keys []replica.SweepKey
	// leases are due too, and not the sweep's to delete; held are other keys that
	// are passed over. visited counts all.
	leases        []string
	held, visited int
	// next is where the index goes on, due the deadline there at the earliest.
	next []byte
	due  int64
}

// findDue looks for keys of the index behind from whose deadlines are not after
// upto. With count it goes on behind the keys that it takes, to tell how many there
// are.
func (h *Host) findDue(ctx context.Context, g *group, from []byte, upto int64, count bool) (f dueKeys, err error) {
	l, err := h.lookAt(g, ReadPoint{Group: g.id, Rev: keyspace.MaxRevision})
	if err != nil {
		return f, err
	}
	defer l.close()
	if from == nil {
		from = keyspace.AppendTTLPrefix(nil, 1)
	}
	it := l.view.Scan(mvcc.ScanOptions{Instance: l.instance.id, Lower: from,
		Upper: keyspace.PrefixEnd([]byte{byte(keyspace.KindTTL)}), At: keyspace.MaxRevision, KeysOnly: true})
	defer it.Close()
	for ; it.Valid(); it.Next() {
		if err := late(ctx); err != nil {
			return f, err
		}
		deadline, key, err := keyspace.DecodeTTLKey(nil, it.Key())
		if err != nil {
			return f, err
		}
		if deadline > upto {
			return f.end(upto, deadline), nil
		}
		full := len(f.keys)+len(f.leases) >= sweepKeys || f.visited >= maxDueVisit
		if full && f.next == nil {
			f.next = bytes.Clone(it.Key())
		}
		if full && (!count || f.visited >= maxDueVisit) {
			return f, nil
		}
		f.visited++
		if !full {
			if err := f.take(key, deadline, l.state); err != nil {
				return f, err
			}
		}
	}
	return f.end(upto, math.MaxInt64), it.Err()
}

// end is where the index has nothing more that is due.
func (f dueKeys) end(upto, deadline int64) dueKeys {
	if f.next == nil {
		f.next, f.due = keyspace.AppendTTLPrefix(nil, upto+1), deadline
	}
	return f
}

// take adds a key of a slot that the group owns and that does not move.
func (f *dueKeys) take(key []byte, deadline int64, slots *format.SlotState) error {
	ns, name, err := keyspace.DecodeDataKey(key)
	if err != nil {
		return err
	}
	slot := keyspace.SlotOf(ns, string(name))
	switch {
	case ns != keyspace.SystemNamespace && (!slots.Owns(slot) || slots.Frozen(slot)):
		f.held++
	case replica.LeaseItself(ns, string(name)):
		f.leases = append(f.leases, string(name))
	default:
		f.keys = append(f.keys, replica.SweepKey{Key: key, Expires: deadline})
	}
	return nil
}
