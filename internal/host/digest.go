package host

import (
	"context"

	"github.com/zeebo/xxh3"

	"encoding/binary"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/replica"
)

// RequestDigest makes every replica of a group hash its user records at one
// log index, by an entry. Leader only; DigestOf has this replica's result.
func (h *Host) RequestDigest(ctx context.Context, id keyspace.GroupID) error {
	out := make(chan error, 1)
	h.control(func() {
		g := h.groups[id]
		if g == nil || g.core == nil {
			out <- errNotHosted(id)
			return
		}
		if !g.core.Serving(h.now(g)) || !g.core.WantDigest() {
			out <- wrongLeader(id, g.published.Load())
			return
		}
		g.dirty = true
		out <- nil
	})
	select {
	case err := <-out:
		return err
	case <-ctx.Done():
		return fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "the digest was not proposed in time", "group", id)
	case <-h.done:
		return fault.New(fault.Unavailable, "this node stopped", "group", id)
	}
}

// DigestOf returns the newest digest of the replica here.
func (h *Host) DigestOf(id keyspace.GroupID) (Digest, bool) {
	g := h.lookup(id)
	if g == nil || g.digest.Load() == nil {
		return Digest{}, false
	}
	return *g.digest.Load(), true
}

// startDigest hashes, in the background and from the stored bytes, the newest
// live versions at the entry's closed revision. Checksums are verified on the way.
func (h *Host) startDigest(g *group, index keyspace.Index, a replica.Applied) {
	h.publish(g)
	pub, err := g.acquire(h)
	if err != nil {
		return
	}
	view := h.opt.Store.View()
	h.opt.Go(func(ctx context.Context) {
		defer pub.instance.release(h)
		defer view.Close()
		d, err := digest(ctx, view, pub.instance.id, a.Closed)
		if err != nil {
			h.opt.Logger.Error("the digest failed", "group", g.id, "index", index, "error", err)
			return
		}
		d.Index = index
		g.digest.Store(&d)
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
	d, err := digest(ctx, view, pub.instance.id, pub.readRev)
	d.Index = pub.index
	return d, err
}

func digest(ctx context.Context, view *mvcc.View, inst keyspace.InstanceID, at keyspace.Revision) (Digest, error) {
	lower := []byte{byte(keyspace.KindData)}
	it := view.Scan(mvcc.ScanOptions{Instance: inst, Lower: lower, Upper: keyspace.PrefixEnd(lower), At: at})
	defer it.Close()
	sum := xxh3.New()
	var d Digest
	for ; it.Valid(); it.Next() {
		if d.Keys&1023 == 0 && ctx.Err() != nil {
			return Digest{}, ctx.Err()
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
