package sstable

import "io"

// windowBytes is how much of a file a walk reads at once. The system's own read-ahead
// may be many megabytes for each of a dozen files, and whoever waits for a sync of the
// log then waits for all of it.
const windowBytes = 256 << 10

// A list reads ahead when it goes on, the more the longer it does: most end in the
// block where they begin, and others have a thousand records.
const (
	firstAhead = 16 << 10
	mostAhead  = 32 << 10
)

// window reads a file whose blocks are asked for one after the other. It serves one
// goroutine.
type window struct {
	f    io.ReaderAt
	size int64 // of the file
	list bool  // read by a list, not by a walk
	at   int64 // where b begins
	b    []byte
	room []byte
	// end is where the last read ended, and ahead how much of the file was read then.
	end   int64
	ahead int
}

// ReadAt fills p from the window, which it moves when p is not in it.
func (w *window) ReadAt(p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	if off < w.at || end > w.at+int64(len(w.b)) {
		w.ahead = w.next(off)
		if w.end = end; w.ahead <= len(p) {
			return w.f.ReadAt(p, off)
		}
		if err := w.move(w.ahead, off); err != nil {
			w.b = w.b[:0]
			return w.f.ReadAt(p, off) // perhaps that is in order
		}
	}
	w.end = end
	if n := copy(p, w.b[off-w.at:]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

// next is how much to read at off.
func (w *window) next(off int64) int {
	switch {
	case !w.list:
		return windowBytes
	case off != w.end:
		return 0
	default:
		return min(max(2*w.ahead, firstAhead), mostAhead)
	}
}

// move reads the window that begins at off and has n bytes, or all up to the file's
// end.
func (w *window) move(n int, off int64) error {
	if cap(w.room) < n {
		w.room = make([]byte, n)
	}
	b := w.room[:min(int64(n), max(0, w.size-off))]
	got, err := w.f.ReadAt(b, off)
	w.at, w.b = off, b[:got]
	if err == io.EOF { // the file has lost its end: who reads it says so
		return nil
	}
	return err
}
