package sstable

import (
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// The end of a version may be a later one's than its successor's: of all that
// seem to stand, the newest one does.
func TestNewestOfOverlappingVersions(t *testing.T) {
	s := mustOpen(t, simfs.New())
	defer mustClose(t, s)
	mustWrite(t, s, ver(1, "k", 1, 5))
	mustWrite(t, s, ver(1, "k", 3, 4), ver(1, "k", 2, 3))
	mustWrite(t, s, ver(1, "k", 4, 5))
	for at := keyspace.Revision(1); at < 5; at++ {
		if v, ok, err := s.Get(1, []byte("k"), at); err != nil || !ok || v.Revision != at {
			t.Errorf("at %d: version %d, %t, %v", at, v.Revision, ok, err)
		}
	}
}
