package sstable

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"kvstore/internal/env/osfs"
	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// allocRuns has three runs of two instances on a real disk, some blocks each.
func allocRuns(t *testing.T) *Runs {
	t.Helper()
	r := mustOpenRuns(t, osfs.New(t.TempDir()))
	for n := range keyspace.Revision(3) {
		var all []placed
		for key := range 4000 {
			all = append(all, cur(1, fmt.Sprintf("key %06d", key*2), 100*(n+1)))
		}
		mustWrite(t, r, append(all, cur(2, "other", 100*(n+1)))...)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// absentKeys returns keys between those that are there: some that a filter tells
// apart, and some that at least one takes for there, so that blocks are read.
func absentKeys(t *testing.T, r *Runs) (told, taken [][]byte) {
	t.Helper()
	for key := range 3999 {
		k := fmt.Appendf(nil, "key %06d", key*2+1)
		passes := false
		for _, f := range r.files.Load().files {
			passes = passes || f.filter.has(Hash(1, k))
		}
		if passes {
			taken = append(taken, k)
		} else {
			told = append(told, k)
		}
	}
	if len(told) < 3000 || len(taken) < 10 {
		t.Fatalf("%d absent keys are told apart, %d are not", len(told), len(taken))
	}
	return told, taken
}

// Most reads of a store are of keys that no run has.
func TestGetOfAnAbsentKeyAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("counts mean nothing under the race detector")
	}
	r := allocRuns(t)
	told, taken := absentKeys(t, r)
	there := [][]byte{[]byte("key 000000"), []byte("key 004000"), []byte("key 007998")}
	for name, c := range map[string]struct {
		inst keyspace.InstanceID
		keys [][]byte
		at   keyspace.Revision
	}{
		"that filters tell apart": {1, told, keyspace.MaxRevision},
		"that filters do not":     {1, taken, keyspace.MaxRevision},
		"below every revision":    {1, there, 99},
		"of another instance":     {2, there, keyspace.MaxRevision},
		"of no instance":          {3, there, keyspace.MaxRevision},
	} {
		allocs := testing.AllocsPerRun(20, func() {
			for _, key := range c.keys {
				if _, ok, stale, err := r.Get(Hash(c.inst, key), c.inst, key, c.at); ok || stale || err != nil {
					t.Fatalf("%s: %t, %t, %v", name, ok, stale, err)
				}
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations of %d reads", name, allocs, len(c.keys))
		}
	}
}

// A key that is there costs its value.
func TestGetAllocatesTheValue(t *testing.T) {
	if raceEnabled {
		t.Skip("counts mean nothing under the race detector")
	}
	r := allocRuns(t)
	var keys [][]byte
	for n := range 100 {
		keys = append(keys, fmt.Appendf(nil, "key %06d", n*78))
	}
	allocs := testing.AllocsPerRun(20, func() {
		for _, key := range keys {
			if v, ok, stale, err := r.Get(Hash(1, key), 1, key, 150); !ok || stale || err != nil || v.Revision != 100 {
				t.Fatalf("%q: %v, %t, %t, %v", key, v, ok, stale, err)
			}
		}
	})
	if want := float64(len(keys)); allocs != want {
		t.Errorf("%v allocations of %d reads, want %v", allocs, len(keys), want)
	}
}

// A key that filters tell apart costs no read of the disk, another one that of a
// block. The first key of a block may be behind the one before it.
func TestGetReadsABlockOfARunAtMost(t *testing.T) {
	fs := simfs.New()
	r := mustOpenRuns(t, fs)
	all := manyRunBlocks()
	mustWrite(t, r, all...)
	f := r.files.Load().files[0]
	reads := 0
	fs.Before(func(o simfs.Op) error {
		if o.Kind == simfs.OpRead {
			reads++
		}
		return nil
	})
	for _, v := range all {
		most := 1
		if slices.ContainsFunc(f.blocks.all(), func(b block) bool { return b.instance == v.inst && bytes.Equal(b.key, v.Key) }) {
			most = 2
		}
		reads = 0
		if wantGet(t, r, keyspace.MaxRevision, v); reads < 1 || reads > most {
			t.Errorf("%v: %d reads, want at most %d", v, reads, most)
		}
		absent, want := append(bytes.Clone(v.Key), 1), 0
		if f.filter.has(Hash(v.inst, absent)) {
			want = 1
		}
		reads = 0
		if wantNone(t, r, v.inst, string(absent), keyspace.MaxRevision); reads != want {
			t.Errorf("%q: %d reads, want %d", absent, reads, want)
		}
		reads = 0
		if _, ok, err := f.get(v.inst, absent, keyspace.MaxRevision); ok || err != nil || reads != 1 {
			t.Errorf("%q in the file: %t, %v, %d reads", absent, ok, err, reads)
		}
	}
}
