package host

import (
	"kvstore/internal/mvcc"
	"kvstore/internal/replica"
)

// warm brings into the processor's caches what prefetch will look at for the first of
// requests and for those after it, as long as they are of the same group and all have
// few keys, and returns how many these are: 0 when together they are no more than what
// prefetch does by itself. The requests of a frame have a key or a few each: looked at
// one by one, every one of them waits for all of its own misses.
func (h *Host) warm(g *group, requests []*replica.Request) (warmed int) {
	p := g.published.Load()
	if p == nil {
		return 0
	}
	var keys [mvcc.PrefetchKeys][]byte
	n := 0
	for _, r := range requests {
		if r.Group != g.id || r.Txn != nil || len(r.Ops) == 0 || n+len(r.Ops) > len(keys) {
			break
		}
		if len(r.Ops) > 1 {
			replica.BuildDiskKeys(r.Ops)
		}
		for i := range r.Ops {
			keys[n] = r.Ops[i].DiskKey()
			n++
		}
		warmed++
	}
	if warmed < 2 {
		return 0
	}
	view := h.opt.Store.View()
	defer view.Close()
	view.PrefetchHeaders(p.instance.id, keys[:n])
	return warmed
}
