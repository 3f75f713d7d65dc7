package watch

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// remote follows a group on a node that has a replica of it. Its goroutine reads
// the stream into memory, of a bounded size, and begins again elsewhere when the
// stream breaks, at the revision that it has.
type remote struct {
	hub    *Hub
	group  keyspace.GroupID
	wake   func()
	cancel context.CancelFunc
	room   chan struct{} // room for one signal
	// home: nobody else could be followed, and there is a replica here now.
	home atomic.Bool

	mu    sync.Mutex
	pages []*remotePage // complete ones
	part  *remotePage   // of the stream there is, nil between pages
	bytes int           // of pages
	// pos is what the pages, and those taken before, reach.
	pos keyspace.Revision
}

// remotePage is what one or more messages brought: all up to a revision.
type remotePage struct {
	writes []format.Write
	bytes  int
	upto   keyspace.Revision
	index  keyspace.Index
	// slots is what the group's log says of its slots, at a revision, where told.
	slots *format.SlotState
	at    keyspace.Revision
	told  bool
	left  *host.SlotsLeft
}

// openRemote follows a group behind a revision, or from now on at 0.
func (h *Hub) openRemote(g keyspace.GroupID, after keyspace.Revision, wake func()) *remote {
	r := &remote{hub: h, group: g, wake: wake, room: make(chan struct{}, 1), pos: after}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(h.ctx)
	if !h.spawn(func(context.Context) { r.run(ctx) }) {
		r.cancel()
	}
	return r
}

func (r *remote) close() { r.cancel() }

func (r *remote) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		nodes := r.hub.o.Router.Holders(r.group)
		if len(nodes) == 0 {
			r.hub.refresh() // a group that is new
		} else {
			node := nodes[n%len(nodes)]
			if err := r.follow(ctx, node); err != nil && ctx.Err() == nil {
				r.hub.logger.Debug("following a group elsewhere failed", "group", r.group, "node", node, "error", err)
			}
		}
		if r.hub.pause(ctx, retryAfter); r.hub.o.Host.Hosts(r.group) {
			r.home.Store(true)
			r.wake()
			return
		}
	}
}

func (r *remote) follow(ctx context.Context, node keyspace.NodeID) error {
	client, err := r.hub.o.Peers.Client(node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	after := r.pos
	r.part = nil // it comes again
	r.mu.Unlock()
	stream, err := client.GroupEvents(ctx, &api.GroupEventsRequest{Group: uint32(r.group), After: uint64(after)})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return router.PeerError(err, node)
		}
		if err := r.take(ctx, m); err != nil {
			return err
		}
	}
}

