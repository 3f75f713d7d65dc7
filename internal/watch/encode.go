package watch

import (
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
	"kvstore/internal/wirebuf"
)

const (
	// messageBytes is the size at which a message is sent when what follows can
	// wait, tornBytes the one at which it is sent anyway: a revision with more than
	// that comes in fragments.
	messageBytes = 512 << 10
	tornBytes    = 4 << 20
)

// message is one api.WatchResponse in the making. Events were encoded for other
// watches too: messages are put together of encoded parts.
type message struct {
	created []byte
	batches []*batch
	notes   []byte
	bytes   int
	// open are the batches whose last revision goes on; torn are watches whose last
	// revision went on when a message ended.
	open     []*batch
	torn     map[*watch]keyspace.Revision
	tokenRev keyspace.Revision
	token    []byte
}

// batch is an api.WatchBatch in the making.
type batch struct {
	w      *watch
	events [][]byte // encoded fields, of the events
	bytes  int      // of events
	rev    keyspace.Revision
	open   bool // rev goes on
}

// batches are used again; keptEvents bounds what one keeps for that.
var batches = sync.Pool{New: func() any { return new(batch) }}

const keptEvents = 64

// release gives a batch of a finished message back.
func (b *batch) release() {
	b.w.batch = nil
	clear(b.events)
	if cap(b.events) > keptEvents {
		b.events = nil
	}
	*b = batch{events: b.events[:0]}
	batches.Put(b)
}

// batchBytes is about what a batch has beside its events.
const batchBytes = 64

// Field numbers of api.WatchResponse, api.WatchBatch.
const (
	fieldCreated, fieldBatches, fieldProgress, fieldEnded = 1, 2, 3, 4

	batchWatch, batchEvents, batchRevision, batchToken, batchFragment = 1, 2, 3, 4, 5
)

// encode makes a message of what is to be sent, nil when nothing of it is.
func (s *Stream) encode() *Message {
	if m := s.encodeOne(); m != nil {
		return m
	}
	m := &s.out
	n := 0
	for n < len(s.sending) {
		it := &s.sending[n]
		n++
		if it.note != nil {
			if s.addNote(it.note) {
				break
			}
			continue
		}
		s.addEvent(it)
		if it.last {
			m.closeRun()
		}
		if m.bytes >= tornBytes || it.last && m.bytes >= messageBytes {
			break
		}
	}
	clear(s.sending[:n])
	s.sending = s.sending[n:]
	if raw := m.finish(); raw != nil {
		return s.made.pooled(raw)
	}
	return nil
}

// encodeOne returns the message that is made already when all there is to send is
// one event, which streams with a watch of this id are sent alike; else nil.
func (s *Stream) encodeOne() *Message {
	if len(s.sending) != 1 || len(s.out.torn) > 0 {
		return nil
	}
	it := &s.sending[0]
	if it.note != nil || !it.last || it.w.tags != nil || it.w.closed.Load() {
		return nil
	}
	e, err := it.ev.encode(s.hub, it.w.variant, it.w.id)
	if err != nil || e.watch != it.w.id {
		return nil
	}
	it.w.sent = max(it.w.sent, it.ev.rev)
	s.hub.stats.events.Add(1)
	*it, s.sending = item{}, nil
	s.made.buffers = e.message
	return &s.made
}

func (s *Stream) addEvent(it *item) {
	w := it.w
	if w.closed.Load() {
		return
	}
	if w.tags != nil {
		ok, err := it.ev.carries(s.hub, w.tags)
		if err != nil {
			s.end(w, err)
			return
		}
		if !ok {
			return
		}
	}
	e, err := it.ev.encode(s.hub, w.variant, w.id)
	if err != nil {
		s.end(w, err)
		return
	}
	s.hub.stats.events.Add(1)
	out := s.out.batchOf(w)
	out.events = append(out.events, e.field)
	out.bytes += len(e.field)
	out.rev = it.ev.rev
	if !out.open {
		out.open = true
		s.out.open = append(s.out.open, out)
	}
	s.out.bytes += len(e.field)
}

func (m *message) batchOf(w *watch) *batch {
	if w.batch == nil {
		w.batch = batches.Get().(*batch)
		w.batch.w = w
		m.batches = append(m.batches, w.batch)
		m.bytes += batchBytes
	}
	return w.batch
}

