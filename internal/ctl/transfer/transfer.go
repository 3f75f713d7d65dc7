// Package transfer moves many records between a cluster and the disk: a
// directory tree (path is key, bytes are value) or a file of JSON lines. Work
// is parallel, bounded in memory, remembered in a journal so that it can be
// resumed, and checked when asked.
//
// A run is a source that emits items in order and workers that handle them.
// Items of one key go to one worker, so that the last line for a key wins.
// An item that fails for its own reasons is reported and the rest goes on; a
// cluster that stays away for Options.RetryFor ends the run.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"kvstore/client"
	"kvstore/internal/ctl/progress"
)

const (
	// MaxParallel bounds Options.Parallel.
	MaxParallel = 1024
	// MaxValueBytes is the store's limit for a value (S3.8).
	MaxValueBytes = 16 << 20

	budgetBytes = 128 << 20 // values in memory at once
	queueLength = 4         // items waiting for one worker
	keptErrors  = 20        // failures kept for the summary
	keptFailed  = 10_000    // names of failed items kept
)

// Errors a run ends with.
var (
	// ErrPartial says that some items failed; the summary has their number.
	ErrPartial = errors.New("not everything was transferred")
	// ErrMismatch says that verification found a difference.
	ErrMismatch = errors.New("verification failed")
)

// Options of every transfer. Client and Progress must be set.
type Options struct {
	Client   *client.Client
	Progress *progress.Progress
	// Source and Target name the two sides in the journal; Namespace is where
	// the records are.
	Namespace string
	Prefix    string
	Parallel  int
	// Journal is the file of finished items; empty for none. Resume continues
	// from it.
	Journal string
	Resume  bool
	Verify  bool
	// IfAbsent leaves keys that exist as they are.
	IfAbsent bool
	// RetryFor is how long an item is tried while the cluster is not reachable.
	RetryFor time.Duration
	// MaxFailures ends the run when more items failed.
	MaxFailures int64
	// UnsafeLinks restores symbolic links that point out of the target.
	UnsafeLinks bool
}

// Summary is what a run did.
type Summary struct {
	Items    int64 `json:"items"`
	Bytes    int64 `json:"bytes"`
	Resumed  int64 `json:"resumed"`
	Existing int64 `json:"existing"`
	Expired  int64 `json:"expired"`
	Special  int64 `json:"special"`
	Newer    int64 `json:"newer"`
	Verified int64 `json:"verified"`
	Failed   int64 `json:"failed"`
	// Failures holds the first of them.
	Failures []string `json:"failures,omitempty"`
	// Elapsed is in seconds.
	Elapsed float64 `json:"elapsed_seconds"`
}

// item is one record to move.
type item struct {
	key  string
	name string // for messages
	etag string
	size int64 // bytes of memory the item needs
	seq  int64 // position in the source, from 1
	load func() (client.PutItem, error)
	rec  client.Record // of an export, without its value
}

// source emits items until there are no more; emit fails when the run ends.
type source func(ctx context.Context, emit func(item) error) error

// run is one transfer.
type run struct {
	Options
	journal  *journal
	budget   *semaphore.Weighted
	seed     maphash.Seed
	started  time.Time
	mismatch atomic.Bool

	mu     sync.Mutex // guards what follows
	sum    Summary
	failed map[string]struct{} // names of failed items, the first keptFailed
}

func newRun(o Options) *run {
	o.Parallel = min(max(o.Parallel, 1), MaxParallel)
	return &run{Options: o, budget: semaphore.NewWeighted(budgetBytes), seed: maphash.MakeSeed(), started: time.Now(), failed: map[string]struct{}{}}
}

// count changes the summary.
func (r *run) count(change func(*Summary)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.sum)
}

// fail reports an item; the error ends the run when there are too many.
func (r *run) fail(name string, err error) error {
	if errors.Is(err, ErrMismatch) || errors.Is(err, client.ErrCorruption) {
		r.mismatch.Store(true)
	}
	line := fmt.Sprintf("%s: %v", name, err)
	r.mu.Lock()
	r.sum.Failed++
	n := r.sum.Failed
	if len(r.failed) < keptFailed {
		r.failed[name] = struct{}{}
	}
	kept := len(r.sum.Failures) < keptErrors
	if kept {
		r.sum.Failures = append(r.sum.Failures, line)
	}
	r.mu.Unlock()
	r.Progress.Fail()
	if kept {
		r.Progress.Print("failed: " + line)
	}
	if r.MaxFailures > 0 && n > r.MaxFailures {
		return fmt.Errorf("%w: more than %d items failed", ErrPartial, r.MaxFailures)
	}
	return nil
}

// each hands the items of src to workers. work returns a fatalError to end
// the run; other errors are the item's own.
func (r *run) each(ctx context.Context, src source, work func(context.Context, item) error) error {
	g, ctx := errgroup.WithContext(ctx)
	queues := make([]chan item, r.Parallel)
	for i := range queues {
		queues[i] = make(chan item, queueLength)
		g.Go(func() error { return r.worker(ctx, queues[i], work) })
	}
	g.Go(func() error {
		defer func() {
			for _, q := range queues {
				close(q)
			}
		}()
		return src(ctx, func(it item) error {
			q := queues[maphash.String(r.seed, it.key)%uint64(len(queues))]
			select {
			case q <- it:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	return g.Wait()
}

func (r *run) worker(ctx context.Context, queue <-chan item, work func(context.Context, item) error) error {
	for it := range queue {
		if err := r.one(ctx, it, work); err != nil {
			return err
		}
	}
	return nil
}

// one handles an item within the byte budget.
func (r *run) one(ctx context.Context, it item, work func(context.Context, item) error) error {
	weight := min(max(it.size, 1), budgetBytes)
	if err := r.budget.Acquire(ctx, weight); err != nil {
		return err
	}
	err := work(ctx, it)
	r.budget.Release(weight)
	var fatal *fatalError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &fatal):
		return fmt.Errorf("%s: %w", it.name, fatal.cause)
	}
	return r.fail(it.name, err)
}

// finish closes the journal and returns the summary with the run's error.
func (r *run) finish(err error) (Summary, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && r.mismatch.Load() {
		err = ErrMismatch
	}
	if err == nil && r.sum.Failed > 0 {
		err = ErrPartial
	}
	err = errors.Join(err, r.journal.close(err == nil))
	r.sum.Elapsed = time.Since(r.started).Seconds()
	return r.sum, err
}
