package mvcc

import (
	"kvstore/internal/history"
)

// past is one file of the history in a scan. Of a scan of newest versions it has
// only those that stood at its revision: nothing else has a newer one.
type past struct {
	it      *history.Iterator
	version version // the current one
}

// openPast opens what the history may add: nothing to a scan of the present.
func (s *Scanner) openPast(h *history.Store) {
	o := &s.options
	if h == nil || !o.AllVersions && !h.Covers(o.Instance, o.At) {
		return
	}
	var its []*history.Iterator
	its, s.release = h.Iterators(history.Range{Instance: o.Instance, Lower: o.Lower, Upper: o.Upper,
		At: o.At, Reverse: o.Reverse, AllVersions: o.AllVersions})
	s.past = make([]past, len(its))
	for i, it := range its {
		s.past[i].it = it
	}
}

func (p *past) seek(key []byte, reverse, inclusive bool) {
	if reverse {
		p.it.SeekBackward(key, inclusive)
	} else {
		p.it.SeekForward(key)
	}
	p.take()
}

func (p *past) next() {
	p.it.Next()
	p.take()
}

func (p *past) take() {
	if v := p.it.Version(); v != nil {
		p.version = version{rev: v.Revision, value: v.Value, del: v.Delete}
	}
}
