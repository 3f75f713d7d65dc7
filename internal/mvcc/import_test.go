package mvcc

import (
	"context"
	"testing"

	"kvstore/internal/keyspace"
)

// What slots that move here bring has revisions of another group's past. The
// tests hold what took the first flush after a restart for the newest.

// reopen starts a store over the same files and tells it what a checkpoint says.
func (s *runStore) reopen(told keyspace.Revision) {
	o := s.options
	s.Store = New(s.engine, o)
	s.Flushed(1, told)
}

func TestImportAfterRestartLeavesLargeValues(t *testing.T) {
	s := newRunStore(t, 1)
	s.put("k", 20)
	s.flushAll()
	s.putPadded("k", 50, apartBytes)
	s.flushAll()
	s.reopen(50)
	s.put("old", 10)
	s.flushAll()
	s.want("k", 49, 20)
	s.want("k", 100, 50)
	s.want("old", 100, 10)
}

// Nobody told how far the instance reaches.
func TestImportIntoUnknownInstance(t *testing.T) {
	s := newRunStore(t, 1)
	s.put("k", 20)
	s.flushAll()
	s.putPadded("k", 50, apartBytes)
	s.flushAll()
	s.Store = New(s.engine, s.options)
	s.put("old", 10)
	s.flushAll()
	s.want("k", 100, 50)
}

// A version that was the newest of what a first flush brought is not the newest
// of what is there.
func TestRecordsDoNotTakeAnImportForTheNewest(t *testing.T) {
	for _, told := range []keyspace.Revision{0, 30} {
		s := newRunStore(t, 1)
		s.put("k", 20)
		s.put("k", 30)
		s.flushAll()
		o := s.options
		o.RecordBytes = 1 << 20
		s.Store = New(s.engine, o)
		if told > 0 {
			s.Flushed(1, told)
		}
		s.put("old", 10)
		s.flushAll()
		s.want("k", 25, 20)
		s.want("k", 40, 30)
	}
}

// Versions below the floor that come in one delta leave the newest one, and a
// deletion among them hides what came before it for good.
func TestImportBelowTheFloor(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		s := newRunStore(t, 1)
		s.put("own", 100)
		s.flushAll()
		s.SetFloor(90)
		for rev := keyspace.Revision(1); rev <= 3; rev++ {
			s.put("k", rev)
		}
		want := keyspace.Revision(3)
		if deleted {
			s.Insert(1, []byte("k"), 4, nil, true)
			want = 0
		}
		for _, step := range []func(){s.flushAll, s.move, s.engine.Compact} {
			step()
			s.want("k", 90, want)
			s.want("k", 200, want)
			s.want("own", 100, 100)
		}
		if _, err := s.MergeRuns(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.put("k", 120)
		s.flushAll()
		s.want("k", 119, want)
		s.want("k", 120, 120)
	}
}
