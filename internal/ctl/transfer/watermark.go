package transfer

import "sync"

// watermarkEvery is how many finished lines share one mark in the journal.
const watermarkEvery = 256

// watermark follows lines that finish out of order and notes in the journal
// up to which one all are finished. It stops for ever at the first line that
// failed, so that a resumed run meets it again; waiting is bounded by the
// lines in flight.
type watermark struct {
	journal *journal

	mu      sync.Mutex // guards what follows
	next    int64      // lowest line not finished
	waiting map[int64]struct{}
	noted   int64
	stopped bool
}

// finished says how a line ended.
func (w *watermark) finished(line int64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	if !ok {
		w.stopped = true
		clear(w.waiting)
		return
	}
	w.waiting[line] = struct{}{}
	for {
		if _, done := w.waiting[w.next]; !done {
			break
		}
		delete(w.waiting, w.next)
		w.next++
	}
	if w.next-1-w.noted >= watermarkEvery {
		w.note()
	}
}

// flush notes the last state.
func (w *watermark) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note()
}

func (w *watermark) note() {
	if n := w.next - 1; n > w.noted {
		w.journal.reached(n)
		w.noted = n
	}
}
