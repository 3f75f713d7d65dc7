package sstable

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/keyspace"
)

// genTable is a table and the blocks it is of: some instances, each with none to
// several groups, whose keys share much, little or nothing, or are the same.
func genTable(t *rapid.T) (table blockTable, blocks []block) {
	current := rapid.Bool().Draw(t, "current")
	for inst := range keyspace.InstanceID(rapid.IntRange(1, 3).Draw(t, "instances")) {
		if rapid.IntRange(0, 3).Draw(t, "missing") == 0 {
			continue
		}
		form := rapid.SampledFrom([]string{"%d", "shared/%08d", "%08d/and what follows", "same"}).Draw(t, "form")
		if current && form == "same" { // a run has a key once
			form = "%d"
		}
		step := rapid.IntRange(1, 1000).Draw(t, "step")
		var keys []string
		for i := range rapid.IntRange(1, 3*groupBlocks).Draw(t, "blocks") {
			if form == "same" && !current {
				keys = append(keys, "same"[:min(i/50, 4)])
				continue
			}
			keys = append(keys, fmt.Sprintf(form, i*step))
		}
		slices.Sort(keys)
		for i, k := range keys {
			b := block{length: 10 + i%7, instance: inst, key: []byte(k), rev: keyspace.Revision(100_000 - i)}
			if current {
				b.rev = keyspace.MaxRevision
			}
			blocks = append(blocks, b)
		}
	}
	table = newBlockTable(len(blocks), 8, current)
	at := int64(8)
	for i := range blocks {
		blocks[i].offset = at
		if !table.add(blocks[i]) {
			t.Fatalf("block %d is out of order", i)
		}
		at += int64(blocks[i].length)
	}
	table.finish()
	return table, blocks
}

// A table finds what a look at every block does, and gives back what it was given.
func TestBlockTableAgreesWithAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, blocks := genTable(t)
		if table.count() != len(blocks) {
			t.Fatalf("%d blocks, want %d", table.count(), len(blocks))
		}
		for n, want := range blocks {
			if got := table.at(n); got.offset != want.offset || got.length != want.length || got.instance != want.instance ||
				!bytes.Equal(got.key, want.key) || got.rev != want.rev {
				t.Fatalf("block %d is %+v, want %+v", n, got, want)
			}
		}
		probes := [][]byte{nil, {0}, {0xff}, []byte("s"), []byte("shared/"), []byte("shared0")}
		for range 20 {
			if len(blocks) > 0 {
				k := blocks[rapid.IntRange(0, len(blocks)-1).Draw(t, "near")].key
				probes = append(probes, k, append(slices.Clone(k), 0), k[:len(k)/2], append(k[:max(0, len(k)-1):max(0, len(k)-1)], 0xff))
			}
		}
		for _, key := range probes {
			for inst := range keyspace.InstanceID(4) {
				rev := keyspace.Revision(rapid.SampledFrom([]uint64{0, 99_900, 100_000, uint64(keyspace.MaxRevision)}).Draw(t, "rev"))
				mustFind(t, &table, blocks, inst, key, rev)
			}
		}
	})
}

func mustFind(t *rapid.T, table *blockTable, blocks []block, inst keyspace.InstanceID, key []byte, rev keyspace.Revision) {
	want := 0 // the first block of a later instance
	for want < len(blocks) && blocks[want].instance < inst {
		want++
	}
	for want < len(blocks) && blocks[want].instance == inst && !before(key, rev, blocks[want].key, blocks[want].rev) {
		want++
	}
	if got := table.find(inst, key, rev); got != want-1 {
		t.Fatalf("%q at %d of instance %d: block %d, want %d", key, rev, inst, got, want-1)
	}
	for n := range blocks {
		if got, want := table.startsBehind(n, key, rev), before(key, rev, blocks[n].key, blocks[n].rev); got != want {
			t.Fatalf("block %d starts behind %q at %d: %t", n, key, rev, got)
		}
	}
}

// Dense keys take little memory.
func TestBlockTableTakesFewBytes(t *testing.T) {
	const count = 10_000
	table := newBlockTable(count, 0, true)
	for i := range count {
		table.add(block{length: 4096, instance: 1, key: fmt.Appendf(nil, "\x01\x00\x00\x00\x01user/%016d", 14*i), rev: keyspace.MaxRevision})
	}
	table.finish()
	if each := float64(table.bytes()) / count; each > 18 {
		t.Errorf("%.1f bytes for a block", each)
	}
}
