package raftlog

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// sampleRecords has one record of each kind.
func sampleRecords() []byte {
	c := checkpoint(7, 8, 9)
	b := appendEntry(nil, 1, entry(2, 3, "data"))
	b = appendHardState(b, 1, hardState{4, 5, 6})
	b = appendCheckpointRecord(b, recordCheckpoint, 1, &c)
	b = appendCheckpointRecord(b, recordSwitch, 1, &c)
	b = appendCreate(b, 2, 3, &c)
	b = appendRemove(b, 2, 3)
	b = appendAdopt(b, 1, 9)
	b = appendMeta(b, "key", []byte("value"))
	return appendGroup(b, 2, 0, 3)
}

// FuzzRecords reads arbitrary bytes as records: no panic, no reading past the
// end, and what is accepted is written back the same.
func FuzzRecords(f *testing.F) {
	f.Add(sampleRecords())
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			rec, err := nextRecord(b)
			if err != nil {
				return
			}
			again := append(beginRecord(nil, rec.typ, rec.group), rec.body...)
			if again = endRecord(again, 0); !bytes.Equal(again[8:17], b[8:17]) || !bytes.Equal(rec.body, again[recordHeaderBytes:]) {
				t.Fatalf("record %x is written back as %x", b[:rec.size], again)
			}
			if c, err := decodeCheckpoint(rec.body); err == nil {
				if _, err := decodeCheckpoint(appendCheckpoint(nil, &c)); err != nil {
					t.Fatalf("checkpoint %+v does not survive: %v", c, err)
				}
			}
			_, _, _ = decodeEntry(rec.typ, rec.body)
			_, _ = decodeHardState(rec.body)
			_, _, _ = decodeMeta(rec.body)
			b = b[rec.size:]
		}
	})
}

// FuzzOpen recovers a log with arbitrary damage: bytes of data replace those
// of the file from an offset on. Nothing panics, and what is shown is what was
// written, or damaged.
func FuzzOpen(f *testing.F) {
	f.Add(uint32(sectorBytes), []byte{1})
	f.Add(uint32(2*sectorBytes), make([]byte, 700))
	f.Add(uint32(0), sampleRecords())
	f.Fuzz(func(t *testing.T, offset uint32, data []byte) {
		fs := simfs.New()
		l := mustOpen(t, fs)
		fill := func(b *Batch) {
			b.Create(1, 1, checkpoint(1, 4, 1))
			b.Entries(1, entries(1, 5, 40))
			b.HardState(1, hard(1, 1, 30))
		}
		m := newModel()
		b := l.NewBatch()
		fill(b)
		m.apply(b)
		if err := l.Commit(b, true); err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
		name := segmentName(testDir, 1)
		file, err := fs.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(data[:min(len(data), 4096)], int64(offset%(8*sectorBytes))); err != nil {
			t.Fatal(err)
		}
		l, err = Open(fs, testDir, testOptions(rand.New(rand.NewPCG(1, 2))))
		if err != nil {
			return
		}
		for _, i := range l.Groups() {
			if got, err := logGroupString(l, i); i.Group == 1 && !i.Damaged && !l.Hidden() && (err != nil || got != m.groupString(keyspace.GroupID(1))) {
				t.Fatalf("served %s, %v", got, err)
			}
		}
	})
}
