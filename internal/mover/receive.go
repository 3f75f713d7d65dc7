package mover

import (
	"context"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

const (
	// pageBytes bounds a page unless one key is larger; it is also about what one
	// import puts in front of the group's other writes.
	pageBytes = 256 << 10
	// viewAge is how long pages are read at one revision: a view must not fall
	// below the sender's history.
	viewAge = 30 * time.Second
	// frozenFor is how long slots may be frozen before the move lets them be
	// undone; the sender does it after a second.
	frozenFor = 700 * time.Millisecond
)

// receipt is one run of steps of a move to a group that is led here.
type receipt struct {
	m     *Mover
	group keyspace.GroupID
	move  Move
	own   *format.SlotState

	asked  bool
	sender *format.SlotState
	// at is the reading of the sender's clock whose view is copied, and taken when
	// it was read, 0 for none.
	at    router.SlotStatus
	taken time.Duration
	// froze is when the freeze was seen first, 0 while there is none.
	froze time.Duration

	tailBytes int
	tailTime  time.Duration
}

// run takes steps until there is nothing to do or to wait for something.
func (r *receipt) run(ctx context.Context) error {
	for ctx.Err() == nil {
		v, err := r.look()
		if err != nil {
			return err
		}
		a := Next(v)
		r.report(v, a)
		if a.Kind == Wait || a.Kind == Finished {
			return nil
		}
		if err := r.act(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// look is what is known now. The sender is asked anew by the first step of a run
// and whenever a step could have changed what it said.
func (r *receipt) look() (*View, error) {
	view := r.m.o.Directory.Map()
	r.move = listed(r.move, view)
	if r.froze != 0 && r.m.o.Clock.Mono()-r.froze > frozenFor {
		return nil, fault.New(fault.Unavailable, "slots were frozen for too long", "limit", frozenFor, "move", r.move.ID)
	}
	return &View{
		Move: r.move, Own: r.own, Asked: r.asked, Sender: r.sender, Complete: view.Complete(r.group),
		Paused: view.Balance.Paused, TailBytes: r.tailBytes, TailTime: r.tailTime, Bugs: r.m.o.Bugs,
	}, nil
}

// act takes one step.
func (r *receipt) act(ctx context.Context, a Action) error {
	if a.Kind == Copy || a.Kind == Tail {
		ctx, cancel := r.bounded(ctx, exportTimeout)
		defer cancel()
		if a.Kind == Copy {
			return r.copy(ctx)
		}
		return r.tail(ctx, a.Nonce)
	}
	ctx, cancel := r.bounded(ctx, stepTimeout)
	defer cancel()
	own := format.SlotChange{Move: r.move.ID, Peer: r.move.From, Slots: r.move.Slots}
	theirs := format.SlotChange{Move: r.move.ID, Peer: r.move.To, Slots: r.move.Slots, Nonce: a.Nonce}
	switch a.Kind { //nolint:exhaustive // the others are taken before
	case Ask:
		return r.ask(ctx)
	case Found:
		return r.m.found(ctx, r.group, &r.own)
	case Begin:
		own.Kind = format.SlotBegin
	case Ready:
		own.Kind, own.Nonce = format.SlotReady, a.Nonce
	case Accept:
		own.Kind, own.Nonce, own.Ceiling, own.Floor, own.LowWater = format.SlotAccept, a.Nonce, a.Ceiling, a.Floor, a.LowWater
	case AbortOwn:
		own.Kind = format.SlotAbort
	case Freeze:
		theirs.Kind = format.SlotFreeze
		return r.askStep(ctx, theirs)
	case Leave:
		theirs.Kind = format.SlotLeave
		return r.askStep(ctx, theirs)
	case AbortSender:
		theirs.Kind = format.SlotAbort
		return r.askStep(ctx, theirs)
	case Record:
		return r.m.record(ctx, r.move, true)
	case Unlist:
		return r.m.record(ctx, r.move, false)
	}
	return r.step(ctx, own)
}

// bounded gives a step its time; while slots are frozen, no more than is left.
func (r *receipt) bounded(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	if r.froze != 0 {
		most = min(most, frozenFor-(r.m.o.Clock.Mono()-r.froze))
	}
	return context.WithTimeout(ctx, most)
}

// step has the own group take a step.
func (r *receipt) step(ctx context.Context, c format.SlotChange) error {
	a, err := r.m.o.Host.ChangeSlots(ctx, r.group, c)
	if err != nil {
		return err
	}
	r.own = a.Slots
	if c.Kind == format.SlotBegin || c.Kind == format.SlotAccept || c.Kind == format.SlotAbort {
		r.froze = 0
		r.m.o.Logger.Info(kindNames[c.Kind], "move", c.Move, "from", c.Peer, "to", r.group, "slots", c.Slots.Count())
	}
	return nil
}

// kindNames say what has happened.
var kindNames = map[format.SlotOpKind]string{
	format.SlotBegin: "a move of slots begins", format.SlotAccept: "slots have moved", format.SlotAbort: "a move of slots is undone",
}

// askStep has the sender take a step. A refusal is looked into before it counts:
// the sender may have gone further than was known here.
func (r *receipt) askStep(ctx context.Context, c format.SlotChange) error {
	a, err := r.m.o.Sender.SlotStep(ctx, r.move.From, c)
	if err == nil {
		r.sender, r.asked = a.Slots, true
		r.sawFreeze()
		return nil
	}
	if fault.CodeOf(err) != fault.FailedPrecondition {
		return err
	}
	was := r.sender
	if asked := r.ask(ctx); asked != nil {
		return asked
	}
	if sameOut(was, r.sender, r.move.ID) {
		return err
	}
	return nil
}

// sameOut reports whether the sender said the same of a move twice.
func sameOut(a, b *format.SlotState, id format.MoveID) bool {
	if a == nil || b == nil {
		return a == b
	}
	if (a.Ended >= id) != (b.Ended >= id) || (a.Out == nil) != (b.Out == nil) {
		return false
	}
	return a.Out == nil || a.Out.ID == b.Out.ID && a.Out.Nonce == b.Out.Nonce && a.Out.Left == b.Out.Left
}

// ask reads the sender's state, and its clock.
func (r *receipt) ask(ctx context.Context) error {
	s, err := r.m.o.Sender.SlotStatus(ctx, r.move.From)
	if err != nil {
		return err
	}
	r.sender, r.asked = s.Slots, true
	r.at, r.taken = s, r.m.o.Clock.Mono()
	r.sawFreeze()
	return nil
}

// sawFreeze starts the time that slots may be frozen.
func (r *receipt) sawFreeze() {
	o := r.sender
	if o == nil || o.Out == nil || o.Out.ID != r.move.ID || o.Out.Nonce == 0 || o.Out.Left {
		r.froze = 0
		return
	}
	if r.froze == 0 {
		r.froze = r.m.o.Clock.Mono()
	}
}

// copy imports the next page of the view. All pages need not be of one view:
// what changed since the first is sent again by the tail.
func (r *receipt) copy(ctx context.Context) error {
	if r.taken == 0 || r.m.o.Clock.Mono()-r.taken > viewAge {
		if err := r.ask(ctx); err != nil {
			return err
		}
	}
	in := r.own.In
	page, err := r.m.o.Sender.SlotExport(ctx, host.ExportRequest{
		Group: r.move.From, Slots: r.move.Slots, Rev: r.at.Clock, Index: r.at.Index, After: in.Cursor, MaxBytes: pageBytes,
	})
	if err != nil {
		r.taken = 0
		return err
	}
	keys, err := r.m.o.Host.MergePage(ctx, r.group, &r.move.Slots, &page, in.Cursor, r.at.Clock)
	if err != nil {
		return err
	}
	c := r.importOf(&page)
	c.Cursor, c.Done = page.Last, page.Done
	if page.Done {
		c.Cursor = nil
	}
	if in.Base == 0 {
		c.Base, c.Rev = max(1, r.at.Base), r.at.Clock
	}
	if err := r.take(ctx, c, keys); err != nil {
		return err
	}
	r.m.pageRead(r.group, pageSize(&page))
	return r.m.pacer.wait(ctx, pageSize(&page))
}

// importOf is the import of a page.
func (r *receipt) importOf(page *host.ExportPage) format.SlotChange {
	return format.SlotChange{
		Kind: format.SlotImport, Move: r.move.ID, Peer: r.move.From, Floor: page.Floor,
	}
}

// take imports keys and notes what the log says then.
func (r *receipt) take(ctx context.Context, c format.SlotChange, keys []format.ExportKey) error {
	if err := r.m.o.Host.ImportSlots(ctx, r.group, c, keys); err != nil {
		return err
	}
	next, in := *r.own, *r.own.In
	in.Floor = max(in.Floor, c.Floor)
	if c.Base != 0 {
		in.Base = c.Base
	}
	if c.Rev != 0 {
		in.Rev = c.Rev
	}
	if c.Done || len(c.Cursor) > 0 {
		in.Cursor, in.Copied = c.Cursor, c.Done
	}
	in.Phase, in.Nonce = format.SlotsCopying, 0
	next.In = &in
	r.own = &next
	return nil
}

// tail imports what changed at the sender up to a freeze, or up to now.
func (r *receipt) tail(ctx context.Context, nonce keyspace.Index) error {
	began := r.m.o.Clock.Mono()
	q := host.ChangedRequest{Group: r.move.From, Slots: r.move.Slots, From: r.own.In.Base, To: nonce, MaxBytes: pageBytes}
	var rev keyspace.Revision
	if nonce == 0 {
		if err := r.ask(ctx); err != nil {
			return err
		}
		q.To, rev = r.at.Index, r.at.Clock
	}
	bytes := 0
	for q.From < q.To {
		page, err := r.m.o.Sender.SlotChanges(ctx, q)
		if fault.CodeOf(err) == fault.OutOfRange {
			return r.copyAgain(ctx)
		}
		if err != nil {
			return err
		}
		if page.To == q.From && page.Skip <= q.Skip || page.To < q.From {
			return fault.New(fault.Internal, "a page of changes does not go on", "from", q.From, "to", page.To, "skip", page.Skip)
		}
		if err := r.takeChanges(ctx, &q, &page, rev); err != nil {
			return err
		}
		bytes += pageSize(&page)
		if nonce == 0 {
			if err := r.m.pacer.wait(ctx, pageSize(&page)); err != nil {
				return err
			}
		}
	}
	r.tailBytes, r.tailTime = bytes, max(1, r.m.o.Clock.Mono()-began)
	return nil
}

// copyAgain begins the copy anew, at a view that the sender's log reaches back
// to. What is here already is read again but not written again.
func (r *receipt) copyAgain(ctx context.Context) error {
	if err := r.ask(ctx); err != nil {
		return err
	}
	r.m.o.Logger.Info("the sender's log does not reach back to the copy, which begins again", "move", r.move.ID, "from", r.move.From,
		"base", r.own.In.Base)
	r.tailTime = 0
	c := r.importOf(&host.ExportPage{})
	c.Base, c.Rev, c.Cursor = max(1, r.at.Base), r.at.Clock, firstCursor
	return r.take(ctx, c, nil)
}

// firstCursor lies before all disk keys; an import without a cursor would leave
// the cursor as it is.
var firstCursor = []byte{0}

// takeChanges imports a page of changes. Once all that was stamped up to a
// reading of the sender's clock is here, rev, later ones need nothing older.
func (r *receipt) takeChanges(ctx context.Context, q *host.ChangedRequest, page *host.ExportPage, rev keyspace.Revision) error {
	keys, err := r.m.o.Host.MergePage(ctx, r.group, &r.move.Slots, page, nil, 0)
	if err != nil {
		return err
	}
	c := r.importOf(page)
	c.Base = page.To
	if page.To >= q.To {
		c.Rev = rev
	}
	q.From, q.Skip = page.To, page.Skip
	return r.take(ctx, c, keys)
}

// pageSize is about what a page takes.
func pageSize(p *host.ExportPage) (n int) {
	for i := range p.Keys {
		k := &p.Keys[i]
		n += len(k.Key)
		for j := range k.Versions {
			v := &k.Versions[j]
			n += 16 + len(v.Value)
			for _, c := range v.Chunks {
				n += len(c)
			}
		}
	}
	return n
}
