package host

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"

	"github.com/zeebo/xxh3"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/replica"
)

// RequestDigest makes every replica of a group hash its user records at one
// log index, by an entry, and returns that index. Leader only; DigestAt has
// the result of the replica here.
func (h *Host) RequestDigest(ctx context.Context, id keyspace.GroupID) (keyspace.Index, error) {
	type result struct {
		index keyspace.Index
		err   error
	}
	out := make(chan result, 1)
	done := func(index keyspace.Index, err error) { out <- result{index, err} }
	h.control(func() {
		g := h.groups[id]
		switch {
		case g == nil || g.core == nil:
			done(0, errNotHosted(id))
		case !g.core.Serving(h.now(g)) || !g.core.WantDigest():
			done(0, wrongLeader(id, g.published.Load()))
		default:
			g.digestAsked = append(g.digestAsked, done)
			g.dirty = true
		}
	})
	select {
	case r := <-out:
		return r.index, r.err
	case <-ctx.Done():
		return 0, fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "the digest was not applied in time", "group", id)
	case <-h.done:
		return 0, fault.New(fault.Unavailable, "this node stopped", "group", id)
	}
}

// answerDigests tells who asked for a digest at which index it is.
func (g *group) answerDigests(index keyspace.Index, err error) {
	for _, done := range g.digestAsked {
		done(index, err)
	}
	g.digestAsked = nil
}

// digestsKept is how many results a replica keeps for those who ask later.
const digestsKept = 8

// DigestAt returns this replica's hash at a digest entry's index, if it is
// there (yet, or still).
func (h *Host) DigestAt(id keyspace.GroupID, index keyspace.Index) (Digest, bool) {
	g := h.lookup(id)
	if g == nil || g.digests.Load() == nil {
		return Digest{}, false
	}
	for _, d := range *g.digests.Load() {
		if d.Index == index {
			return d, true
		}
	}
	return Digest{}, false
}

// keepDigest adds a result; called on the loop.
func (g *group) keepDigest(d Digest) {
	var kept []Digest
	if old := g.digests.Load(); old != nil {
		kept = append(kept, *old...)
	}
	kept = append(kept, d)
	slices.SortFunc(kept, func(a, b Digest) int { return cmp.Compare(a.Index, b.Index) })
	kept = kept[max(0, len(kept)-digestsKept):]
	g.digests.Store(&kept)
}

// startDigest hashes, in the background and from the stored bytes, the newest
// live versions at the entry's closed revision. Checksums are verified on the way.
func (h *Host) startDigest(g *group, index keyspace.Index, a replica.Applied) {
	h.publish(g)
	if _, leading := g.core.Leading(); leading {
		g.answerDigests(index, nil)
	}
	pub, err := g.acquire(h)
	if err != nil {
		return
	}
	view, slots := h.opt.Store.View(), g.core.State().Slots
	h.opt.Go(func(ctx context.Context) {
		defer pub.instance.release(h)
		defer view.Close()
		d, err := digest(ctx, view, pub.instance.id, a.Closed, slots)
		if err != nil {
			h.opt.Logger.Error("the digest failed", "group", g.id, "index", index, "error", err)
			return
		}
		d.Index = index
		h.control(func() { g.keepDigest(d) })
	})
}

// StateHash hashes the live records of the replica here as they are now.
func (h *Host) StateHash(ctx context.Context, id keyspace.GroupID) (Digest, error) {
	g := h.lookup(id)
	if g == nil {
		return Digest{}, errNotHosted(id)
	}
	pub, err := g.acquire(h)
	if err != nil {
		return Digest{}, err
	}
	defer pub.instance.release(h)
	view := h.opt.Store.View()
	defer view.Close()
	d, err := digest(ctx, view, pub.instance.id, pub.readRev, pub.slots)
	d.Index = pub.index
	return d, err
}

// digest hashes the records of the slots that are owned: what is copied of others
// comes at revisions below at, while this looks.
func digest(ctx context.Context, view *mvcc.View, inst keyspace.InstanceID, at keyspace.Revision, slots *format.SlotState) (Digest, error) {
	lower := []byte{byte(keyspace.KindData)}
	it := view.Scan(mvcc.ScanOptions{Instance: inst, Lower: lower, Upper: keyspace.PrefixEnd(lower), At: at})
	defer it.Close()
	sum := xxh3.New()
	var d Digest
	for ; it.Valid(); it.Next() {
		if d.Keys&1023 == 0 && ctx.Err() != nil {
			return Digest{}, ctx.Err()
		}
		if slots.Mixed() {
			ns, key, err := keyspace.DecodeDataKey(it.Key())
			if err != nil {
				return Digest{}, err
			}
			if ns != keyspace.SystemNamespace && !slots.Owns(keyspace.SlotOf(ns, string(key))) {
				continue
			}
		}
		value, err := it.Value()
		if err != nil {
			return Digest{}, err
		}
		rec, err := format.DecodeRecord(value, it.Revision())
		if err != nil {
			return Digest{}, err
		}
		if rec.Flags&format.FlagTombstone != 0 {
			continue
		}
		if err := joinChunks(view, inst, &rec); err != nil {
			return Digest{}, err
		}
		var n [20]byte
		binary.BigEndian.PutUint64(n[:], uint64(it.Revision()))
		binary.BigEndian.PutUint32(n[8:], uint32(len(it.Key())))
		binary.BigEndian.PutUint64(n[12:], uint64(len(value)))
		for _, part := range [][]byte{n[:], it.Key(), value, rec.Value} {
			if _, err := sum.Write(part); err != nil {
				return Digest{}, err
			}
		}
		d.Keys++
	}
	d.Hash = sum.Sum64()
	return d, it.Err()
}
