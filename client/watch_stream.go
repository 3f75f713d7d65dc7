package client

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

// watchStream carries watches of one node. A shared one has a goroutine that
// receives and hands what came to each subscription's own memory, so that none
// waits for another. Of one that is apart the only subscription receives itself,
// which saves a goroutine, and its being woken for each message; what its loop has not
// taken waits within the stream's window, and then at the node.
type watchStream struct {
	node   *node
	apart  bool
	rpc    *rpc
	stream grpc.BidiStreamingClient[api.WatchRequest, api.WatchResponse]
	// Of who receives: the stream is over; stop lets go of the context that ends one
	// that is apart.
	over    bool
	stop    func() bool
	message watchMessage // the last that came

	sending sync.Mutex // held by Send

	mu   sync.Mutex
	next uint64
	subs map[uint64]*subscription
	ids  map[*subscription]uint64
	err  error // why the stream is over, nil while it is not

	silence silence
}

// watchStream returns the node's shared stream, or a new one of the caller's.
func (n *node) watchStream(apart bool) (*watchStream, error) {
	if apart {
		return n.openWatches(true)
	}
	n.watching.Lock()
	defer n.watching.Unlock()
	if ws := n.watches; ws != nil && ws.open() {
		return ws, nil
	}
	ws, err := n.openWatches(false)
	if err == nil {
		n.watches = ws
	}
	return ws, err
}

func (n *node) openWatches(apart bool) (*watchStream, error) {
	r := n.begin(n.ctx, true)
	ws := &watchStream{node: n, apart: apart, rpc: r, subs: make(map[uint64]*subscription), ids: make(map[*subscription]uint64)}
	stream, err := r.stub().Watch(r.ctx, append(n.client.callOptions(), grpc.ForceCodecV2(watchesCodec))...)
	if err = r.failure(err); err != nil {
		r.end()
		return nil, err
	}
	ws.stream = stream
	r.waiting.Store(0) // a quiet stream is not a slow answer; see silence
	r.quiet.Store(&ws.silence)
	n.outstanding.Add(1)
	if !apart && !n.client.spawn(func(context.Context) { ws.receiveAll() }) {
		ws.close()
		return nil, errClientClosed()
	}
	return ws, nil
}

func (ws *watchStream) open() bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.err == nil
}

// add opens a subscription's watch on the stream.
func (ws *watchStream) add(s *subscription) error {
	ws.mu.Lock()
	if err := ws.err; err != nil {
		ws.mu.Unlock()
		return err
	}
	ws.next++
	id := ws.next
	ws.subs[id], ws.ids[s] = s, id
	ws.mu.Unlock()
	q := proto.CloneOf(s.request)
	q.WatchId = id
	ws.send(&api.WatchRequest{Request: &api.WatchRequest_Create{Create: q}})
	return nil
}

// send hands a request over. Its failure ends the stream, which receive tells.
func (ws *watchStream) send(q *api.WatchRequest) {
	ws.sending.Lock()
	defer ws.sending.Unlock()
	if ws.stream.Send(q) != nil {
		ws.rpc.cancel(nil)
	}
}

// remove closes a subscription's watch; the last one of a stream closes that.
func (ws *watchStream) remove(s *subscription) {
	if ws.apart {
		ws.close()
		return
	}
	ws.mu.Lock()
	id, there := ws.ids[s]
	delete(ws.subs, id)
	delete(ws.ids, s)
	last, over := len(ws.subs) == 0, ws.err != nil
	if last && !over {
		ws.err = &lostError{cause: errNotConnected}
	}
	ws.mu.Unlock()
	switch {
	case over || !there:
	case last:
		ws.rpc.cancel(nil)
	default:
		ws.cancelWatch(id)
	}
}

func (ws *watchStream) cancelWatch(id uint64) {
	ws.send(&api.WatchRequest{Request: &api.WatchRequest_Cancel{Cancel: &api.WatchCancel{WatchId: id}}})
}

