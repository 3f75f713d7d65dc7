package collections

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"kvstore/client"
)

// A conditional write whose answer is lost was executed, or not, or will be. It is
// sent again as it was, on condition of the same revision: at most one of its
// copies finds that. When none of what was sent again did, the key's history tells
// who wrote the revision behind it, by the id that each write carries in its
// metadata.

// opEntry is the metadata with a write's id.
const opEntry = "op"

func newOp() string { return rand.Text() }

// marked gives a write its id.
func marked(op string) client.PutOption { return client.WithMetadata(map[string]string{opEntry: op}) }

const (
	// maxSettle bounds an operation whose context has no deadline.
	maxSettle  = time.Minute
	retryFirst = 5 * time.Millisecond
	retryMost  = 500 * time.Millisecond
)

// bound gives ctx a deadline when it has none.
func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, maxSettle)
}

// pause waits before attempt n+1: doubling, half of it random.
func pause(ctx context.Context, n int) error {
	d := min(retryMost, retryFirst<<min(n, 10))
	var b [1]byte
	_, _ = rand.Read(b[:]) // never fails
	t := time.NewTimer(d/2 + d/2*time.Duration(b[0])/256)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write is a conditional write of a key.
type write struct {
	c    *client.Client
	in   client.Option
	key  string
	seen uint64 // the revision it is conditional on, 0 for none
	op   string
	// commit sends it; false means that the condition does not hold.
	commit func(ctx context.Context) (bool, error)
}

// settle sends a write until it is known what became of it; false means that
// another one came first.
func (w *write) settle(ctx context.Context) (bool, error) {
	var lost error
	for n := 0; ; n++ {
		done, err := w.commit(ctx)
		switch {
		case err == nil && (done || lost == nil):
			return done, nil
		case err == nil:
			return w.written(ctx, lost)
		case errors.Is(err, client.ErrUnknownOutcome):
			lost = err
		case lost == nil:
			return false, err
		}
		if pause(ctx, n) != nil {
			return false, lost
		}
	}
}

// written looks in the key's history for the write. lost is the answer where that
// does not tell any more.
func (w *write) written(ctx context.Context, lost error) (bool, error) {
	whole := false
	for v, err := range w.c.History(ctx, w.key, client.KeysOnly(), w.in) {
		switch {
		case err != nil:
			return false, errors.Join(lost, err)
		case v.Record.Revision <= w.seen:
			return false, nil
		case v.Record.Metadata[opEntry] == w.op:
			return true, nil
		}
		whole = v.Deleted || v.Record.Version == 1
	}
	if !whole || w.seen != 0 {
		return false, fmt.Errorf("collections: the history of key %q does not reach back to the write: %w", w.key, lost)
	}
	return false, nil
}
