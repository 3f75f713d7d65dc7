package host

import (
	"context"

	"kvstore/internal/fault"
)

// acquire pins the present instance of a replica for a reader.
func (g *group) acquire(h *Host) (*published, error) {
	for {
		p := g.published.Load()
		if p == nil {
			return nil, fault.New(fault.Unavailable, "the replica on this node does not run", "group", g.id)
		}
		p.instance.readers.Add(1)
		if !p.instance.retired.Load() {
			return p, nil
		}
		p.instance.release(h)
		if g.published.Load() == p {
			return nil, errNotHosted(g.id) // the replica itself is gone
		}
	}
}

// release ends a read; the last one of a retired instance deletes it.
func (i *instance) release(h *Host) {
	if i.readers.Add(-1) == 0 && i.retired.Load() {
		h.deleteInstance(i)
	}
}

// retireInstance gives an instance up: it is deleted in the background when
// its last reader ends.
func (h *Host) retireInstance(i *instance) {
	i.readers.Add(1)
	i.retired.Store(true)
	if h.flush.running { // nothing may write under an instance that is deleted
		h.flush.pinned = append(h.flush.pinned, i)
		return
	}
	i.release(h)
}

func (h *Host) deleteInstance(i *instance) {
	if !i.deleting.CompareAndSwap(false, true) || h.ctx.Err() != nil {
		return // at the latest the next start deletes it
	}
	h.opt.Go(func(ctx context.Context) {
		if err := h.opt.Store.DeleteInstance(ctx, i.id); err != nil && ctx.Err() == nil {
			h.opt.Logger.Error("deleting an instance failed; the next start repeats it", "instance", i.id, "error", err)
		}
	})
}
