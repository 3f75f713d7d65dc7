package sstable

import (
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// What stays when large runs are taken is not older than what goes: else Get has
// the older version, and a reader for whom runs come first takes it.
func TestRunsThatStayHaveNothingOlderThanThoseThatGo(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	mustWrite(t, r, cur(2, "k", 5)) // a small flush
	small := r.Bytes()
	large := manyRunBlocks() // a large one, with a newer version of the key
	for i := range large {
		if string(large[i].Key) == "k" {
			large[i].Revision = 90
		}
	}
	mustWrite(t, r, large...)
	m := r.TakeOldest(small + 1)
	m.Done()
	m.Release()
	if got, ok := getRun(t, r, 2, []byte("k"), keyspace.MaxRevision); ok && got.Revision < 90 {
		t.Errorf("%v, though revision 90 went on", got)
	}
}