// closeRun ends the events of one revision. A watch that was closed meanwhile, as by an
// event that cannot be read, may lack some: what it was given stays a fragment.
func (m *message) closeRun() {
	for w, rev := range m.torn {
		if !w.closed.Load() {
			m.batchOf(w).rev = rev
		}
		delete(m.torn, w)
	}
	for i, b := range m.open {
		b.open, m.open[i] = b.w.closed.Load(), nil
	}
	m.open = m.open[:0]
}

// addNote reports whether the message must end with it.
func (s *Stream) addNote(n *note) (ends bool) {
	m := &s.out
	switch {
	case n.created != nil:
		if n.created.closed.Load() {
			return false
		}
		m.created = appendMessage(m.created, fieldCreated, &api.WatchCreated{
			WatchId: n.created.id, Revision: uint64(n.rev), Token: m.tokenOf(n.rev)})
		n.created.sent = max(n.created.sent, n.rev)
		m.bytes += 64
		return false
	case n.ended != nil:
		w := n.ended
		m.settle()
		out := &api.WatchEnded{WatchId: w.id, Status: router.ErrorStatus(n.err), Revision: uint64(w.sent)}
		if w.sent > 0 {
			out.Token = m.tokenOf(w.sent)
		}
		m.notes = appendMessage(m.notes, fieldEnded, out)
		return true
	}
	m.settle()
	p := &api.WatchProgress{Revision: uint64(n.rev), Token: m.tokenOf(n.rev)}
	for _, w := range n.marked {
		if !w.closed.Load() {
			p.WatchIds = append(p.WatchIds, w.id)
			w.sent = max(w.sent, n.rev)
		}
	}
	if len(p.WatchIds) > 0 {
		m.notes = appendMessage(m.notes, fieldProgress, p)
	}
	return true
}

func appendMessage(b []byte, field protowire.Number, p proto.Message) []byte {
	body, err := proto.Marshal(p)
	if err != nil {
		body = nil // never: numbers and valid text
	}
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, body)
}

// settle notes up to where the batches so far bring their watches.
func (m *message) settle() {
	for _, b := range m.batches {
		if !b.open {
			b.w.sent = max(b.w.sent, b.rev)
		}
	}
}

// tokenOf returns the token of a revision.
func (m *message) tokenOf(rev keyspace.Revision) []byte {
	if m.tokenRev != rev || m.token == nil {
		m.tokenRev = rev
		m.token = tokenOf(rev)
	}
	return m.token
}

// finish returns the message in a buffer of the pool, nil when it is empty, and
// begins the next.
func (m *message) finish() *[]byte {
	m.settle()
	if len(m.batches)+len(m.created)+len(m.notes) == 0 {
		return nil
	}
	out := wirebuf.Pool.Get(m.bytes + len(m.created) + len(m.notes))
	raw := append((*out)[:0], m.created...)
	for i, b := range m.batches {
		raw = m.appendBatch(raw, b)
		if b.open && !b.w.closed.Load() {
			if m.torn == nil {
				m.torn = make(map[*watch]keyspace.Revision)
			}
			m.torn[b.w] = b.rev
		}
		b.release()
		m.batches[i] = nil
	}
	*out = append(raw, m.notes...)
	clear(m.open)
	m.created, m.batches, m.open, m.notes, m.bytes = m.created[:0], m.batches[:0], m.open[:0], m.notes[:0], 0
	return out
}

func (m *message) appendBatch(raw []byte, b *batch) []byte {
	var head [16]byte
	var tail [96]byte
	h, t := appendHead(head[:0], b.w.id), tail[:0]
	if b.open {
		t = protowire.AppendTag(t, batchFragment, protowire.VarintType)
		t = protowire.AppendVarint(t, 1)
	} else {
		t = appendPosition(t, b.rev, m.tokenOf(b.rev))
	}
	raw = protowire.AppendTag(raw, fieldBatches, protowire.BytesType)
	raw = protowire.AppendVarint(raw, uint64(len(h)+b.bytes+len(t)))
	raw = append(raw, h...)
	for _, ev := range b.events {
		raw = append(raw, ev...)
	}
	return append(raw, t...)
}

// TokenAt is the token of an event of a batch that ends its revision.
func TokenAt(b *api.WatchBatch, rev uint64) []byte {
	if b.GetRevision() == rev {
		return b.GetToken()
	}
	return tokenOf(keyspace.Revision(rev))
}

func tokenOf(rev keyspace.Revision) []byte {
	return format.AppendWatchToken(nil, format.WatchToken{{First: 0, Last: keyspace.SlotCount - 1, Revision: rev}})
}
