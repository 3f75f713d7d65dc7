package router

import (
	"bytes"
	"context"
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// KeyRead names a key of ReadTogether.
type KeyRead struct {
	Namespace keyspace.NamespaceID
	Key       string
	// KeysOnly leaves the value out; size is still there.
	KeysOnly bool
}

// ReadTogether reads keys, of however many groups, at one moment between its
// call and its return (moment). It writes nothing and never aborts; it waits for
// transactions that are prepared on its keys, and begins again when one of them
// was written between its two rounds. records is parallel to keys, nil where a
// key does not exist; rev is the revision that was read at. Keys may repeat;
// their namespaces are resolved by the caller. Errors: unavailable when the keys
// never were at rest, message_too_large when their values are more than
// MaxBatchBytes together.
func (r *Router) ReadTogether(ctx context.Context, keys []KeyRead) (records []*api.Record, rev keyspace.Revision, err error) {
	if len(keys) > MaxBatchItems {
		return nil, 0, fault.New(fault.InvalidArgument, "too many keys", "limit", MaxBatchItems, "actual", len(keys))
	}
	if len(keys) == 0 {
		return nil, 0, nil
	}
	size := 0
	for i := range keys {
		size += len(keys[i].Key)
	}
	if size > MaxBatchBytes {
		return nil, 0, fault.New(fault.MessageTooLarge, "the keys that are read together are too large",
			"limit_bytes", MaxBatchBytes, "actual_bytes", size)
	}
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	m := newMoment(r, nil)
	for n := 1; ; n++ {
		plan, epoch, err := r.planTogether(keys)
		if err != nil {
			return nil, 0, err
		}
		m.read(plan.sets)
		// Keys that are not where the map says they are end a search.
		if err := m.find(ctx, nil); err == nil {
			records, err = plan.collect(m, keys)
			return records, m.rev, err
		} else if !m.moved {
			return nil, 0, err
		}
		if n == maxRepeats {
			return nil, 0, fault.New(fault.Unavailable, "slots of the keys change their owners", "limit", maxRepeats, "actual", n).WithRetry(DefaultBackoffMax)
		}
		if next, err := r.refreshNewer(ctx, epoch); (err != nil || next.Epoch <= epoch) && !r.pause(ctx, r.backoff(n)) {
			return nil, 0, fault.New(fault.DeadlineExceeded, "slots of the keys changed their owners until the deadline", "attempts", n)
		}
	}
}

// together is where keys are: their groups, and their numbers there.
type together struct {
	sets map[keyspace.GroupID]*keySet
	at   []place // parallel to the keys
}

type place struct {
	group keyspace.GroupID
	key   []byte
}

// planTogether divides keys by group, by a map of an epoch.
func (r *Router) planTogether(keys []KeyRead) (together, uint64, error) {
	m := r.o.Directory.Map()
	t := together{sets: make(map[keyspace.GroupID]*keySet), at: make([]place, len(keys))}
	wanted := make(map[string]bool) // whether a value is
	for i, k := range keys {
		g, ok := m.GroupOfKey(k.Namespace, k.Key)
		if !ok {
			return t, 0, fault.New(fault.Unavailable, "the cluster's layout is not known yet")
		}
		t.at[i] = place{g, keyspace.AppendDataKey(nil, k.Namespace, []byte(k.Key))}
		wanted[string(t.at[i].key)] = wanted[string(t.at[i].key)] || !k.KeysOnly
		set := t.sets[g]
		if set == nil {
			set = &keySet{}
			t.sets[g] = set
		}
		set.keys = append(set.keys, t.at[i].key)
	}
	for _, set := range t.sets {
		slices.SortFunc(set.keys, bytes.Compare)
		set.keys = slices.CompactFunc(set.keys, bytes.Equal)
		for _, key := range set.keys {
			set.keysOnly = append(set.keysOnly, !wanted[string(key)])
		}
	}
	return t, m.Epoch, nil
}

// collect returns the records in the order of the keys.
func (t *together) collect(m *moment, keys []KeyRead) ([]*api.Record, error) {
	out := make([]*api.Record, len(keys))
	size := 0
	for i, p := range t.at {
		set, found := t.sets[p.group], m.records(p.group)
		if len(found) != len(set.keys) {
			return nil, fault.New(fault.Unavailable, "the leader of a group is of a version that does not read over groups", "group", p.group)
		}
		n, _ := slices.BinarySearchFunc(set.keys, p.key, bytes.Compare)
		out[i] = found[n]
		size += len(found[n].GetValue())
	}
	if size > MaxBatchBytes {
		return nil, tooLargeTogether(size)
	}
	return out, nil
}

func tooLargeTogether(size int) error {
	return fault.New(fault.MessageTooLarge, "the values that are read together are too large",
		"limit_bytes", MaxBatchBytes, "actual_bytes_at_least", size)
}

// find reads the keys of a second reading that found them unchanged. Whether
// they exist is judged at the first reading: who expired since then did so between
// the rounds.
func (r *Router) find(ctx context.Context, ask *clockAsk, c *clockReading) {
	since := ask.Since.Clock
	point := host.ReadPoint{Group: ask.Group, Index: c.Index, Rev: ask.AtLeast, Clock: since, Fixed: true, Slots: c.Slots}
	set, size := ask.read, 0
	c.found = make([]*api.Record, len(set.keys))
	for from := 0; from < len(set.keys) && c.Err == nil && !c.moved && len(c.Unsettled) == 0; {
		ns, names, keysOnly, err := set.run(from)
		if err != nil {
			c.Err = err
			return
		}
		err = r.o.Host.GetEach(ctx, point, ns, len(names), func(i int) string { return names[i] }, keysOnly,
			func(i int, rec *format.Record, err error) bool {
				switch {
				case fault.CodeOf(err) == fault.WrongGroup:
					c.moved = true
				case fault.CodeOf(err) == fault.NotFound:
				case err != nil:
					c.Err = err
				case rec.Expires > since.UnixMilli() && rec.Expires <= c.Clock.UnixMilli():
					c.Unsettled = []int{0}
				default:
					if size += len(rec.Value); size > MaxBatchBytes {
						c.Err = tooLargeTogether(size)
						break
					}
					out := &api.Record{}
					fillRecord(out, names[i], rec, keysOnly)
					out.Value = bytes.Clone(out.Value)
					c.found[from+i] = out
				}
				return c.Err == nil && !c.moved && len(c.Unsettled) == 0
			})
		if err != nil {
			c.Err = err
		}
		from += len(names)
	}
}

// run is the keys from one on that one call can read.
func (s *keySet) run(from int) (ns keyspace.NamespaceID, names []string, keysOnly bool, err error) {
	only := func(i int) bool { return len(s.keysOnly) > 0 && s.keysOnly[i] }
	keysOnly = only(from)
	for i := from; i < len(s.keys) && only(i) == keysOnly; i++ {
		of, name, err := keyspace.DecodeDataKey(s.keys[i])
		if err != nil {
			return 0, nil, false, fault.Wrap(fault.InvalidArgument, err, "a key to read is malformed")
		}
		if i > from && of != ns {
			break
		}
		ns = of
		names = append(names, string(name))
	}
	return ns, names, keysOnly, nil
}
