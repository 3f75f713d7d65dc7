package client

import (
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// unaryKind says what a lost answer means.
type unaryKind int

const (
	// readUnary changes nothing and is repeated.
	readUnary unaryKind = iota
	// writeUnary is repeated only when the server says it was not executed.
	writeUnary
)

// rpcMethod is a method of api.KVStoreClient as a function.
type rpcMethod[C, Req, Resp any] func(c C, ctx context.Context, in *Req, opts ...grpc.CallOption) (*Resp, error)

// unary calls a method on any node, with the retries of do.
func unary[Req, Resp any](ctx context.Context, c *Client, kind unaryKind, in *Req, method rpcMethod[kvClient, Req, Resp]) (*Resp, error) {
	return unaryOn(ctx, c, kind, nil, in, method)
}

// unaryOn calls a method once on one node, or on any when fixed is nil.
func unaryOn[Req, Resp any](ctx context.Context, c *Client, kind unaryKind, fixed *node, in *Req, method rpcMethod[kvClient, Req, Resp]) (*Resp, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	var out *Resp
	o := &operation{write: kind == writeUnary, from: Any, deadline: c.until(ctx)}
	err := c.try(ctx, o, fixed, func(n *node) (err error) {
		r := n.begin(ctx, !o.write)
		defer r.end()
		if o.write {
			if err := r.conn.ready(ctx); err != nil {
				n.failed(err)
				return &lostError{cause: err}
			}
		}
		out, err = method(r.stub(), r.ctx, in, c.callOptions()...)
		return r.failure(err)
	})
	return out, err
}

// try runs once on one node after the other until it succeeds, or must not or
// cannot be repeated; a fixed node is tried one time. The failures it returns are *lostError or *Error.
func (c *Client) try(ctx context.Context, o *operation, fixed *node, once func(*node) error) error {
	var avoid *node
	for attempt := 0; ; attempt++ {
		if c.isClosed() {
			return errClientClosed()
		}
		t := c.topology()
		g := t.groupOf(o.namespace, o.key)
		o.epoch = t.epoch
		n := fixed
		if n == nil {
			n = c.pick(g, o.from, avoid)
		}
		n.outstanding.Add(1)
		err := once(n)
		n.outstanding.Add(-1)
		if err == nil {
			return nil
		}
		v := c.judge(ctx, o, g, err)
		if !v.retry || fixed != nil {
			return v.err
		}
		avoid = nil
		if v.leaveNode {
			avoid = n
		}
		c.counters.retries.Add(1)
		if err := c.backoff(ctx, o, attempt, v); err != nil {
			return err
		}
	}
}

// bound gives ctx the client's timeout when it has no deadline.
func (c *Client) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.cfg.Timeout)
}

// until is the deadline of a bounded context in the client's time.
func (c *Client) until(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline()
	return c.now() + time.Until(deadline)
}

func millis(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// quoteKey makes a key fit for a message.
func quoteKey(key string) string {
	const most = 64
	if len(key) > most {
		key = key[:most] + "..."
	}
	return strings.Trim(strconv.Quote(key), `"`)
}
