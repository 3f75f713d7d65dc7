package replica

import (
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// ApplyPosition is Apply on a witness: it moves on past an entry of which it
// keeps nothing.
func (c *Core) ApplyPosition(index keyspace.Index, term keyspace.Term) {
	s := &c.state
	invariant.Assert(index == s.Index+1, "group %d: entry %d applied after %d", c.cfg.Group, index, s.Index)
	s.Index, s.Term = index, term
}
