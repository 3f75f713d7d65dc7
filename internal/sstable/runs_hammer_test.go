package sstable

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// runsHammer is one goroutine that makes runs, one that moves them to a map, and
// some that read both. Run n has revision n*keysPerFile+i of key i.
type runsHammer struct {
	t       *testing.T
	runs    *Runs
	written atomic.Uint64 // runs up to here are finished
	moved   sync.Map      // engine: placed by key
	stop    chan struct{}
}

func (h *runsHammer) version(rev keyspace.Revision) placed { return cur(1, hammerKey(rev), rev) }

func (h *runsHammer) write(runs int) {
	for n := uint64(1); n <= uint64(runs); n++ {
		var versions []placed
		for i := range keyspace.Revision(keysPerFile) {
			versions = append(versions, h.version(keyspace.Revision(n)*keysPerFile+i))
		}
		if err := tryWrite(h.runs, versions); err != nil {
			h.t.Error(err)
			return
		}
		h.written.Store(n)
	}
}

// until calls do until the end.
func (h *runsHammer) until(do func()) {
	for {
		select {
		case <-h.stop:
			return
		default:
			do()
		}
	}
}

func (h *runsHammer) move() {
	m := h.runs.Take(0, noSize)
	if m == nil {
		return
	}
	defer m.Release()
	walk := m.Merge(1)
	var last []byte
	for ; walk.Version() != nil; walk.Next() {
		if v := walk.Version(); last == nil || !bytes.Equal(v.Key, last) {
			h.moved.Store(string(v.Key), placed{1, *v})
			last = v.Key
		}
	}
	if walk.Err() != nil {
		h.t.Error(walk.Err())
		return
	}
	m.Done()
}

// check looks at what a read found: no older than what was there before it.
func (h *runsHammer) check(what string, got placed, ok bool, since uint64) {
	least := keyspace.Revision(since) * keysPerFile
	if !ok || got.Revision < least || !equal(got, h.version(got.Revision)) {
		h.t.Errorf("%s after run %d: %v, %t; want at least revision %d", what, since, got, ok, least)
	}
}

func (h *runsHammer) get(r *rand.Rand) {
	since := h.written.Load()
	if since == 0 {
		return
	}
	key := []byte(hammerKey(keyspace.Revision(r.IntN(keysPerFile))))
	for {
		v, ok, stale, err := h.runs.Get(Hash(1, key), 1, key, keyspace.MaxRevision)
		if err != nil {
			h.t.Error(err)
			return
		}
		if stale {
			continue
		}
		got := placed{1, v}
		if !ok {
			got, ok = h.engine(string(key))
		}
		h.check("get", got, ok, since)
		return
	}
}

func (h *runsHammer) engine(key string) (placed, bool) {
	v, ok := h.moved.Load(key)
	if !ok {
		return placed{}, false
	}
	return v.(placed), true
}

func (h *runsHammer) scan(reverse bool) {
	since := h.written.Load()
	if since == 0 {
		return
	}
	walk, release := h.runs.Merge(Range{Instance: 1, At: keyspace.MaxRevision, Reverse: reverse})
	found := map[string]placed{}
	if walk != nil {
		defer release()
		for seekStart(walk, reverse); walk.Version() != nil; walk.Next() {
			found[string(walk.Version().Key)] = placed{1, *walk.Version()}
		}
		if walk.Err() != nil {
			h.t.Error(walk.Err())
			return
		}
	}
	for i := range keyspace.Revision(keysPerFile) {
		got, ok := found[hammerKey(i)]
		if !ok {
			got, ok = h.engine(hammerKey(i))
		}
		h.check("scan", got, ok, since)
	}
}

// Readers that ask first the runs, then where they are moved, miss nothing while
// runs come and go.
func TestReadersMissNothingWhileRunsAreMoved(t *testing.T) {
	fs := simfs.New()
	h := &runsHammer{t: t, runs: mustOpenRuns(t, fs), stop: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() { h.until(h.move) })
	for n := range uint64(3) {
		r := rand.New(rand.NewPCG(n, 1))
		wg.Go(func() {
			h.until(func() {
				h.get(r)
				h.scan(r.IntN(2) == 0)
			})
		})
	}
	h.write(300)
	close(h.stop)
	wg.Wait()
	h.get(rand.New(rand.NewPCG(1, 1)))
	h.move()
	wantRuns(t, fs)
	if n := h.runs.Files(); n != 0 || h.runs.Bytes() != 0 {
		t.Errorf("%d runs of %d bytes", n, h.runs.Bytes())
	}
	h.scan(false)
}
