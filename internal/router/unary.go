package router

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

type contextKey int

const (
	identityKey contextKey = iota
	forwardedKey
)

// WithIdentity returns a context for unary calls of an authenticated subject.
func WithIdentity(ctx context.Context, identity string) context.Context {
	return context.WithValue(ctx, identityKey, identity)
}

// Identity returns the subject of WithIdentity, "" for anonymous.
func Identity(ctx context.Context) string {
	s, _ := ctx.Value(identityKey).(string)
	return s
}

// WithForwarded marks the context of a call that came from a peer: it is
// served here or refused.
func WithForwarded(ctx context.Context) context.Context {
	return context.WithValue(ctx, forwardedKey, true)
}

// Forwarded reports whether ctx is of a call that came from a peer.
func Forwarded(ctx context.Context) bool {
	b, _ := ctx.Value(forwardedKey).(bool)
	return b
}

// CallPeer runs a unary request on another node (Peer.Call) and fills resp.
func (r *Router) CallPeer(ctx context.Context, node keyspace.NodeID, method string, req, resp proto.Message) error {
	client, err := r.o.Peers.Client(node)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "peer cannot be reached", "node", node)
	}
	b, err := proto.Marshal(req)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "request cannot be encoded", "method", method)
	}
	answer, err := client.Call(ctx, &api.CallRequest{Method: method, Request: b, Identity: Identity(ctx)})
	if err != nil {
		return rpcError(err, node)
	}
	if answer.Error != nil {
		return detailError(answer.Error, answer.Message)
	}
	if err := proto.Unmarshal(answer.Response, resp); err != nil {
		return fault.Wrap(fault.Internal, err, "answer of a peer cannot be decoded", "method", method, "node", node)
	}
	return nil
}

// attempt is one way to run an idempotent request of a group: here, or with a
// peer.
type attempt struct {
	local  func(ctx context.Context) error
	remote func(ctx context.Context, node keyspace.NodeID, peer api.PeerClient) error
	// anyReplica lets replicas that do not lead serve it.
	anyReplica bool
	// patient lets one attempt take the whole deadline.
	patient bool
}

// onGroup runs an idempotent request where g can serve it, with retries until
// the context's deadline (DefaultTimeout without one).
func (r *Router) onGroup(ctx context.Context, g keyspace.GroupID, a attempt) error {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	var asked, hint keyspace.NodeID
	for n := 1; ; n++ {
		err := r.try(ctx, g, a, n, &asked, hint)
		if err == nil || !retryableRead(err) || !worthAnother(err, n) || Forwarded(ctx) {
			return err
		}
		if r.cutOff(g, CutOffAfter) {
			return errCutOff(err, g, CutOffAfter, false)
		}
		hint = ""
		if leader := leaderOf(err); leader != "" {
			r.hints.set(g, leader)
			if leader != asked && n%2 == 1 {
				hint = leader
				continue
			}
		} else if asked != "" {
			r.hints.drop(g, asked)
		}
		if !r.pause(ctx, r.backoff(n)) {
			return fault.Wrap(fault.Unavailable, err, "no replica could serve the request before its deadline",
				"group", g, "attempts", n).WithRetry(DefaultBackoffMax)
		}
	}
}

// try makes attempt n; asked is set to the peer it went to.
func (r *Router) try(ctx context.Context, g keyspace.GroupID, a attempt, n int, asked *keyspace.NodeID, hint keyspace.NodeID) error {
	leader, local, known := r.o.Host.Leader(g)
	hosted := r.o.Host.Hosts(g)
	*asked = ""
	switch {
	case local || a.anyReplica && hosted && (n%2 == 1 || Forwarded(ctx)):
		return a.local(ctx)
	case Forwarded(ctx):
		return r.elsewhere(g, leader)
	case hint != "":
		leader, known = hint, true
	case !known:
		leader, known = r.hints.get(g)
	}
	node := leader
	if !known || node == r.o.Node || n%4 == 3 {
		var ok bool
		if node, ok = r.otherMember(g, n); !ok {
			return errNoLeader(g)
		}
	}
	client, err := r.o.Peers.Client(node)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "peer cannot be reached", "node", node)
	}
	*asked = node
	if a.patient {
		return rpcError(a.remote(ctx, node, client), node)
	}
	once, cancel := context.WithTimeout(ctx, r.o.ReadAttempt)
	defer cancel()
	return rpcError(a.remote(once, node, client), node)
}

// bounded gives ctx the default deadline when it has none, and caps it.
func (r *Router) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.timeout(ctx, 0))
}

// pause waits, unless ctx ends before the wait would.
func (r *Router) pause(ctx context.Context, wait time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-r.ctx.Done():
		return false
	}
}
