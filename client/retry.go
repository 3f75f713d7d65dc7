package client

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"kvstore/internal/env/system"
)

// do runs an operation: attempts on one node after the other, as long as it is
// safe and the deadline allows, and returns the encoded answer, which is valid
// until o.release.
//
// An attempt may be repeated when it certainly was not executed (it was never
// sent, or the server says so) or when it is a read. A write whose answer was
// lost is never repeated: it fails with ErrUnknownOutcome. Unless it has a request
// id, under which nothing is executed twice.
func (c *Client) do(ctx context.Context, o *operation) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, contextError(err)
	}
	now := c.now()
	o.deadline, o.sweep = c.limit(ctx, now)
	return c.complete(ctx, o, c.launch(o, nil, now))
}

// limit is when an operation that begins now has to end, and whether the sweep
// must see to it because the context does not.
func (c *Client) limit(ctx context.Context, now time.Duration) (deadline time.Duration, sweep bool) {
	if at, ok := ctx.Deadline(); ok {
		return now + time.Until(at), false
	}
	return now + c.cfg.Timeout, true
}

// attempt is an operation on its way to one node.
type attempt struct {
	group *group
	node  *node
	pipe  *pipe
	id    uint64
	// err is why there is nothing to wait for.
	err error
}

// launch sends the operation to the best node but avoid.
func (c *Client) launch(o *operation, avoid *node, now time.Duration) (a attempt) {
	t := c.topology()
	a.group, o.epoch = t.groupOf(o.namespace, o.key), t.epoch
	a.node = c.pick(a.group, o.from, avoid)
	o.dropAnswer()
	cl := o.prepareCall(now)
	cl.atHome = o.from == Auto && a.node == c.home.node.Load()
	a.pipe = a.node.pipe(len(o.body))
	if a.id, a.err = a.pipe.enqueue(cl); a.err == nil {
		c.counters.operations.Add(1)
	}
	return a
}

// complete waits for an attempt and repeats it on other nodes.
func (c *Client) complete(ctx context.Context, o *operation, a attempt) ([]byte, error) {
	answer, err := c.await(ctx, o, a)
	if err == nil {
		if o.from == Auto {
			c.home.worked(a.node)
		}
		return answer, nil
	}
	return c.repeat(ctx, o, a, err)
}

// repeat goes on after an attempt that failed with err.
func (c *Client) repeat(ctx context.Context, o *operation, a attempt, err error) ([]byte, error) {
	var said *Error // by the last attempt that was repeated
	for n := 0; ; n++ {
		if o.from == Auto {
			c.home.failed(a.node, c.now(), err)
			o.from = Leader
		}
		v := c.judge(ctx, o, a.group, err)
		if !v.retry {
			return nil, o.truth(v.err.after(said))
		}
		said = v.err
		var avoid *node
		if v.leaveNode {
			avoid = a.node
		}
		c.counters.retries.Add(1)
		if err := c.backoff(ctx, o, n, v); err != nil {
			return nil, o.truth(err)
		}
		var answer []byte
		a = c.launch(o, avoid, c.now())
		if answer, err = c.await(ctx, o, a); err == nil {
			return answer, nil
		}
	}
}

// await waits for the end of an attempt that is waited for alone.
func (c *Client) await(ctx context.Context, o *operation, a attempt) ([]byte, error) {
	if a.err != nil {
		return nil, a.err
	}
	cl := o.call
	if ctx.Done() == nil {
		<-cl.done
		return o.outcome()
	}
	select {
	case <-cl.done:
	case <-ctx.Done():
		if err := o.withdraw(ctx, a); err != nil {
			return nil, err
		}
		<-cl.done
	}
	return o.outcome()
}

// withdraw takes an attempt back whose context ended; nil when it is ending
// already and will be signaled.
func (o *operation) withdraw(ctx context.Context, a attempt) error {
	sent, ok := a.pipe.withdraw(a.id)
	if !ok {
		return nil
	}
	o.call, o.body = nil, nil // the sender may be reading them
	return &lostError{sent: sent, cause: ctx.Err()}
}

// outcome is how the attempt ended, after it was signaled.
func (o *operation) outcome() ([]byte, error) {
	cl := o.call
	if cl.torn {
		o.call, o.body = nil, bytes.Clone(o.body) // as above
	}
	if cl.err != nil {
		return nil, cl.err
	}
	return decodeResult(cl.answer, o.kind)
}

