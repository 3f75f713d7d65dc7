package sstable

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"kvstore/internal/env"
	"kvstore/internal/keyspace"
)

func mustOpenRuns(t failer, fs env.FS) *Runs {
	t.Helper()
	r, err := OpenRuns(fs, testDir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// cur is a version of a run in few words; its value follows from the rest.
func cur(inst keyspace.InstanceID, key string, rev keyspace.Revision) placed {
	return ver(inst, key, rev, 0)
}

func wantRuns(t failer, fs env.FS, numbers ...uint64) {
	t.Helper()
	wantFiles(t, fs, &runKind, numbers...)
}

// getRun is Get of a moment at which no file goes.
func getRun(t failer, r *Runs, inst keyspace.InstanceID, key []byte, at keyspace.Revision) (placed, bool) {
	t.Helper()
	v, ok, stale, err := r.Get(Hash(inst, key), inst, key, at)
	if err != nil || stale {
		t.Fatalf("get %d/%.20q at %d: stale %t, %v", inst, key, at, stale, err)
	}
	return placed{inst, v}, ok
}

func wantGet(t failer, r *Runs, at keyspace.Revision, want placed) {
	t.Helper()
	if got, ok := getRun(t, r, want.inst, want.Key, at); !ok || !equal(got, want) {
		t.Fatalf("get at %d: %t, %v; want %v", at, ok, got, want)
	}
}

func wantNone(t failer, r *Runs, inst keyspace.InstanceID, key string, at keyspace.Revision) {
	t.Helper()
	if got, ok := getRun(t, r, inst, []byte(key), at); ok {
		t.Fatalf("get %d/%.20q at %d: %v, want nothing", inst, key, at, got)
	}
}

// walked returns what a walk has from its position on.
func walked(t failer, m *Merge, inst keyspace.InstanceID) (all []placed) {
	t.Helper()
	for ; m.Version() != nil; m.Next() {
		all = append(all, placed{inst, *m.Version()})
	}
	if m.Err() != nil {
		t.Fatal(m.Err())
	}
	return all
}

func wantWalk(t failer, got, want []placed) {
	t.Helper()
	if !slices.EqualFunc(got, want, equal) {
		t.Fatalf("the walk has%s\nwant%s", list(got), list(want))
	}
}

// noSize is above that of every run.
const noSize = math.MaxInt64

func mustTake(t failer, r *Runs) *Taken {
	t.Helper()
	m := r.Take(0, noSize)
	if m == nil {
		t.Fatal("no runs to move")
	}
	return m
}

// remove moves all runs to nowhere.
func remove(t failer, r *Runs) {
	t.Helper()
	m := mustTake(t, r)
	m.Done()
	m.Release()
}

// manyRunBlocks has several blocks of an instance between two others, with
// values smaller and larger than a block.
func manyRunBlocks() (all []placed) {
	all = append(all, cur(1, "zz", 90))
	for c := byte('a'); c <= 'y'; c++ {
		v := cur(2, string(c), keyspace.Revision(c))
		v.Value = bytes.Repeat([]byte{c}, 3000)
		if c%5 == 0 {
			v.Value = bytes.Repeat([]byte{c}, 3*runBlockBytes)
		}
		all = append(all, v)
	}
	return append(all, cur(3, "", 90))
}

func blocksOf(r *Runs, number int, inst keyspace.InstanceID) (n int) {
	for _, b := range r.files.Load().files[number].blocks.all() {
		if b.instance == inst {
			n++
		}
	}
	return n
}

// mustAdd adds to a Writer that is not finished.
func mustAdd(t testing.TB, w *Writer, versions ...placed) {
	t.Helper()
	for _, v := range versions {
		if err := w.Add(v.inst, v.Version); err != nil {
			t.Fatal(err)
		}
	}
}
