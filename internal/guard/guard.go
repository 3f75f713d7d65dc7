// Package guard is the one chain every request of a client passes, whichever
// protocol it came by:
//
//	recover       a panic is answered internal, logged with its stack, counted
//	measure       kvstore_request_duration_seconds{method,code}, requests in flight
//	authenticate  who asks (anonymous until users exist); the identity is in the context
//	belong        a node that was removed from its cluster refuses all but Status
//	deadline      the caller's, else DefaultTimeout, never more than MaxTimeout
//	limit         operations and bytes in progress; a short queue; then overloaded
//	handle        the server's own code
//	map           errors become gRPC statuses or problem documents
//
// Unary calls and HTTP requests pass all of it (Unary, HTTP). A stream, also one of
// server-sent events, passes recover, measure, authenticate and map once; streams are counted apart
// (MaxStreams), and what a Pipeline stream carries is limited frame by frame by
// its handler (Acquire), so that an open stream that does nothing costs no slot.
// Health checks pass no limit: a probe is answered under overload.
package guard

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"kvstore/internal/deadline"
	"kvstore/internal/fault"
	"kvstore/internal/metrics"
	"kvstore/internal/server/status"
)

// Defaults of Options.
const (
	DefaultMaxConcurrent = 4096
	DefaultMaxBytes      = 256 << 20
	DefaultMaxWait       = 500 * time.Millisecond
	DefaultMaxStreams    = 10_000
	DefaultTimeout       = 10 * time.Second
	DefaultMaxTimeout    = 60 * time.Second
	retryHint            = 100 * time.Millisecond
)

// Options configure a Guard; zero values take the defaults above.
type Options struct {
	// MaxConcurrent bounds operations in progress, MaxBytes the sizes of their
	// requests. One that is larger than MaxBytes runs alone.
	MaxConcurrent int
	MaxBytes      int64
	// MaxQueue bounds the requests that wait for a slot (default
	// MaxConcurrent), MaxWait how long each waits.
	MaxQueue int
	MaxWait  time.Duration
	// MaxStreams bounds open streams.
	MaxStreams int
	// DefaultTimeout is given to requests that bring no deadline, MaxTimeout is
	// the longest one given.
	DefaultTimeout, MaxTimeout time.Duration
	// Authenticate names the caller; nil admits everyone as anonymous.
	Authenticate Authenticator
	// Refuse is the error of every request but Status; nil, or a nil error, lets
	// them pass.
	Refuse  func() error
	Metrics *metrics.Requests
	Logger  *slog.Logger
}

func (o *Options) setDefaults() {
	def(&o.MaxConcurrent, DefaultMaxConcurrent)
	def(&o.MaxBytes, DefaultMaxBytes)
	def(&o.MaxQueue, o.MaxConcurrent)
	def(&o.MaxWait, DefaultMaxWait)
	def(&o.MaxStreams, DefaultMaxStreams)
	def(&o.DefaultTimeout, DefaultTimeout)
	def(&o.MaxTimeout, DefaultMaxTimeout)
	if o.Metrics == nil {
		o.Metrics = metrics.New("none").Requests()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func def[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Guard is safe for concurrent use.
type Guard struct {
	o       Options
	limit   *limiter
	streams *limiter
	logs    sampler
}

// New returns a guard; it starts nothing.
func New(o Options) *Guard {
	o.setDefaults()
	return &Guard{
		o:       o,
		limit:   newLimiter("requests", o.MaxConcurrent, o.MaxBytes, o.MaxQueue, o.MaxWait),
		streams: newLimiter("streams", o.MaxStreams, 0, 0, 0),
		logs:    sampler{perSecond: 20},
	}
}

// Acquire takes slots for operations and their bytes, waiting in a bounded
// queue. It fails with overloaded and a retry hint, or canceled; then nothing
// must be released. Otherwise Release gives the same amounts back.
func (g *Guard) Acquire(ctx context.Context, operations int, bytes int64) error {
	if err := g.refusal(""); err != nil {
		return err
	}
	return g.limit.acquire(ctx, operations, bytes)
}

// refusal is the error of a request to a node that serves nobody.
func (g *Guard) refusal(method string) error {
	if g.o.Refuse == nil || method == "Status" {
		return nil
	}
	return g.o.Refuse()
}

// Release gives back what Acquire took.
func (g *Guard) Release(operations int, bytes int64) { g.limit.release(operations, bytes) }

// Load returns the part of the slots for operations that is taken, in percent.
func (g *Guard) Load() int { return g.limit.load() }

// Observe records the answer to one operation of a stream.
func (g *Guard) Observe(method string, code fault.Code, d time.Duration) {
	g.o.Metrics.Observe(method, code, d)
}

// Timeout returns how long an operation may take that asked for d; 0 means it
// did not say.
func (g *Guard) Timeout(d time.Duration) time.Duration {
	if d <= 0 {
		return g.o.DefaultTimeout
	}
	return min(d, g.o.MaxTimeout)
}

// withDeadline gives ctx the deadline of a unary request.
func (g *Guard) withDeadline(ctx context.Context, asked time.Duration) (context.Context, context.CancelFunc) {
	if at, ok := ctx.Deadline(); ok && asked == 0 {
		if asked = max(time.Until(at), time.Nanosecond); asked <= g.o.MaxTimeout {
			return ctx, func() {} // the caller's own: its transport ends it
		}
	}
	return deadline.WithTimeout(ctx, g.Timeout(asked))
}

// Recovered counts and logs a panic and returns the error that answers it.
func (g *Guard) Recovered(method string, p any) error {
	g.o.Metrics.Panicked()
	g.o.Logger.Error("request panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
	return fault.New(fault.Internal, "internal error; the server's log has more")
}

// report logs errors that are ours to repair.
func (g *Guard) report(method string, err error) {
	switch status.Fault(err).Code {
	case fault.Internal, fault.Corruption:
		if g.logs.take(time.Now()) {
			g.o.Logger.Error("request failed", "method", method, "err", err)
		}
	default:
		g.o.Logger.Debug("request refused", "method", method, "err", err)
	}
}
