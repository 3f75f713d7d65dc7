package mvcc

import (
	"kvstore/internal/sstable"
)

// past is a source of a scan behind the deltas: the runs together, or one file of
// the history. Of a scan of newest versions a file of the history has only those
// that stood at its revision.
type past struct {
	it interface {
		Version() *sstable.Version
		Err() error
		Next()
		SeekForward(key []byte)
		SeekBackward(key []byte, inclusive bool)
	}
	release func()  // nil: another one's ends it
	version version // the current one
}

// openFiles opens the runs, from which versions go to the others, and what the
// history may add: nothing to a scan of the present.
func (s *Scanner) openFiles(o *Options) {
	wanted := sstable.Range{Instance: s.options.Instance, Lower: s.options.Lower, Upper: s.options.Upper,
		At: s.options.At, Reverse: s.options.Reverse, AllVersions: s.options.AllVersions}
	if o.Runs != nil {
		if walk, release := o.Runs.Merge(wanted); walk != nil {
			s.past = append(s.past, past{it: walk, release: release})
		}
	}
	if h := o.History; h != nil && (wanted.AllVersions || h.Covers(wanted.Instance, wanted.At)) {
		its, release := h.Iterators(wanted)
		for _, it := range its {
			s.past = append(s.past, past{it: it, release: release})
			release = nil
		}
		if release != nil {
			release()
		}
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