// receiveAll reads until the stream ends, then tells all subscriptions.
func (ws *watchStream) receiveAll() {
	var err error
	for err == nil {
		err = ws.receive()
	}
	ws.end(err)
}

// receiveUntil, for a stream that is apart, is receive within the time of ctx: the stream ends with it.
func (ws *watchStream) receiveUntil(ctx context.Context) {
	if ws.stop == nil {
		ws.stop = context.AfterFunc(ctx, func() { ws.rpc.cancel(nil) })
	}
	if err := ws.receive(); err != nil {
		ws.end(err)
	}
}

// receive hands one message on.
func (ws *watchStream) receive() error {
	ws.silence.turn.Add(1)
	err := ws.stream.RecvMsg(&ws.message)
	ws.silence.turn.Add(1)
	if err != nil {
		return err
	}
	ws.rpc.conn.hear()
	return ws.deliver(ws.message.raw)
}

// end tells the subscriptions why nothing more comes.
func (ws *watchStream) end(err error) {
	err = ws.rpc.failure(err)
	ws.close()
	ws.mu.Lock()
	ws.err = err
	subs := ws.subs
	ws.subs = make(map[uint64]*subscription)
	ws.mu.Unlock()
	for _, s := range subs {
		s.end(err)
	}
}

// close is the end of who receives.
func (ws *watchStream) close() {
	if ws.over {
		return
	}
	ws.over = true
	if ws.stop != nil {
		ws.stop()
	}
	ws.rpc.end()
	ws.node.outstanding.Add(-1)
}

// silence notices that a stream says nothing for too long. Time is that of who looks,
// so that a message costs no clock.
type silence struct {
	// turn is odd while the receiver waits for a message.
	turn atomic.Uint64
	// The turn seen last, and since when; guarded by the connection's rpcMu.
	seen  uint64
	since time.Duration
}

// long reports whether one wait lasts for longer than watchSilence.
func (s *silence) long(now time.Duration) bool {
	if turn := s.turn.Load(); turn%2 == 0 || turn != s.seen {
		s.seen, s.since = turn, now
	}
	return now-s.since > watchSilence
}

// deliver hands a message to its subscriptions, in the order of its fields: servers
// write them in the one in which they are meant to be read.
func (ws *watchStream) deliver(raw []byte) error {
	for rest := raw; len(rest) > 0; {
		f, next, ok := nextField(rest)
		if !ok {
			return malformed("WatchResponse")
		}
		if err := ws.deliverField(f, len(raw)); err != nil {
			return err
		}
		rest = next
	}
	return nil
}

func (ws *watchStream) deliverField(f field, size int) error {
	switch f.number {
	case fieldWatchCreated:
		id, u, err := decodePoint(f.bytes)
		if err == nil {
			ws.give(id, u, false)
		}
		return err
	case fieldWatchBatches:
		own := f.bytes
		if 2*len(own) < size {
			own = bytes.Clone(own) // it must not keep those of others in memory
		}
		id, u, fragment, err := decodeBatch(own)
		if err == nil {
			ws.give(id, u, fragment)
		}
		return err
	case fieldWatchProgress:
		return decodeProgress(f.bytes, func(id uint64, u *update) { ws.give(id, u, false) })
	case fieldWatchEnded:
		id, why, err := decodeEnded(f.bytes)
		if err != nil {
			return err
		}
		if s := ws.drop(id); s != nil {
			s.end(why)
		}
	}
	return nil
}

func (ws *watchStream) give(id uint64, u *update, more bool) {
	ws.mu.Lock()
	s := ws.subs[id]
	ws.mu.Unlock()
	if s != nil && !s.offer(u, more) {
		ws.drop(id)
		ws.cancelWatch(id)
	}
}

func (ws *watchStream) drop(id uint64) *subscription {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	s := ws.subs[id]
	if s != nil {
		delete(ws.subs, id)
		delete(ws.ids, s)
	}
	return s
}
