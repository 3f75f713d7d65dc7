package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
)

// rpc is one request outside of the pipes: a unary call or a stream of one
// large value. Health sees how long it waits, and ends it when its node falls
// silent and it may be repeated elsewhere.
type rpc struct {
	conn *nodeConn
	// ctx is the request's; caller is the one it was made from.
	ctx    context.Context // the life of the request
	caller context.Context // as above
	cancel context.CancelCauseFunc
	// waiting is when the wait for the server began, since the client's start;
	// 0 while it is not waited for.
	waiting atomic.Int64
	// quiet is set for a stream that only must not be silent for long.
	quiet atomic.Pointer[silence]
	// repeatable says that nothing is lost when the request is ended.
	repeatable atomic.Bool
}

// begin starts a request on one of the node's connections; end must be called.
func (n *node) begin(ctx context.Context, repeatable bool) *rpc {
	r := &rpc{conn: n.conn(), caller: ctx}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.repeatable.Store(repeatable)
	r.wait()
	r.conn.rpcMu.Lock()
	defer r.conn.rpcMu.Unlock()
	if r.conn.rpcs == nil {
		r.conn.rpcs = make(map[*rpc]struct{})
	}
	r.conn.rpcs[r] = struct{}{}
	return r
}

func (r *rpc) end() {
	r.cancel(nil)
	r.conn.rpcMu.Lock()
	defer r.conn.rpcMu.Unlock()
	delete(r.conn.rpcs, r)
}

// wait says that the server's turn begins, heard that it answered.
func (r *rpc) wait() { r.waiting.Store(int64(r.conn.node.client.now())) }

func (r *rpc) heard() {
	r.waiting.Store(0)
	r.conn.hear()
}

func (r *rpc) stub() kvClient {
	return kvClient{api.NewKVStoreClient(r.conn.cc), api.NewClusterClient(r.conn.cc), api.NewLeasesClient(r.conn.cc)}
}

// sweepRPCs is sweep for requests outside of the pipes.
func (nc *nodeConn) sweepRPCs(now time.Duration, suspect error) (oldest time.Duration) {
	nc.rpcMu.Lock()
	defer nc.rpcMu.Unlock()
	down := nc.node.down.Load()
	for r := range nc.rpcs {
		if q := r.quiet.Load(); q != nil && (down || q.long(now)) {
			r.cancel(errSuspect)
		}
		since := time.Duration(r.waiting.Load())
		if since == 0 {
			continue
		}
		oldest = max(oldest, now-since)
		if suspect != nil && r.repeatable.Load() {
			r.cancel(suspect)
		}
	}
	return oldest
}

// failure turns the end of a request that was sent into what judge expects,
// and notes a connection that failed. nil stays nil.
func (r *rpc) failure(err error) error {
	if err == nil {
		r.heard()
		return nil
	}
	e, answered := errorFromGRPC(err)
	cause := err
	switch {
	case answered:
		r.heard()
		return e
	case r.caller.Err() != nil:
		cause = r.caller.Err()
	case errors.Is(context.Cause(r.ctx), errSuspect):
		cause = errSuspect
	case e.Code == CodeUnavailable:
		r.conn.node.failed(err)
	case e.Code != CodeDeadlineExceeded && e.Code != CodeCanceled && e.Code != CodeInternal:
		return e
	}
	return &lostError{sent: true, cause: cause}
}
