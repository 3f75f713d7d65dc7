package mvcc

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/engine/mem"
	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
	"kvstore/internal/sstable"
)

// runStore is a store with a history and runs, which are moved when a test says
// so.
type runStore struct {
	*Store
	t      *testing.T
	engine *mem.Mem
	disk   *simfs.FS
}

// newRunStore takes runs of smallBytes for large.
func newRunStore(t *testing.T, smallBytes int64) *runStore {
	t.Helper()
	fs := simfs.New()
	s := &runStore{t: t, engine: mem.Open(), disk: fs}
	history, err := sstable.OpenHistory(fs, "history", sstable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	runs, err := sstable.OpenRuns(fs, "runs", sstable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Store = New(s.engine, Options{History: history, Runs: runs, MergeRuns: 2, SmallBytes: smallBytes, MoveBytes: 200, ApartBytes: apartBytes})
	return s
}

// put inserts a version whose value names it.
func (s *runStore) put(key string, rev keyspace.Revision) { s.putPadded(key, rev, 0) }

func (s *runStore) putPadded(key string, rev keyspace.Revision, more int) {
	s.Insert(1, []byte(key), rev, fmt.Appendf(nil, "%d%s", rev, strings.Repeat("x", more)), false)
}

func (s *runStore) flushAll() {
	s.t.Helper()
	s.Seal()
	if _, ok, err := s.FlushOldest(context.Background(), nil); err != nil || !ok {
		s.t.Fatalf("flushed %t, %v", ok, err)
	}
}

func (s *runStore) move() {
	s.t.Helper()
	if _, err := s.MoveRuns(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

// want reads key at a revision, by Get and by Scan; 0 is nothing.
func (s *runStore) want(key string, at, rev keyspace.Revision) {
	s.t.Helper()
	v := s.View()
	defer v.Close()
	value, got, ok, err := v.Get(1, []byte(key), at)
	if err != nil || ok != (rev > 0) || got != rev || ok && !strings.HasPrefix(string(value), fmt.Sprintf("%d", rev)) {
		s.t.Errorf("get %q at %d: %.10q, %d, %t, %v; want %d", key, at, value, got, ok, err, rev)
	}
	scan := v.Scan(ScanOptions{Instance: 1, Lower: []byte(key), Upper: []byte(key + "\x00"), At: at})
	defer scan.Close()
	if scan.Err() != nil || scan.Valid() != (rev > 0) || scan.Valid() && scan.Revision() != rev {
		s.t.Errorf("scan %q at %d: %t, %v; want %d", key, at, scan.Valid(), scan.Err(), rev)
	}
}

func (s *runStore) inEngine(key string) (rev keyspace.Revision) {
	s.t.Helper()
	r := s.engine.Reader()
	defer r.Close()
	_, rev, _, err := r.Get(append(keyspace.AppendInstance(nil, 1), key...), keyspace.MaxRevision)
	if err != nil {
		s.t.Fatal(err)
	}
	return rev
}

// Between a version in a run and its successor in a later run there may be one in
// the history.
func TestHistoryBetweenRuns(t *testing.T) {
	s := newRunStore(t, 1)
	s.put("k", 1)
	s.flushAll()
	s.put("k", 2)
	s.put("k", 3)
	s.flushAll()
	for _, when := range []string{"in runs", "moved"} {
		t.Run(when, func(t *testing.T) {
			s.t = t
			for at := keyspace.Revision(0); at <= 4; at++ {
				s.want("k", at, min(at, 3))
			}
			s.move()
		})
	}
	if got := s.inEngine("k"); got != 3 {
		t.Errorf("the engine has version %d", got)
	}
}

// Large values go to the engine at once, and are found behind older versions in
// runs and in the history.
func TestLargeValuesGoAroundRuns(t *testing.T) {
	s := newRunStore(t, 1)
	for rev := keyspace.Revision(1); rev <= 2; rev++ {
		s.put("k", rev)
		s.flushAll()
	}
	s.putPadded("k", 3, apartBytes)
	s.flushAll()
	if got, runs := s.inEngine("k"), s.Runs(); got != 3 || runs != 2 {
		t.Fatalf("the engine has version %d, %d runs", got, runs)
	}
	s.put("k", 4)
	s.flushAll()
	for range 2 {
		for at := keyspace.Revision(0); at <= 5; at++ {
			s.want("k", at, min(at, 4))
		}
		s.move()
	}
}

// A key that is written again and again reaches the engine once a move.
func TestMovesHandOnTheNewest(t *testing.T) {
	s := newRunStore(t, 1)
	for rev := keyspace.Revision(1); rev <= 4; rev++ {
		s.put("k", rev)
		s.flushAll()
		if got := s.inEngine("k"); got != 0 {
			t.Fatalf("the engine has version %d before a move", got)
		}
		bytes := s.RunsBytes().All()
		if got := s.NeedMove(); got != (bytes >= 200) {
			t.Fatalf("%d bytes in runs, a move is wanted: %t", bytes, got)
		}
		if got := s.FullOfRuns(); got != (bytes >= 400) {
			t.Fatalf("%d bytes in runs, they are full: %t", bytes, got)
		}
	}
	if !s.FullOfRuns() {
		t.Fatal("runs never were full")
	}
	s.move()
	if s.engine.Unsynced() != 0 {
		t.Error("the move is not durable")
	}
	it := s.engine.Reader().Iterate(engine.IterOptions{At: keyspace.MaxRevision, AllVersions: true})
	defer it.Close()
	if !it.Valid() || it.Revision() != 4 {
		t.Fatal("the engine has no version 4")
	}
	if it.Next(); it.Valid() {
		t.Errorf("the engine has version %d, too", it.Revision())
	}
	for at := keyspace.Revision(1); at <= 4; at++ {
		s.want("k", at, at)
	}
}

// Small runs become one, which has the newest version of each key, and does not
// reach the engine.
func TestMergesOfSmallRuns(t *testing.T) {
	s := newRunStore(t, 1000)
	for rev := keyspace.Revision(1); rev <= 3; rev++ {
		s.put("k", rev)
		s.put(fmt.Sprint("only", rev), rev)
		s.flushAll()
		if got := s.NeedMerge(); got != (rev >= 2) {
			t.Fatalf("%d small runs, a merge is wanted: %t", rev, got)
		}
	}
	if _, err := s.MergeRuns(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.Runs() != 1 || s.NeedMerge() || s.inEngine("k") != 0 {
		t.Errorf("%d runs after the merge, the engine has version %d", s.Runs(), s.inEngine("k"))
	}
	for rev := keyspace.Revision(1); rev <= 3; rev++ {
		s.want("k", rev, rev)
		s.want(fmt.Sprint("only", rev), 3, rev)
	}
	s.move() // nothing is large
	if s.Runs() != 1 || s.inEngine("k") != 0 {
		t.Error("a small run was moved")
	}
}

// A version that nobody may read any more goes nowhere.
func TestMovesForgetBelowTheFloor(t *testing.T) {
	s := newRunStore(t, 1)
	for rev := keyspace.Revision(1); rev <= 3; rev++ {
		s.put("k", rev)
		s.flushAll()
	}
	s.SetFloor(2)
	before := s.HistoryBytes()
	s.move()
	s.want("k", 2, 2)
	s.want("k", 3, 3)
	v := s.View()
	defer v.Close()
	scan := v.Scan(ScanOptions{Instance: 1, At: keyspace.MaxRevision, AllVersions: true})
	defer scan.Close()
	count := 0
	for ; scan.Valid(); scan.Next() {
		count++
	}
	if count != 2 || s.HistoryBytes() <= before {
		t.Errorf("%d versions, want those at and above the floor; history has %d bytes", count, s.HistoryBytes())
	}
}

// A deleted instance is gone from the runs, and a move that has begun brings
// nothing of it back.
func TestDeletedInstanceStaysAway(t *testing.T) {
	s := newRunStore(t, 1)
	ctx := context.Background()
	for i := range 100 {
		s.put(fmt.Sprint("k", i), keyspace.Revision(i+1))
		s.Insert(2, fmt.Append(nil, "other", i), keyspace.Revision(i+1), []byte("v"), false)
	}
	s.flushAll()
	if got, err := s.Instances(ctx); err != nil || fmt.Sprint(got) != "[1 2]" {
		t.Fatalf("instances %v, %v", got, err)
	}
	s.options.FlushBatchBytes = 100
	deleted := false
	s.options.BetweenMoved = func(ctx context.Context, p MoveProgress) error {
		if p.Moved < 300 || deleted {
			return nil
		}
		deleted = true
		return s.DeleteInstance(ctx, 1)
	}
	s.move()
	if got, err := s.Instances(ctx); err != nil || fmt.Sprint(got) != "[2]" {
		t.Errorf("instances after the move %v, %v", got, err)
	}
	s.want("k1", keyspace.MaxRevision, 0)
	if s.Runs() != 0 {
		t.Errorf("%d runs stay", s.Runs())
	}
}

// busyEngine does something right after an iterator was opened.
type busyEngine struct {
	engine.Engine
	then func()
}

type busyReader struct {
	engine.Reader
	then func()
}

func (e *busyEngine) Reader() engine.Reader { return &busyReader{e.Engine.Reader(), e.then} }

func (r *busyReader) Iterate(o engine.IterOptions) engine.Iterator {
	it := r.Reader.Iterate(o)
	r.then()
	return it
}

// Runs that move while a scan is opened are in the scan: it opens where versions
// come from before where they go to.
func TestScanOpensRunsBeforeTheEngine(t *testing.T) {
	s := newRunStore(t, 1)
	s.Store = New(&busyEngine{s.engine, s.move}, s.options)
	s.put("k", 1)
	s.flushAll()
	s.put("k", 2)
	s.flushAll()
	v := s.View()
	defer v.Close()
	for _, at := range []keyspace.Revision{2, 1} {
		scan := v.Scan(ScanOptions{Instance: 1, At: at})
		if !scan.Valid() || scan.Revision() != at || scan.Err() != nil {
			t.Errorf("at %d: valid %t, %v", at, scan.Valid(), scan.Err())
		}
		scan.Close()
	}
	if s.Runs() != 0 {
		t.Error("nothing was moved")
	}
}

// Indexes of runs that take too much memory begin a move, and stop flushes, before
// there are many bytes in the runs.
func TestIndexesOfRunsAreBounded(t *testing.T) {
	s := newRunStore(t, 1)
	s.put("k", 1)
	s.flushAll()
	memory := s.options.Runs.Memory()
	for _, c := range []struct {
		limit      int64
		need, full bool
	}{{2 * memory, false, false}, {memory / 3 * 4, true, false}, {memory, true, true}} {
		s.options.IndexBytes = c.limit
		if need, full := s.NeedMove(), s.FullOfRuns(); need != c.need || full != c.full {
			t.Errorf("%d bytes of at most %d: a move is wanted %t, runs are full %t", memory, c.limit, need, full)
		}
	}
	s.move()
	if s.NeedMove() || s.FullOfRuns() {
		t.Error("no run is too much")
	}
}

// A small run that is older than a large one goes with it, and is in no merge
// meanwhile: what the merge makes of it would hide what the large one had.
func TestMergesAndMovesShareNoRuns(t *testing.T) {
	for _, del := range []bool{false, true} {
		for _, first := range []string{"merge", "move"} {
			t.Run(fmt.Sprintf("%s first, deletion %t", first, del), func(t *testing.T) {
				s, want := storeOfMixedRuns(t, del)
				s.want("k", 10, want)
				if first == "merge" {
					s.beside(s.MergeRuns, s.MoveRuns)
				} else {
					s.beside(s.MoveRuns, s.MergeRuns)
				}
				s.want("k", 10, want)
			})
		}
	}
}

// storeOfMixedRuns has a small run that is older than a large one with the same
// key, of which want is then the newest version.
func storeOfMixedRuns(t *testing.T, del bool) (s *runStore, want keyspace.Revision) {
	t.Helper()
	s = newRunStore(t, 2000)
	s.put("first", 1)
	s.flushAll()
	s.put("k", 2)
	s.flushAll()
	for i := range 300 {
		s.put(fmt.Sprintf("pad%03d", i), 3)
	}
	s.Insert(1, []byte("k"), 3, []byte("3"), del)
	s.flushAll() // large by itself
	s.put("z", 4)
	s.flushAll()
	if del {
		return s, 0
	}
	return s, 3
}

// beside makes one walk and begins another one in the middle of it.
func (s *runStore) beside(first, second func(context.Context) (int64, error)) {
	s.t.Helper()
	s.options.FlushBatchBytes = 1
	var once sync.Once
	ended := make(chan error, 1)
	begin := func(ctx context.Context) {
		_, err := second(ctx)
		ended <- err
	}
	s.options.BetweenMoved = func(ctx context.Context, _ MoveProgress) error {
		once.Do(func() { go begin(ctx) })
		for range 100 {
			runtime.Gosched()
		}
		return nil
	}
	if _, err := first(context.Background()); err != nil {
		s.t.Fatal(err)
	}
	once.Do(func() { go begin(context.Background()) }) // there was nothing to walk over
	if err := <-ended; err != nil {
		s.t.Fatal(err)
	}
}
