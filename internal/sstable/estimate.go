package sstable

import "kvstore/internal/keyspace"

// EstimateBytes is about how many bytes of keys and values there are of an
// instance, of all versions. It asks the indexes, and counts what a version costs
// beside key and value, about 12 bytes, but a key only once per block.
func (r *Runs) EstimateBytes(inst keyspace.InstanceID) int64 {
	if r.Dead(inst) {
		return 0
	}
	return r.files.Load().estimate(inst)
}

// EstimateBytes is that of Runs.
func (s *History) EstimateBytes(inst keyspace.InstanceID) int64 {
	return s.files.Load().estimate(inst)
}

func (s *set) estimate(inst keyspace.InstanceID) (sum int64) {
	for _, f := range s.files {
		if _, present := f.spans[inst]; present {
			sum += f.blocks.bytesOf(inst)
		}
	}
	return sum
}
