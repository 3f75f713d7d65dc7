package peer

import (
	"sync/atomic"

	"kvstore/internal/fault"
)

// parts are what a node has once it knows its cluster.
type parts struct {
	current atomic.Pointer[served]
}

type served struct {
	router Router
	joiner Joiner
}

// Serve makes the router and the joiner available to peers. Before it, calls
// that need them end with fault.Unavailable.
func (s *Server) Serve(r Router, j Joiner) {
	s.parts.current.Store(&served{router: r, joiner: j})
}

func (p *parts) get() (*served, error) {
	if s := p.current.Load(); s != nil {
		return s, nil
	}
	return nil, fault.New(fault.Unavailable, "node is starting")
}
