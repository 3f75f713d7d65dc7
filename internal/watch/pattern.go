package watch

import (
	"strings"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

type patternKind uint8

const (
	oneKey patternKind = iota
	allWithPrefix
	inRange
)

// pattern says which keys are watched, in disk keys: lower is the key, the prefix,
// or the inclusive bound of a range whose exclusive one is upper.
type pattern struct {
	kind         patternKind
	lower, upper string
	// slot is that of all keys of the pattern where single is set.
	slot   keyspace.SlotID
	single bool
}

// newPattern reads what a request asks for.
func newPattern(ns keyspace.NamespaceID, q *api.WatchCreate) (pattern, error) {
	ranged := q.GetStart() != "" || q.GetEnd() != ""
	if q.GetKey() != "" && (q.GetPrefix() != "" || ranged) || q.GetPrefix() != "" && ranged {
		return pattern{}, fault.New(fault.InvalidArgument, "a watch has a key, or a prefix, or a range",
			"key", q.GetKey(), "prefix", q.GetPrefix(), "start", q.GetStart(), "end", q.GetEnd())
	}
	for _, f := range []struct{ name, value string }{{"prefix", q.GetPrefix()}, {"start", q.GetStart()}, {"end", q.GetEnd()}} {
		if len(f.value) > keyspace.MaxKeyBytes {
			return pattern{}, fault.New(fault.KeyTooLarge, f.name+" is longer than any key",
				"limit_bytes", keyspace.MaxKeyBytes, "actual_bytes", len(f.value))
		}
	}
	switch {
	case q.GetKey() != "":
		if err := keyspace.ValidateKey(q.GetKey()); err != nil {
			return pattern{}, err
		}
		key := keyspace.AppendDataKey(nil, ns, []byte(q.GetKey()))
		return pattern{kind: oneKey, lower: string(key), slot: keyspace.SlotOf(ns, q.GetKey()), single: true}, nil
	case ranged:
		return rangeOf(ns, q.GetStart(), q.GetEnd())
	}
	p := pattern{kind: allWithPrefix, lower: string(keyspace.AppendDataPrefix(nil, ns, []byte(q.GetPrefix())))}
	if wholeHashPart(q.GetPrefix()) {
		p.slot, p.single = keyspace.SlotOf(ns, q.GetPrefix()), true
	}
	return p, nil
}

func rangeOf(ns keyspace.NamespaceID, start, end string) (pattern, error) {
	all := keyspace.AppendDataPrefix(nil, ns, nil)
	p := pattern{kind: inRange, lower: string(all), upper: string(keyspace.PrefixEnd(all))}
	if start != "" {
		p.lower = string(keyspace.AppendDataKey(nil, ns, []byte(start)))
	}
	if end != "" {
		p.upper = string(keyspace.AppendDataKey(nil, ns, []byte(end)))
	}
	if p.lower >= p.upper {
		return pattern{}, fault.New(fault.InvalidArgument, "the range is empty", "start", start, "end", end)
	}
	return p, nil
}

// wholeHashPart reports whether all keys with the prefix have its hash part.
func wholeHashPart(prefix string) bool {
	open := strings.IndexByte(prefix, '{')
	return open >= 0 && strings.IndexByte(prefix[open+1:], '}') > 0
}

func (p *pattern) has(key []byte) bool {
	switch p.kind {
	case oneKey:
		return string(key) == p.lower
	case allWithPrefix:
		return len(key) >= len(p.lower) && string(key[:len(p.lower)]) == p.lower
	default:
		return string(key) >= p.lower && (p.upper == "" || string(key) < p.upper)
	}
}

func (p *pattern) span() host.Span {
	s := host.Span{Lower: []byte(p.lower)}
	switch p.kind {
	case oneKey:
		s.Upper = append([]byte(p.lower), 0)
	case allWithPrefix:
		s.Upper = keyspace.PrefixEnd(s.Lower)
	case inRange:
		s.Upper = []byte(p.upper)
	}
	return s
}

// position is where a watch begins: behind a revision, or what a token says of
// each slot.
type position struct {
	rev keyspace.Revision
	// now begins with what is known when the watch joins.
	now bool
	// uneven is a token that says different things of the pattern's slots; rev is
	// the least then.
	uneven format.WatchToken
}

func newPosition(p *pattern, q *api.WatchCreate) (position, error) {
	switch {
	case len(q.GetToken()) > 0 && q.GetAfterRevision() > 0:
		return position{}, fault.New(fault.InvalidArgument, "token and after_revision exclude each other", "after_revision", q.GetAfterRevision())
	case len(q.GetToken()) == 0:
		return position{rev: keyspace.Revision(q.GetAfterRevision()), now: q.GetAfterRevision() == 0}, nil
	}
	t, err := format.DecodeWatchToken(q.GetToken())
	if err != nil {
		return position{}, err
	}
	if p.single {
		rev, ok := t.At(p.slot)
		if !ok {
			return position{}, errOtherToken()
		}
		return position{rev: rev}, nil
	}
	rev, ok := t.Least()
	if !ok {
		return position{}, errOtherToken()
	}
	at := position{rev: rev}
	for _, r := range t {
		if r.Revision != rev {
			at.uneven = t
		}
	}
	return at, nil
}

func errOtherToken() error {
	return fault.New(fault.InvalidToken, "the token is of a watch of other keys: it does not know all that is asked for")
}

// knows reports whether an event was sent before the position.
func (at *position) knows(ev *event) bool {
	if ev.rev <= at.rev {
		return true
	}
	if at.uneven == nil {
		return false
	}
	rev, _ := at.uneven.At(ev.slot())
	return ev.rev <= rev
}