// take keeps a message once there is room.
func (r *remote) take(ctx context.Context, m *api.GroupEventsResponse) error {
	for {
		r.mu.Lock()
		if r.bytes < heldBytes {
			err := r.add(m)
			r.mu.Unlock()
			r.wake()
			return err
		}
		r.mu.Unlock()
		if r.hub.tasks.Wait(ctx, 0, r.room); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// add makes a page of messages; the last of them says how far it reaches. mu is
// held.
func (r *remote) add(m *api.GroupEventsResponse) error {
	if r.part == nil {
		r.part = &remotePage{}
	}
	p := r.part
	for _, w := range writesOf(m) {
		p.writes = append(p.writes, w)
		p.bytes += eventBytes + len(w.Key) + len(w.Value)
	}
	if m.Upto == 0 {
		return nil
	}
	p.upto, p.index, p.told, p.at = keyspace.Revision(m.Upto), keyspace.Index(m.Index), m.Slots != nil, keyspace.Revision(m.Slots.GetAt())
	var err, err2 error
	p.slots, err = stateOf(m.Slots)
	p.left, err2 = leftOf(m.Left)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	r.pages, r.part, r.bytes = append(r.pages, p), nil, r.bytes+p.bytes
	r.pos = max(r.pos, p.upto)
	return nil
}

// next takes the first page, nil when there is none.
func (r *remote) next() *remotePage {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pages) == 0 {
		return nil
	}
	p := r.pages[0]
	r.pages[0], r.pages, r.bytes = nil, r.pages[1:], r.bytes-p.bytes
	select {
	case r.room <- struct{}{}:
	default:
	}
	return p
}

func writesOf(m *api.GroupEventsResponse) []format.Write {
	out := make([]format.Write, len(m.Writes))
	for i, w := range m.Writes {
		out[i] = format.Write{Key: w.Key, Revision: keyspace.Revision(w.Revision), Value: w.Record}
	}
	return out
}

// pullRemote takes what came from another node. A replica that comes to live here
// is not looked for while the stream does as well.
func (t *tap) pullRemote(ctx context.Context) error {
	r := t.remote
	for t.bytes < heldBytes && t.left == nil {
		home := r.home.Load() // before the pages: there are no more behind it
		p := r.next()
		if p == nil && home {
			t.close()
			return t.pull(ctx)
		}
		if p == nil {
			return nil
		}
		if p.told {
			if err := t.learn(p.slots, p.at); err != nil {
				return err
			}
		}
		if t.pos == 0 {
			t.opened = p.upto
		}
		t.hold(p.writes)
		t.pos, t.index, t.left = max(t.pos, p.upto), p.index, p.left
	}
	return nil
}

// pastOf reads the past of a group here, else where there is a replica.
func (h *Hub) pastOf(ctx context.Context, r host.PastRequest) (host.PastPage, error) {
	page, err := h.o.Host.Past(ctx, r)
	if err == nil {
		h.countPast(&page)
	}
	if fault.CodeOf(err) != fault.WrongLeader {
		return page, err
	}
	for _, node := range h.o.Router.Holders(r.Group) {
		if page, err = h.pastAt(ctx, node, r); err == nil || fault.CodeOf(err) == fault.OutOfRange {
			return page, err
		}
	}
	return page, err
}

func (h *Hub) countPast(page *host.PastPage) {
	if page.Scanned {
		h.stats.scanned.Add(1)
	}
}

func (h *Hub) pastAt(ctx context.Context, node keyspace.NodeID, r host.PastRequest) (page host.PastPage, err error) {
	client, err := h.o.Peers.Client(node)
	if err != nil {
		return page, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := &api.GroupEventsRequest{Group: uint32(r.Group), After: uint64(r.After), Until: uint64(r.Until), MaxBytes: uint64(r.MaxBytes), Own: r.Own}
	if r.Slots != nil {
		q.Slots = r.Slots.String()
	}
	for _, s := range r.Spans {
		q.Spans = append(q.Spans, &api.KeySpan{Lower: s.Lower, Upper: s.Upper})
	}
	stream, err := client.GroupEvents(ctx, q)
	if err != nil {
		return page, router.PeerError(err, node)
	}
	page.Upto = r.After
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return page, nil
		case err != nil:
			return host.PastPage{}, router.PeerError(err, node)
		}
		page.Writes = append(page.Writes, writesOf(m)...)
		page.Upto = max(page.Upto, keyspace.Revision(m.Upto))
		if page.Slots, err = stateOf(m.Slots); err != nil { // that of the last message
			return host.PastPage{}, err
		}
	}
}

// version implements versions.
func (h *Hub) version(g keyspace.GroupID, diskKey []byte, rev keyspace.Revision, keysOnly bool) (*format.Record, error) {
	rec, err := h.o.Host.VersionAt(g, diskKey, rev, keysOnly)
	if code := fault.CodeOf(err); code != fault.WrongLeader && code != fault.Unavailable {
		return rec, err
	}
	for _, node := range h.o.Router.Holders(g) {
		if rec, err = h.versionAt(node, g, diskKey, rev, keysOnly); err == nil || fault.CodeOf(err) == fault.OutOfRange {
			return rec, err
		}
	}
	return nil, err
}

func (h *Hub) versionAt(node keyspace.NodeID, g keyspace.GroupID, diskKey []byte, rev keyspace.Revision, keysOnly bool) (*format.Record, error) {
	client, err := h.o.Peers.Client(node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(h.ctx, askFor)
	defer cancel()
	m, err := client.GroupVersion(ctx, &api.GroupVersionRequest{Group: uint32(g), Key: diskKey, Revision: uint64(rev), KeysOnly: keysOnly})
	if err != nil || !m.Found {
		return nil, router.PeerError(err, node)
	}
	rec, err := format.DecodeRecord(m.Record, keyspace.Revision(m.Revision))
	return &rec, err
}