// verdict says what follows from a failed attempt.
type verdict struct {
	retry bool
	// err is the failure as the caller gets it.
	err *Error
	// now skips the backoff the first times: there is somewhere else to go.
	now bool
	// leaveNode asks for another node.
	leaveNode bool
	// reroute waits for a newer topology.
	reroute bool
}

func (c *Client) judge(ctx context.Context, o *operation, g *group, err error) verdict {
	var lost *lostError
	if errors.As(err, &lost) {
		return c.judgeLost(ctx, o, lost)
	}
	var broken malformedError
	if errors.As(err, &broken) {
		return verdict{err: unreadable(o.write, broken)}
	}
	var e *Error
	if !errors.As(err, &e) {
		return verdict{err: wrapError(CodeInternal, err, "unexpected failure")}
	}
	switch e.Code {
	case CodeWrongLeader:
		known := c.follow(g, e)
		return verdict{retry: true, err: e, now: known, leaveNode: !known}
	case CodeUnavailable:
		c.wantRefresh()
		return verdict{retry: true, err: e, leaveNode: true}
	case CodeWrongGroup:
		return verdict{retry: true, err: e, reroute: true}
	case CodeOverloaded:
		return verdict{retry: true, err: e}
	case CodeUnknownOutcome:
		if !o.write {
			return verdict{retry: true, err: wrapError(CodeUnavailable, e, "no node answered"), leaveNode: true}
		}
		if o.requestID != "" && ctx.Err() == nil {
			o.unsure = true
			return verdict{retry: true, err: o.unknownOf(e), leaveNode: true}
		}
		return verdict{err: e}
	default:
		if o.ownID && e.givenUp() { // nobody waits for it under that id
			o.rename(c.NewRequestID())
			o.unsure = false
			return verdict{retry: true, err: wrapError(CodeUnavailable, e, "the request was given up before it was executed")}
		}
		return verdict{err: e}
	}
}

// judgeLost is about attempts without an answer.
func (c *Client) judgeLost(ctx context.Context, o *operation, lost *lostError) verdict {
	if o.write && lost.sent {
		c.counters.unknown.Add(1)
		e := o.unknownOf(lost.cause)
		o.unsure = o.requestID != ""
		return verdict{err: e, retry: o.unsure && ctx.Err() == nil && c.now() < o.deadline, leaveNode: true}
	}
	var own *Error
	if errors.As(lost.cause, &own) && own.Code == CodeClosed && c.isClosed() {
		return verdict{err: errClientClosed()}
	}
	if ctx.Err() != nil {
		return verdict{err: contextError(ctx.Err())}
	}
	if errors.Is(lost.cause, context.DeadlineExceeded) && c.now() >= o.deadline {
		return verdict{err: contextError(context.DeadlineExceeded)}
	}
	return verdict{retry: true, now: true, leaveNode: true, err: wrapError(CodeUnavailable, lost.cause, "no node answered")}
}

// immediateRetries is how many attempts follow without a pause when there is
// somewhere else to go.
const immediateRetries = 2

// backoff waits before the next attempt: exponentially longer with full
// jitter, at least as long as the server asks for, never past the deadline.
func (c *Client) backoff(ctx context.Context, o *operation, attempt int, v verdict) error {
	var wait time.Duration
	if !v.now || attempt >= immediateRetries {
		wait = jitter(c.cfg.RetryBase, c.cfg.RetryMax, attempt)
	}
	if v.err.RetryAfter > 0 {
		wait += v.err.RetryAfter
	}
	if v.reroute {
		wait += minRefreshGap
	}
	if c.now()+wait >= o.deadline {
		return gaveUp(v.err, context.DeadlineExceeded)
	}
	if wait == 0 {
		return nil
	}
	pause := system.Pause
	if v.reroute {
		pause = func(ctx context.Context, most time.Duration) error { return c.awaitNewer(ctx, o.epoch, most) }
	}
	if err := pause(ctx, wait); err != nil {
		return gaveUp(v.err, err)
	}
	return nil
}

// gaveUp is the last failure of an operation whose time is over.
func gaveUp(last *Error, cause error) *Error {
	e := *last
	e.cause = errors.Join(cause, last.cause)
	return &e
}

// jitter draws from (0, base<<attempt], at most (0, limit].
func jitter(base, limit time.Duration, attempt int) time.Duration {
	ceiling := limit
	if attempt < 20 {
		ceiling = min(base<<attempt, limit)
	}
	return 1 + time.Duration(rand.Int64N(int64(max(ceiling, 1))))
}
