package mvcc

import (
	"context"
	"fmt"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/engine/mem"
	"kvstore/internal/keyspace"
)

// counting counts what is asked of the engine and can act in the middle.
type counting struct {
	*mem.Mem
	gets   int
	during func()
}

type countingReader struct {
	engine.Reader
	c *counting
}

func (c *counting) Reader() engine.Reader { return countingReader{c.Mem.Reader(), c} }

func (r countingReader) Get(key []byte, at keyspace.Revision) ([]byte, keyspace.Revision, bool, error) {
	r.c.gets++
	value, rev, ok, err := r.Reader.Get(key, at)
	if f := r.c.during; f != nil {
		r.c.during = nil
		f()
	}
	return value, rev, ok, err
}

func mustFlush(t *testing.T, s *Store) {
	t.Helper()
	s.Seal()
	if _, _, err := s.FlushOldest(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t *testing.T, s *Store, key string, at, want keyspace.Revision) {
	t.Helper()
	v := s.View()
	defer v.Close()
	value, rev, ok, err := v.Get(1, []byte(key), at)
	if err != nil || !ok || rev != want || string(value) != fmt.Sprint("v", uint64(want)) {
		t.Fatalf("%s at %d: %q@%d %t %v, want revision %d", key, uint64(at), value, uint64(rev), ok, err, uint64(want))
	}
}

func put(s *Store, key string, rev keyspace.Revision) {
	s.Insert(1, []byte(key), rev, []byte(fmt.Sprint("v", uint64(rev))), false)
}

func TestRecordsSpareTheEngine(t *testing.T) {
	eng := &counting{Mem: mem.Open()}
	s := New(eng, Options{RecordBytes: 1 << 20})
	s.Flushed(1, 0)
	put(s, "k", 10)
	mustFlush(t, s)
	for range 3 {
		mustRead(t, s, "k", 20, 10)
	}
	if eng.gets != 1 {
		t.Errorf("%d gets from the engine, want one", eng.gets)
	}
	put(s, "k", 30)
	mustRead(t, s, "k", 29, 10)
	mustRead(t, s, "k", 30, 30)
	mustFlush(t, s)
	mustRead(t, s, "k", 30, 30)
	mustRead(t, s, "k", 29, 10) // an old version, not the newest
	mustRead(t, s, "k", 30, 30)
}

// A key that is read stays remembered while it is overwritten, in its newest version.
func TestRecordsFollowFlushes(t *testing.T) {
	eng := &counting{Mem: mem.Open()}
	s := New(eng, Options{RecordBytes: 1 << 20})
	s.Flushed(1, 0)
	put(s, "k", 10)
	mustFlush(t, s)
	mustRead(t, s, "k", 20, 10)
	for rev := keyspace.Revision(30); rev <= 50; rev += 10 {
		put(s, "k", rev-5)
		put(s, "k", rev)
		put(s, "never read", rev)
		mustFlush(t, s)
		mustRead(t, s, "k", keyspace.MaxRevision-1, rev)
	}
	if eng.gets != 1 {
		t.Errorf("%d gets from the engine, want one", eng.gets)
	}
	mustRead(t, s, "k", 49, 45) // not the newest
	put(s, "k", 20)             // another group's past
	mustFlush(t, s)
	mustRead(t, s, "k", 60, 50)
	mustRead(t, s, "k", 60, 50)
	s.Insert(1, []byte("k"), 70, nil, true)
	mustFlush(t, s)
	v := s.View()
	defer v.Close()
	if _, _, ok, err := v.Get(1, []byte("k"), 80); ok || err != nil {
		t.Errorf("a deleted key is found: %v, %v", ok, err)
	}
}

// A reader that is overtaken by a flush must not bring the old version back.
func TestRecordsRefuseWhatAFlushOvertook(t *testing.T) {
	for _, at := range []keyspace.Revision{15, keyspace.MaxRevision} {
		eng := &counting{Mem: mem.Open()}
		s := New(eng, Options{RecordBytes: 1 << 20})
		s.Flushed(1, 0)
		put(s, "k", 10)
		mustFlush(t, s)
		eng.during = func() {
			put(s, "k", 20)
			mustFlush(t, s)
		}
		mustRead(t, s, "k", at, 10)
		mustRead(t, s, "k", 20, 20)
		mustRead(t, s, "k", keyspace.MaxRevision-1, 20)
	}
}

// A reader that asks below what is flushed sees a version that is not the
// newest, and must not leave it behind as such.
func TestRecordsHoldNewestVersionsOnly(t *testing.T) {
	s := New(&counting{Mem: mem.Open()}, Options{RecordBytes: 1 << 20})
	s.Flushed(1, 0)
	put(s, "k", 10)
	put(s, "k", 20)
	mustFlush(t, s)
	mustRead(t, s, "k", 15, 10)
	mustRead(t, s, "k", 20, 20)
}

func TestRecordsAreBounded(t *testing.T) {
	const limit = recordShards << 10
	r := newRecords(limit)
	r.raiseTo(map[keyspace.InstanceID]keyspace.Revision{1: 1})
	for i := range 10_000 {
		key := fmt.Appendf(nil, "key%d", i)
		r.add(hashKey(1, key), 1, key, make([]byte, i%200), 1, 1, 1)
	}
	var bytes int64
	for i := range r.shards {
		s := &r.shards[i]
		var sum int64
		for at, c := range s.ring {
			if c.at != at || s.byKey[c.hash] != c {
				t.Fatalf("shard %d: entry %d thinks it is %d", i, at, c.at)
			}
			sum += c.size()
		}
		if sum != s.bytes || len(s.ring) != len(s.byKey) {
			t.Fatalf("shard %d counts %d bytes, has %d; %d in the ring, %d by key", i, s.bytes, sum, len(s.ring), len(s.byKey))
		}
		bytes += sum
	}
	if bytes > limit || bytes < limit/2 {
		t.Errorf("%d bytes, limit %d", bytes, limit)
	}
}

// Where there is no room, a key that comes once is not remembered, one that comes
// again is, and a key that is there takes over what comes.
func TestFullRecordsTakeWhatComesAgain(t *testing.T) {
	const limit = recordShards << 10
	r := newRecords(limit)
	r.raiseTo(map[keyspace.InstanceID]keyspace.Revision{1: 1})
	value := make([]byte, 100)
	read := func(n int, rev keyspace.Revision) (key []byte, there bool) {
		key = fmt.Appendf(nil, "key%d", n)
		r.add(hashKey(1, key), 1, key, value, rev, rev, 1)
		_, got, ok := r.get(hashKey(1, key), 1, key, rev)
		return key, ok && got == rev
	}
	for n := range 10_000 {
		read(n, 1)
	}
	taken, again := 0, 0
	for n := 20_000; n < 20_100; n++ {
		if _, there := read(n, 1); there {
			taken++
		}
		if _, there := read(n, 1); there {
			again++
		}
	}
	if taken > 3 || again < 97 { // two keys may have one place
		t.Errorf("of 100 keys, %d are remembered at the first read, %d at the second", taken, again)
	}
	if _, there := read(20_099, 2); !there {
		t.Error("what is remembered does not take over a newer version")
	}
}

func TestRecordsOfARestartHoldNewestVersionsOnly(t *testing.T) {
	eng := mem.Open()
	s := New(eng, Options{RecordBytes: 1 << 20})
	for rev := keyspace.Revision(1); rev <= 3; rev++ {
		put(s, "a", rev)
	}
	mustFlush(t, s)
	for _, told := range []bool{false, true} {
		s = New(eng, Options{RecordBytes: 1 << 20})
		if told {
			s.Flushed(1, 3)
		}
		mustRead(t, s, "a", 1, 1)
		mustRead(t, s, "a", 2, 2)
		mustRead(t, s, "a", 3, 3)
	}
}

// Many keys are followed in pieces, each once, also where some have to go for others.
func TestRecordsFollowManyKeys(t *testing.T) {
	const keys = 2*maxFollowers + 100
	for _, limit := range []int64{64 << 20, 1 << 20} {
		eng := &counting{Mem: mem.Open()}
		s := New(eng, Options{RecordBytes: limit})
		s.Flushed(1, 0)
		name := func(i int) string { return fmt.Sprint("key", i) }
		for i := range keys {
			put(s, name(i), 10)
		}
		mustFlush(t, s)
		for i := range keys {
			mustRead(t, s, name(i), 10, 10)
		}
		long := make([]byte, 500)
		for i := range keys {
			switch i % 4 {
			case 0:
				put(s, name(i), 20)
			case 1:
				s.Insert(1, []byte(name(i)), 20, nil, true)
			case 2:
				s.Insert(1, []byte(name(i)), 20, long, false)
			}
		}
		mustFlush(t, s)
		before := eng.gets
		view := s.View()
		for i := range keys {
			switch i % 4 {
			case 0:
				mustRead(t, s, name(i), 20, 20)
			case 3:
				mustRead(t, s, name(i), 20, 10)
			default:
				value, _, ok, err := view.Get(1, []byte(name(i)), 20)
				if err != nil || ok != (i%4 == 2) || ok && len(value) != len(long) {
					t.Fatalf("key %d: %d bytes, %t, %v", i, len(value), ok, err)
				}
			}
		}
		view.Close()
		if deleted := (keys + 2) / 4; limit > 32<<20 && eng.gets-before != deleted {
			t.Errorf("%d gets from the engine, want the %d of deleted keys", eng.gets-before, deleted)
		}
		for i := range s.records.shards {
			if b := s.records.shards[i].bytes; b > limit/recordShards {
				t.Errorf("shard %d has %d bytes, at most %d", i, b, limit/recordShards)
			}
		}
	}
}
