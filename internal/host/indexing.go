package host

import (
	"bytes"
	"context"
	"time"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/replica"
)

// indexing is how far a leader has come in finding records with a deadline that are
// not in the index, since they were written before there was one.
//
// It walks over the group's records once, a page per tick while nothing is due, and
// gives those their keys of the index. At the end of more than one page it notes by
// an entry that the index is whole (replica.WholeIndexKey), so that no later leader
// walks again; a group of one page is looked at by each.
type indexing struct {
	done bool
	// after is the last disk key that was looked at.
	after []byte
	pages int
	// retry is when a walk that failed goes on.
	retry time.Duration
}

const (
	// walkRecords and walkBytes bound a page.
	walkRecords = 2000
	walkBytes   = 1 << 20
)

func (w *indexing) wanted(mono time.Duration) bool { return !w.done && mono >= w.retry }

// unindexed is a page of records without their keys of the index.
type unindexed struct {
	keys []replica.SweepKey
	last []byte
	// end: there are no more records. whole: it was noted before.
	end, whole bool
}

func (h *Host) startWalk(g *group) {
	s := &g.sweep
	term, after, first := s.term, s.walk.after, s.walk.pages == 0
	h.beginSweep(s)
	h.opt.Go(func(ctx context.Context) {
		page, err := h.findUnindexed(ctx, g, after)
		if err != nil || page.whole {
			h.control(func() { h.endWalk(g, term, page, err) })
			return
		}
		op := &replica.SweepOp{Keys: page.keys, Index: true, Whole: page.end && !first}
		h.submitSweep(ctx, g, op, func(op *replica.SweepOp, err error) {
			if err == nil {
				g.sweep.swept += uint64(op.Result.Swept)
				page.cut(op.Result.Judged)
			}
			h.endWalk(g, term, page, err)
		})
	})
}

// cut ends the page behind the first n keys, when those were all that an entry had
// room for.
func (page *unindexed) cut(n int) {
	if n < len(page.keys) {
		page.last, page.end = page.keys[n-1].Key, false
	}
}

// endWalk takes what became of a page, on the loop.
func (h *Host) endWalk(g *group, term keyspace.Term, page unindexed, err error) {
	s := &g.sweep
	s.running = false
	h.sweeps--
	switch {
	case h.groups[g.id] != g || s.term != term:
	case err != nil:
		h.opt.Logger.Debug("records were not looked at for their deadlines", "group", g.id, "error", err)
		s.walk.retry = h.opt.Clock.Mono() + heldAgain
	default:
		s.walk.after, s.walk.done = page.last, page.end || page.whole
		s.walk.pages++
	}
}

// findUnindexed returns a page of the records behind a disk key.
func (h *Host) findUnindexed(ctx context.Context, g *group, after []byte) (page unindexed, err error) {
	l, err := h.lookAt(g, ReadPoint{Group: g.id, Rev: keyspace.MaxRevision})
	if err != nil {
		return page, err
	}
	defer l.close()
	lower := []byte{byte(keyspace.KindData)}
	if after == nil {
		if _, _, page.whole, err = l.view.Get(l.instance.id, replica.WholeIndexKey(), keyspace.MaxRevision); err != nil || page.whole {
			return page, err
		}
	} else {
		lower = behindKey(after)
	}
	it := l.view.Scan(mvcc.ScanOptions{Instance: l.instance.id, Lower: lower, Upper: userKeysEnd(), At: keyspace.MaxRevision})
	defer it.Close()
	size := 0
	for n := 0; it.Valid(); it.Next() {
		if n == walkRecords || size >= walkBytes || len(page.keys) == sweepKeys {
			return page, it.Err()
		}
		if err := late(ctx); err != nil {
			return page, err
		}
		value, err := it.Value()
		if err != nil {
			return page, err
		}
		if err := page.look(&l, it.Key(), value, it.Revision()); err != nil {
			return page, err
		}
		n, size = n+1, size+len(value)
	}
	page.end = true
	return page, it.Err()
}

// look adds a record that expires and is not in the index.
func (page *unindexed) look(l *look, key, value []byte, rev keyspace.Revision) error {
	page.last = append(page.last[:0], key...)
	hd, err := format.DecodeHeader(value, rev)
	if err != nil || hd.Expires == 0 {
		return err
	}
	_, _, there, err := l.view.Get(l.instance.id, keyspace.AppendTTLKey(nil, hd.Expires, key), keyspace.MaxRevision)
	if err == nil && !there {
		page.keys = append(page.keys, replica.SweepKey{Key: bytes.Clone(key), Expires: hd.Expires})
	}
	return err
}
