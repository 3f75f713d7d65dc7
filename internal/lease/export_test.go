package lease

import "context"

// Mark is a lease's mark as somebody saw it.
type Mark struct{ e *entry }

// Look returns a lease's mark as it is now.
func (s *Service) Look(ctx context.Context, id string) (alive bool, m Mark, err error) {
	l, mark, err := s.look(ctx, id)
	return l != nil, Mark{mark}, err
}

// End ends a lease under a mark that was seen some time ago.
func (s *Service) End(ctx context.Context, id string, m Mark) (uint64, error) {
	return s.end(ctx, id, m.e)
}

// EndAll ends leases as the keeper does.
func (s *Service) EndAll(ctx context.Context, ids ...string) { s.endAll(ctx, ids) }

// Gone reports whether nothing is left of a lease.
func (m Mark) Gone() bool { return m.e == nil }
