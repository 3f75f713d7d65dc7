package sstable

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"
)

// failing is a file that cannot be read from some place on.
type failing struct {
	*bytes.Reader
	from  int64
	reads int
}

var errBadSector = errors.New("disk")

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	f.reads++
	if off+int64(len(p)) > f.from {
		return 0, errBadSector
	}
	return f.Reader.ReadAt(p, off)
}

// A window reads what its file has, in any order, and an error is not a part of it.
func TestWindowReadsWhatTheFileHas(t *testing.T) {
	content := make([]byte, 3*windowBytes+1000)
	for i := range content {
		content[i] = byte(i * 7 >> 3)
	}
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, len(content)).Draw(t, "size")
		f := &failing{Reader: bytes.NewReader(content[:size]), from: int64(rapid.IntRange(size/2, 2*size).Draw(t, "from"))}
		w := &window{f: f, size: int64(size), list: rapid.Bool().Draw(t, "list")}
		for range rapid.IntRange(1, 20).Draw(t, "reads") {
			off := rapid.IntRange(0, size).Draw(t, "off")
			p := make([]byte, rapid.SampledFrom([]int{0, 1, 100, 8000, windowBytes, windowBytes + 5}).Draw(t, "bytes"))
			n, err := w.ReadAt(p, int64(off))
			if !bytes.Equal(p[:n], content[off:off+n]) {
				t.Fatalf("%d bytes at %d are not the file's", n, off)
			}
			switch {
			case err == nil && n == len(p):
			case errors.Is(err, io.EOF) && off+n == size:
			case errors.Is(err, errBadSector) && f.from < int64(off+len(p)):
			default:
				t.Fatalf("%d of %d bytes at %d of %d: %v", n, len(p), off, size, err)
			}
		}
	})
}

// A list that goes on reads ahead, and one that ends at once does not.
func TestListsReadAheadWhenTheyGoOn(t *testing.T) {
	const blocks, length = 100, 4000
	f := &failing{Reader: bytes.NewReader(make([]byte, blocks*length)), from: blocks * length}
	w, p := &window{f: f, size: blocks * length, list: true}, make([]byte, length)
	read := func(n int64) {
		t.Helper()
		if got, err := w.ReadAt(p, n*length); got != length || err != nil {
			t.Fatalf("block %d: %d, %v", n, got, err)
		}
	}
	for _, n := range []int64{50, 20, 70, 90} {
		read(n)
		if len(w.b) > 0 {
			t.Fatalf("%d bytes were read with block %d", len(w.b), n)
		}
	}
	f.reads = 0
	for n := range int64(blocks) {
		read(n)
	}
	if most := 2 + blocks*length/(mostAhead-length) + 1; f.reads > most {
		t.Errorf("%d reads of the file, want at most %d", f.reads, most)
	}
}

// Blocks in order cost a read of the file for each window.
func TestWindowReadsAhead(t *testing.T) {
	const blocks, length = 1000, 8200
	f := &failing{Reader: bytes.NewReader(make([]byte, blocks*length)), from: blocks * length}
	w, p := &window{f: f, size: blocks * length}, make([]byte, length)
	for n := range int64(blocks) {
		if got, err := w.ReadAt(p, n*length); got != length || err != nil {
			t.Fatalf("block %d: %d, %v", n, got, err)
		}
	}
	if most := blocks*length/(windowBytes-length) + 1; f.reads > most {
		t.Errorf("%d reads of the file, want at most %d", f.reads, most)
	}
}
