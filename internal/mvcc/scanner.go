package mvcc

import (
	"bytes"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// ScanOptions is a range of one instance and how to read it.
type ScanOptions struct {
	Instance keyspace.InstanceID
	// Lower is inclusive, Upper exclusive, both without instance; nil is
	// unbounded within the instance.
	Lower, Upper []byte
	// At hides versions above it.
	At keyspace.Revision
	// Reverse goes from high keys to low ones. Not with AllVersions.
	Reverse bool
	// AllVersions returns every version at or below At, newest first per key,
	// with engine deletions (Deleted). Without it each key's newest version is
	// returned, unless that is an engine deletion.
	AllVersions bool
	// KeysOnly says that Value will not be called for most keys.
	KeysOnly bool
	// Prefetch is the number of values the engine fetches ahead; 0 for none.
	Prefetch int
}

// Scanner walks the merge of a view's deltas, the runs, the history and the
// engine. Key and Value are valid until Next, Seek or Close; keys have no instance prefix.
//
// Every step looks at all sources at once: with a handful of deltas that is
// cheaper than a heap. The newest version wins; between equal revisions the
// newest delta, and any delta before the rest (the values are the same).
type Scanner struct {
	options ScanOptions
	span    span
	cursors []cursor // newest delta first
	past    []past   // runs, and where the history may have something
	engine  engine.Iterator
	err     error

	// The current position. found is nil when the engine has it.
	valid      bool
	found      *version
	matching   []int // the cursors, then past, that stand on the current position
	engineMeet bool  // the engine stands on it
	key        []byte
	rev        keyspace.Revision
	seekBuf    []byte
}

// Scan returns a scanner on the first key of its range. It must be closed
// before the view.
func (v *View) Scan(o ScanOptions) *Scanner {
	if o.Reverse && o.AllVersions {
		panic("mvcc: a scan of all versions cannot be reversed")
	}
	s := &Scanner{options: o}
	s.span = span{instance: o.Instance, lower: o.Lower, upper: o.Upper, at: o.At}
	s.cursors = make([]cursor, len(v.layers))
	s.matching = make([]int, 0, len(v.layers))
	for i, d := range v.layers {
		s.cursors[i] = cursor{order: d.order(o.Instance), span: &s.span, valueBytes: o.valueBytes()}
	}
	s.openFiles(&v.store.options)
	s.engine = v.open().Iterate(s.engineOptions())
	s.seekCursors(o.start(), false)
	s.settle()
	return s
}

func (o *ScanOptions) start() []byte {
	if o.Reverse {
		return o.Upper
	}
	return o.Lower
}

// valueBytes is how much of values will be looked at: of the others, headers.
func (o *ScanOptions) valueBytes() int {
	if o.KeysOnly {
		return headerBytes
	}
	return prefetchBytes
}

func (s *Scanner) engineOptions() engine.IterOptions {
	prefix := keyspace.AppendInstance(nil, s.options.Instance)
	o := engine.IterOptions{
		Lower:       append(bytes.Clone(prefix), s.options.Lower...),
		Upper:       keyspace.PrefixEnd(prefix),
		At:          s.options.At,
		Reverse:     s.options.Reverse,
		AllVersions: s.options.AllVersions,
		KeysOnly:    s.options.KeysOnly,
		Prefetch:    s.options.Prefetch,
	}
	if s.options.Upper != nil {
		o.Upper = append(prefix, s.options.Upper...)
	}
	return o
}

// Seek goes to the first key at or after key in the scan's direction: at or
// above it, or at or below it in reverse. It stays within the range.
func (s *Scanner) Seek(key []byte) {
	inclusive := true
	switch {
	case !s.options.Reverse && bytes.Compare(key, s.options.Lower) < 0:
		key = s.options.Lower
	case s.options.Reverse && s.options.Upper != nil && bytes.Compare(key, s.options.Upper) >= 0:
		key, inclusive = s.options.Upper, false
	}
	s.seekCursors(key, inclusive)
	s.seekBuf = append(keyspace.AppendInstance(s.seekBuf[:0], s.options.Instance), key...)
	s.engine.Seek(s.seekBuf)
	s.settle()
}

func (s *Scanner) seekCursors(key []byte, inclusive bool) {
	for i := range s.cursors {
		switch {
		case s.options.Reverse:
			s.cursors[i].seekBackward(key, inclusive)
		default:
			s.cursors[i].seekForward(key)
		}
	}
	for i := range s.past {
		s.past[i].seek(key, s.options.Reverse, inclusive)
	}
}

// Next moves on by one key, or one version with AllVersions.
func (s *Scanner) Next() {
	s.advance()
	s.settle()
}

// advance moves every source off the current position.
func (s *Scanner) advance() {
	for _, i := range s.matching {
		switch {
		case i >= len(s.cursors):
			s.past[i-len(s.cursors)].next()
		case s.options.AllVersions:
			s.cursors[i].nextVersion()
		default:
			s.cursors[i].nextKey(s.options.Reverse)
		}
	}
	if s.engineMeet {
		s.engine.Next()
	}
}

// settle stops at the first position that the scan returns.
func (s *Scanner) settle() {
	for {
		s.pick()
		hidden := s.valid && s.found != nil && s.found.del && !s.options.AllVersions
		if !hidden {
			return
		}
		s.advance()
	}
}

// pick finds the first position over all sources and who stands on it.
func (s *Scanner) pick() {
	s.valid, s.found, s.matching, s.engineMeet = false, nil, s.matching[:0], false
	for i := range s.cursors {
		if c := &s.cursors[i]; c.at != nil {
			s.offer(c.item.key, c.at, i)
		}
	}
	for i := range s.past {
		switch p := &s.past[i]; {
		case p.it.Version() != nil:
			s.offer(p.it.Version().Key, &p.version, len(s.cursors)+i)
		case p.it.Err() != nil:
			s.err = p.it.Err()
		}
	}
	switch {
	case s.engine.Valid():
		s.offerEngine()
	case s.engine.Err() != nil:
		s.err = s.engine.Err()
	}
	s.valid = s.valid && s.err == nil
}

func (s *Scanner) offer(key []byte, v *version, source int) {
	c := s.order(key, v.rev)
	switch {
	case c < 0:
		s.matching = append(s.matching[:0], source)
	case c == 0:
		s.matching = append(s.matching, source)
		if v.rev <= s.rev {
			return
		}
	default:
		return
	}
	s.valid, s.found, s.key, s.rev = true, v, key, v.rev
}

func (s *Scanner) offerEngine() {
	key, rev := s.engine.Key()[keyspace.InstanceBytes:], s.engine.Revision()
	c := s.order(key, rev)
	switch {
	case c < 0:
		s.matching, s.engineMeet = s.matching[:0], true
	case c == 0:
		s.engineMeet = true
		if rev <= s.rev {
			return
		}
	default:
		return
	}
	s.valid, s.found, s.key, s.rev = true, nil, key, rev
}

// order compares a position with the best one so far in the scan's direction.
func (s *Scanner) order(key []byte, rev keyspace.Revision) int {
	if !s.valid {
		return -1
	}
	c := bytes.Compare(key, s.key)
	if s.options.Reverse {
		return -c
	}
	if c != 0 || !s.options.AllVersions || rev == s.rev {
		return c
	}
	if rev > s.rev {
		return -1
	}
	return 1
}

// Valid is false at the end and after an error.
func (s *Scanner) Valid() bool { return s.valid }

// Key returns the current key without instance.
func (s *Scanner) Key() []byte { return s.key }

// Instance is the instance that is scanned.
func (s *Scanner) Instance() keyspace.InstanceID { return s.options.Instance }

// Revision returns the current version.
func (s *Scanner) Revision() keyspace.Revision { return s.rev }

// Value returns the current value; it is empty for a deletion.
func (s *Scanner) Value() ([]byte, error) {
	if s.found != nil {
		return s.found.value, nil
	}
	return s.engine.Value()
}

// Deleted reports an engine deletion; only with AllVersions.
func (s *Scanner) Deleted() bool {
	if s.found != nil {
		return s.found.del
	}
	return s.engine.Deleted()
}

// Err returns why the scan ended early, nil at its regular end.
func (s *Scanner) Err() error { return s.err }

// Close ends the scan.
func (s *Scanner) Close() {
	if s.engine != nil {
		s.engine.Close()
		s.engine = nil
	}
	for _, p := range s.past {
		if p.release != nil {
			p.release()
		}
	}
	s.past = nil
	s.valid = false
}
