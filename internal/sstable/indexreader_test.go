package sstable

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"testing"

	"kvstore/internal/keyspace"
)

// brokenLater reads until its time has come.
type brokenLater struct {
	io.ReaderAt
	reads int
	err   error
}

func (f *brokenLater) ReadAt(b []byte, off int64) (int, error) {
	if f.reads--; f.reads < 0 {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(b, off)
}

// readPieces reads an index that begins at 3, a few bytes at a time.
func readPieces(r *indexReader, end int64, filtered bool) (spans map[keyspace.InstanceID]Span, blocks []block, keys filter, err error) {
	spans, keys, err = readIndex(r, end, filtered, indexParts{
		count: func(int) {},
		block: func(b block) bool { b.key = bytes.Clone(b.key); blocks = append(blocks, b); return true },
	})
	return spans, blocks, keys, err
}

// However small the pieces are, an index is read as it is at once; and a read that
// fails is the error, wherever it is.
func TestIndexesAreReadInPieces(t *testing.T) {
	history, end := sampleIndex()
	run, runEnd := sampleRunIndex()
	for _, c := range []struct {
		index    []byte
		end      int64
		filtered bool
	}{{history, end, false}, {run, runEnd, true}} {
		spans, blocks, keys, err := decodeIndex(c.index, c.end, c.filtered)
		if err != nil || len(blocks) == 0 {
			t.Fatal(blocks, err)
		}
		file := bytes.NewReader(append([]byte("abc"), c.index...))
		for piece := 1; piece < 64; piece++ {
			from := &brokenLater{ReaderAt: file, reads: 1 << 30}
			r := &indexReader{from: from, at: 3, end: file.Size(), piece: piece}
			gotSpans, gotBlocks, gotKeys, err := readPieces(r, c.end, c.filtered)
			if err != nil || !maps.Equal(gotSpans, spans) || !bytes.Equal(gotKeys, keys) || len(gotBlocks) != len(blocks) ||
				!slices.EqualFunc(gotBlocks, blocks, func(d, e block) bool {
					return d.offset == e.offset && d.instance == e.instance && bytes.Equal(d.key, e.key) && d.rev == e.rev
				}) {
				t.Fatalf("pieces of %d: %v, %v, %v", piece, gotSpans, gotBlocks, err)
			}
			if want := crc32.Checksum(c.index, castagnoli); r.sum != want {
				t.Fatalf("pieces of %d: checksum %x, want %x", piece, r.sum, want)
			}
			broken := errors.New("the disk is broken")
			for n := range 1<<30 - from.reads {
				r := &indexReader{from: &brokenLater{file, n, broken}, at: 3, end: file.Size(), piece: piece}
				if _, _, _, err := readPieces(r, c.end, c.filtered); !errors.Is(err, broken) {
					t.Fatalf("pieces of %d, read %d fails: %v", piece, n, err)
				}
			}
		}
	}
}
