package watch

import (
	"context"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// ServeEvents answers Peer.GroupEvents from the replica here: one page of the
// past, or what is written from a revision on until ctx ends.
func (h *Hub) ServeEvents(ctx context.Context, q *api.GroupEventsRequest, send func(*api.GroupEventsResponse) error) error {
	r := host.PastRequest{Group: keyspace.GroupID(q.Group), After: keyspace.Revision(q.After), Until: keyspace.Revision(q.Until),
		MaxBytes: int(min(q.MaxBytes, readBytes)), Own: q.Own}
	if q.Slots != "" {
		slots, err := format.ParseSlotSet(q.Slots)
		if err != nil {
			return err
		}
		r.Slots = &slots
	}
	for _, s := range q.Spans {
		r.Spans = append(r.Spans, host.Span{Lower: s.Lower, Upper: s.Upper})
	}
	if r.Until == 0 {
		return h.serveFollowing(ctx, r.Group, r.After, send)
	}
	page, err := h.o.Host.Past(ctx, r)
	if err != nil {
		return err
	}
	h.countPast(&page)
	return sendWrites(page.Writes, &api.GroupEventsResponse{Upto: uint64(page.Upto), Slots: toMessage(page.Slots, page.Upto)}, send)
}

// serveFollowing sends what is written, and how far that is complete.
func (h *Hub) serveFollowing(ctx context.Context, g keyspace.GroupID, after keyspace.Revision, send func(*api.GroupEventsResponse) error) error {
	if !h.o.Host.Hosts(g) {
		return fault.New(fault.WrongLeader, "this node has no replica of the group", "group", g)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)() //nolint:contextcheck // the hub ends what it serves
	wake := make(chan struct{}, 1)
	t := &tap{hub: h, group: g, pos: after, wake: func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}}
	defer t.close()
	for sent := keyspace.Revision(0); ; {
		if err := t.pull(ctx); err != nil {
			return err
		}
		if t.remote != nil { // the replica is gone
			return fault.New(fault.WrongLeader, "this node has no replica of the group any more", "group", g)
		}
		// A group of which nothing is settled yet tells nothing: the end of what is
		// complete is what makes a message one.
		if t.pos > 0 && (t.pos > sent || t.left != nil || t.news) {
			sent = t.pos
			writes := make([]format.Write, 0, len(t.held))
			t.drain(t.pos, func(ev *event) {
				writes = append(writes, format.Write{Key: ev.key, Revision: ev.rev, Value: ev.value})
			})
			left := t.left != nil
			if err := sendWrites(writes, t.lastMessage(), send); err != nil {
				return err
			}
			if left {
				continue // there is more behind it
			}
		}
		h.tasks.Wait(ctx, 0, wake)
		switch {
		case h.ctx.Err() != nil:
			return errStopping()
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// lastMessage says where the tap is, and what is new of its slots.
func (t *tap) lastMessage() *api.GroupEventsResponse {
	m := &api.GroupEventsResponse{Upto: uint64(t.pos), Index: uint64(t.index)}
	if t.news {
		t.news, m.Slots = false, toMessage(t.said, t.saidAt)
	}
	if l := t.left; l != nil {
		t.left, m.Left = nil, &api.SlotsLeft{Slots: l.Slots.String(), To: uint32(l.To), Ceiling: uint64(l.Ceiling)}
	}
	return m
}

// sendWrites sends them in messages of a bounded size; only the last says how far
// they are complete.
func sendWrites(writes []format.Write, last *api.GroupEventsResponse, send func(*api.GroupEventsResponse) error) error {
	m, bytes := &api.GroupEventsResponse{}, 0
	for i := range writes {
		w := &writes[i]
		m.Writes = append(m.Writes, &api.GroupWrite{Key: w.Key, Revision: uint64(w.Revision), Record: w.Value})
		if bytes += eventBytes + len(w.Key) + len(w.Value); bytes >= readBytes {
			if err := send(m); err != nil {
				return err
			}
			m, bytes = &api.GroupEventsResponse{}, 0
		}
	}
	last.Writes = m.Writes
	return send(last)
}

// ServeVersion answers Peer.GroupVersion from the replica here.
func (h *Hub) ServeVersion(q *api.GroupVersionRequest) (*api.GroupVersionResponse, error) {
	rec, err := h.o.Host.VersionAt(keyspace.GroupID(q.Group), q.Key, keyspace.Revision(q.Revision), q.KeysOnly)
	if err != nil || rec == nil {
		return &api.GroupVersionResponse{}, err
	}
	whole := *rec
	if !q.KeysOnly {
		whole.Flags &^= format.FlagChunked
		whole.Chunks = format.ChunkRef{}
	}
	return &api.GroupVersionResponse{Found: true, Record: format.AppendRecord(nil, &whole), Revision: uint64(rec.Revision)}, nil
}
