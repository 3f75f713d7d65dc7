package mvcc

import "kvstore/internal/keyspace"

// EstimateBytes is about how many bytes the keys and values take that a scan of
// all versions of an instance returns, without such a scan: it takes a few
// milliseconds at most. It is within a factor of two where records are some hundred
// bytes or more. Versions that are on their way from one layer to the next, or that
// a restart replays, count in both.
func (s *Store) EstimateBytes(inst keyspace.InstanceID) int64 {
	sum := int64(0)
	for _, d := range s.layers() { // in the direction in which versions move
		if o := d.order(inst); o != nil {
			sum += o.bytes.Load()
		}
	}
	if r := s.options.Runs; r != nil {
		sum += r.EstimateBytes(inst)
	}
	if h := s.options.History; h != nil {
		sum += h.EstimateBytes(inst)
	}
	return sum + s.engine.EstimateBytes(inst)
}
