package host

import (
	"context"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// SlotAnswer is what a step of a move of slots came to.
type SlotAnswer struct {
	// Index is that of the step's entry, or, where the step had happened before,
	// one that is applied and holds it.
	Index keyspace.Index
	// Nonce names the freeze in force, 0 for none.
	Nonce keyspace.Index
	// Ceiling and Floor are those with which slots were left.
	Ceiling, Floor keyspace.Revision
	// Slots is the group's state then.
	Slots *format.SlotState
}

// ChangeSlots takes one step of a move of slots on the group's leader and waits
// until it is applied here. failed_precondition says why the step is not
// possible; after unknown_outcome the same step may be asked for again. Imports
// are ImportSlots'.
func (h *Host) ChangeSlots(ctx context.Context, id keyspace.GroupID, c format.SlotChange) (SlotAnswer, error) {
	return h.awaitSlots(ctx, id, func(done func(SlotAnswer, error)) { h.ChangeSlotsAsync(ctx, id, c, done) })
}

// ChangeSlotsAsync is ChangeSlots with a callback, on the loop or, with an error,
// here; it must not block.
func (h *Host) ChangeSlotsAsync(ctx context.Context, id keyspace.GroupID, c format.SlotChange, done func(SlotAnswer, error)) {
	h.Submit(ctx, h.slotRequest(ctx, id, &replica.SlotOp{Change: c}, done))
}

// ImportSlots takes records of slots that move to the group (SlotImport), or
// deletes keys of slots that it gave away (SlotPurged), on the leader, in as many
// entries as they need. What c says takes place with the last of them; c.Bytes is
// counted here. The keys ascend. After an error the same may be asked for again.
func (h *Host) ImportSlots(ctx context.Context, id keyspace.GroupID, c format.SlotChange, keys []format.ExportKey) error {
	_, err := h.awaitSlots(ctx, id, func(done func(SlotAnswer, error)) {
		h.ImportSlotsAsync(ctx, id, c, keys, func(err error) { done(SlotAnswer{}, err) })
	})
	return err
}

// ImportSlotsAsync is ImportSlots with a callback, on the loop or, with an error,
// on another goroutine; it must not block.
func (h *Host) ImportSlotsAsync(ctx context.Context, id keyspace.GroupID, c format.SlotChange, keys []format.ExportKey, done func(error)) {
	if c.Kind != format.SlotImport && c.Kind != format.SlotPurged {
		done(fault.New(fault.InvalidArgument, "the step brings no records", "step", c.Kind))
		return
	}
	c.Bytes = 0
	i := &slotImport{host: h, ctx: ctx, group: id, change: c, keys: keys, done: done}
	h.Submit(ctx, i.next())
}

// awaitSlots waits for what start asks for.
func (h *Host) awaitSlots(ctx context.Context, id keyspace.GroupID, start func(func(SlotAnswer, error))) (SlotAnswer, error) {
	type answer struct {
		a   SlotAnswer
		err error
	}
	out := make(chan answer, 1)
	start(func(a SlotAnswer, err error) { out <- answer{a, err} })
	select {
	case r := <-out:
		return r.a, r.err
	case <-ctx.Done():
		return SlotAnswer{}, fault.Wrap(fault.UnknownOutcome, ctx.Err(), "the step of the move did not finish in time", "group", id)
	case <-h.done:
		return SlotAnswer{}, fault.New(fault.UnknownOutcome, "this node stopped during a step of a move", "group", id)
	}
}

func (h *Host) slotRequest(ctx context.Context, id keyspace.GroupID, op *replica.SlotOp, done func(SlotAnswer, error)) *replica.Request {
	return &replica.Request{Group: id, Slots: op, Deadline: h.deadline(ctx), Done: func(r *replica.Request) {
		res := &r.Slots.Result
		switch {
		case r.Err != nil:
			done(SlotAnswer{}, r.Err)
		case res.Err != nil:
			done(SlotAnswer{}, res.Err)
		default:
			done(SlotAnswer{Index: res.Index, Nonce: res.Nonce, Ceiling: res.Ceiling, Floor: res.Floor, Slots: res.Slots}, nil)
		}
	}}
}

// slotImport is a page on its way into the log, one piece after the other: a
// later one must not overtake one that waits for its chunks.
type slotImport struct {
	host   *Host
	ctx    context.Context
	group  keyspace.GroupID
	change format.SlotChange
	keys   []format.ExportKey // still to come
	done   func(error)
}

// next is the request for the next piece.
func (i *slotImport) next() *replica.Request {
	op := &replica.SlotOp{Change: format.SlotChange{Kind: i.change.Kind, Move: i.change.Move, Floor: i.change.Floor}}
	var bytes uint64
	op.Keys, bytes = i.cut()
	last := len(i.keys) == 0
	if last {
		op.Change = i.change
	}
	op.Change.Bytes = bytes
	return i.host.slotRequest(i.ctx, i.group, op, func(_ SlotAnswer, err error) {
		if err != nil || last {
			i.done(err)
			return
		}
		i.host.opt.Go(func(context.Context) { i.host.Submit(i.ctx, i.next()) }) //nolint:contextcheck // the caller's goes on
	})
}

// cut takes as many versions as one entry holds, at least one.
func (i *slotImport) cut() (keys []replica.ImportKey, bytes uint64) {
	o := &i.host.opt
	size, count := 0, 0
	for len(i.keys) > 0 {
		k := &i.keys[0]
		n := 0
		for ; n < len(k.Versions); n++ {
			v := &k.Versions[n]
			more := len(k.Key) + len(v.Value) + 16
			if count > 0 && (size+more > o.MaxEntryBytes || count >= o.MaxEntryOps) {
				break
			}
			size, count = size+more, count+1
			bytes += uint64(more)
			for _, c := range v.Chunks {
				bytes += uint64(len(c))
			}
		}
		if n > 0 || len(k.Versions) == 0 {
			keys = append(keys, replica.ImportKey{ExportKey: format.ExportKey{Key: k.Key, Versions: k.Versions[:n]}})
		}
		if n < len(k.Versions) {
			i.keys[0].Versions = k.Versions[n:]
			break
		}
		i.keys = i.keys[1:]
	}
	return keys, bytes
}

// SlotStates returns what the replicas here know of their groups' slots; nil for
// a group that owns whatever is routed to it.
func (h *Host) SlotStates() map[keyspace.GroupID]*format.SlotState {
	dir := *h.dir.Load()
	out := make(map[keyspace.GroupID]*format.SlotState, len(dir))
	for id, g := range dir {
		if p := g.published.Load(); p != nil {
			out[id] = p.slots
		}
	}
	return out
}

// owns refuses to read a key of a slot that the group did not own when the
// permission was given.
func (p *ReadPoint) owns(ns keyspace.NamespaceID, key string) error {
	if p.Slots == nil || ns == keyspace.SystemNamespace {
		return nil
	}
	if slot := keyspace.SlotOf(ns, key); !p.Slots.Owns(slot) {
		return fault.New(fault.WrongGroup, "the group does not own the key's slot", "slot", slot, "group", p.Group)
	}
	return nil
}

// freezeWatch is the freeze that a leader sees, and since when.
type freezeWatch struct {
	nonce   keyspace.Index
	since   time.Duration
	thawing bool
}

// thawLate undoes a freeze that outlasts MaxFreeze, by an entry: whoever froze
// may be gone. A new leader counts from when it began to lead.
func (h *Host) thawLate(g *group, mono time.Duration) {
	s, w := g.core.State().Slots, &g.freeze
	if s == nil || s.Out == nil || s.Out.Nonce == 0 || s.Out.Left {
		w.nonce = 0
		return
	}
	if w.nonce != s.Out.Nonce {
		w.nonce, w.since = s.Out.Nonce, mono
	}
	if w.thawing || mono-w.since < h.opt.MaxFreeze {
		return
	}
	w.thawing = true
	id := s.Out.ID
	op := &replica.SlotOp{Change: format.SlotChange{Kind: format.SlotThaw, Move: id, Nonce: s.Out.Nonce}}
	g.core.EnqueueFirst(&replica.Request{Group: g.id, Slots: op, Done: func(r *replica.Request) {
		w.thawing = false
		if r.Err == nil && r.Slots.Result.Err == nil {
			h.opt.Logger.Warn("a move of slots took too long; their writes go on", "group", g.id, "move", uint64(id), "limit", h.opt.MaxFreeze)
		}
	}})
	g.dirty = true
}
