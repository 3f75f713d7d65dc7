package sstable

import "io"

// windowBytes is how much of a file a walk reads at once. The system's own read-ahead
// may be many megabytes for each of a dozen files, and whoever waits for a sync of the
// log then waits for all of it.
const windowBytes = 256 << 10

// window reads a file whose blocks are asked for one after the other. It serves one
// goroutine.
type window struct {
	f    io.ReaderAt
	size int64 // of the file
	at   int64 // where b begins
	b    []byte
	room []byte
}

// ReadAt fills p from the window, which it moves when p is not in it.
func (w *window) ReadAt(p []byte, off int64) (int, error) {
	if off < w.at || off+int64(len(p)) > w.at+int64(len(w.b)) {
		if err := w.move(len(p), off); err != nil {
			return 0, err
		}
	}
	if n := copy(p, w.b[off-w.at:]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

// move reads the window that begins at off and has at least n bytes, or all up to the
// file's end.
func (w *window) move(n int, off int64) error {
	if need := max(n, windowBytes); cap(w.room) < need {
		w.room = make([]byte, need)
	}
	b := w.room[:min(int64(cap(w.room)), max(0, w.size-off))]
	got, err := w.f.ReadAt(b, off)
	w.at, w.b = off, b[:got]
	if err == io.EOF { // the file has lost its end: who reads it says so
		return nil
	}
	return err
}
