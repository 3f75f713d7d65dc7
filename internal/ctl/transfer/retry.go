package transfer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"kvstore/client"
)

const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 2 * time.Second
)

// fatalError ends a run.
type fatalError struct{ cause error }

func (e *fatalError) Error() string { return e.cause.Error() }
func (e *fatalError) Unwrap() error { return e.cause }

// transient says whether the same operation may succeed later. An unknown
// outcome is among them: a transfer writes the same value again.
func transient(err error) bool {
	switch client.CodeOf(err) {
	case client.CodeUnavailable, client.CodeOverloaded, client.CodeWrongLeader, client.CodeWrongGroup,
		client.CodeDeadlineExceeded, client.CodeUnknownOutcome:
		return true
	default:
		return false
	}
}

// retry repeats op while it fails for a transient reason, for RetryFor at
// most; the error is then fatal.
func (r *run) retry(ctx context.Context, op func(context.Context) error) error {
	deadline := time.Now().Add(r.RetryFor)
	wait := retryFirst
	for {
		err := op(ctx)
		if err == nil || !transient(err) || ctx.Err() != nil {
			return err
		}
		if time.Now().Add(wait).After(deadline) {
			return &fatalError{fmt.Errorf("gave up after %s of retries: %w", r.RetryFor, err)}
		}
		t := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
		wait = min(2*wait, retryMost)
	}
}
