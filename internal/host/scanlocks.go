package host

import (
	"bytes"
	"slices"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
)

// scanStop is a key that a scan does not pass before a transaction has ended.
type scanStop struct {
	key   []byte // disk key
	group *group
	by    *heldTxn
}

// meet looks for what is prepared in a group within the scan's range, and reports
// whether anything is that the scan has to know.
func (s *scan) meet(g *group) (locked bool) {
	if locked, _ = g.locks.look(s.request.Revision); !locked {
		return false
	}
	o := s.options()
	key, by := g.locks.nearest(o.Lower, o.Upper, o.Reverse, s.request.Revision)
	if key != nil && (s.stop.key == nil || (bytes.Compare(key, s.stop.key) < 0) != o.Reverse) {
		s.stop = scanStop{key: key, group: g, by: by}
	}
	return true
}

// clip ends the range before the stop.
func (s *scan) clip(o *mvcc.ScanOptions) {
	switch {
	case s.stop.key == nil:
	case o.Reverse:
		o.Lower = append(slices.Clone(s.stop.key), 0)
	default:
		o.Upper = s.stop.key
	}
}

// endAtLock ends a page at a locked key, with which the next one begins; a page
// that has nothing before it waits.
func (s *scan) endAtLock(at scanStop) error {
	if !s.passed {
		s.stop, s.waits = at, true
		return nil
	}
	_, key, err := keyspace.DecodeDataKey(at.key)
	s.page.More, s.page.Next = true, slices.Clone(key)
	if s.request.Reverse {
		s.page.Next = append(s.page.Next, 0)
	}
	return err
}

// expires meets a record that is not there at the scan's revision. Where its
// deadline has passed, transactions that looked at it may hold that it had not.
func (s *scan) expires(it *mvcc.Scanner, rec *format.Record) (full bool, err error) {
	if rec.Expires == 0 || rec.Flags&format.FlagTombstone != 0 {
		return false, nil
	}
	for i := range s.sources {
		src := &s.sources[i]
		if src.it != it || !src.locked {
			continue
		}
		if by := src.group.locks.of(it.Key(), s.request.Revision, true); by != nil {
			return true, s.endAtLock(scanStop{key: slices.Clone(it.Key()), group: src.group, by: by})
		}
	}
	return false, nil
}
