package sim

import (
	"context"
	"fmt"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/mover"
	"kvstore/internal/placement"
	"kvstore/internal/replica"
	"kvstore/internal/router"
)

// Moves of slots. The last data group of a run with Splits begins empty, and the
// others' slots are moved to it, a few at a time, by the real mover: every node
// that believes to lead a group drives its moves, and asks whoever believes to
// lead the sender, over links that fail like all others. Only the record of the
// slots is simulated: one value that is compared and set, which nodes know as it
// is or as it was.

// slotMap is the record of the slots, and what nodes may still believe.
type slotMap struct {
	record  format.SlotsRecord
	version uint64
	past    []*router.Map
}

const (
	rpcTimeout  = 2 * time.Second
	movesAtOnce = 2
	// slotsPerMove keeps moves short, so that there are many.
	slotsPerMove = 200
)

// owners is how many data groups own slots in the beginning.
func (w *World) owners() int {
	if w.cfg.Splits {
		return w.cfg.Groups - 1
	}
	return w.cfg.Groups
}

// foundingSlots are what a group owns first. Without splits every group owns
// everything: clients name groups, not keys.
func (w *World) foundingSlots(g keyspace.GroupID) (s format.SlotSet) {
	if !w.cfg.Splits {
		s.AddRange(0, keyspace.SlotCount-1)
		return s
	}
	return format.FoundingSlots(g, w.owners())
}

// startSplits begins to plan moves of slots and to drive them.
func (w *World) startSplits() {
	if !w.cfg.Splits {
		return
	}
	w.slots.record = format.FoundingSlotsRecord(w.owners())
	w.slots.record.Owners = append(w.slots.record.Owners, format.SlotOwner{Group: keyspace.GroupID(w.cfg.Groups)})
	w.slots.version = 1
	w.publishSlots()
	w.after(time.Second, w.planSlots)
	w.after(time.Second, w.driveSlots)
}

// publishSlots makes the record known.
func (w *World) publishSlots() {
	if err := w.slots.record.Validate(); err != nil {
		w.problem("the record of the slots: %v", err)
	}
	m := &router.Map{
		Groups: w.cfg.Groups, ReplicationFactor: min(w.cfg.Nodes, 3), Slots: router.NewSlotMap(&w.slots.record, w.slots.version),
		Nodes: map[keyspace.NodeID]router.Node{}, Members: map[keyspace.GroupID][]router.Member{}, Balance: router.Balance{MaxMoves: movesAtOnce},
	}
	// The receivers count as complete: that they are is nothing safety needs.
	for g := range keyspace.GroupID(w.cfg.Groups + 1) {
		m.Members[g] = []router.Member{{Replica: 1, Node: "any"}}
	}
	w.slots.past = append(w.slots.past, m)
}

// planSlots has slots move to the last group, and cancels some moves. Once faults
// are over, what is under way comes to its end and nothing is begun.
func (w *World) planSlots() {
	r := w.slots.record
	to := keyspace.GroupID(w.cfg.Groups)
	busy := false
	for i := range r.Moves {
		busy = busy || r.Moves[i].To == to
		if w.faultsOn && !r.Moves[i].Cancelled && w.chance(0.05) {
			w.stats.SlotCancels++
			r.Moves = append([]format.SlotMoveRecord(nil), r.Moves...)
			r.Moves[i].Cancelled = true
			w.writeSlots(r, w.slots.version)
		}
	}
	if !busy && w.faultsOn {
		owned := make(map[keyspace.GroupID]format.SlotSet)
		for _, o := range r.Owners {
			owned[o.Group] = o.Slots
		}
		plan := placement.PlanSlots(owned, w.cfg.Groups)
		if len(plan) > 0 {
			w.beginMove(r, plan[w.rng.IntN(len(plan))])
		}
	}
	w.after(w.between(50*time.Millisecond, 400*time.Millisecond), w.planSlots)
}

// beginMove writes a move of some of the slots of a plan, such that both those
// with keys and others go.
func (w *World) beginMove(r format.SlotsRecord, plan placement.SlotMove) {
	var slots format.SlotSet
	first := w.rng.IntN(2)
	for slot := range plan.Slots.All() {
		if first++; first%2 == 0 && slots.Count() < slotsPerMove {
			slots.Add(slot)
		}
	}
	if slots.Empty() {
		slots = plan.Slots
	}
	r.Moves = append(r.Moves[:len(r.Moves):len(r.Moves)], format.SlotMoveRecord{ID: r.NextMove, From: plan.From, To: plan.To, Slots: slots})
	r.NextMove++
	w.writeSlots(r, w.slots.version)
}

// writeSlots replaces the record if it still is of a version.
func (w *World) writeSlots(r format.SlotsRecord, version uint64) bool {
	if version != w.slots.version {
		return false
	}
	r.Epoch = w.slots.record.Epoch + 1
	w.slots.record = r
	w.slots.version++
	w.publishSlots()
	return true
}

// driveSlots lets every node do what its mover would.
func (w *World) driveSlots() {
	for _, n := range w.nodes {
		if n.host == nil || n.paused > w.now {
			continue
		}
		for _, s := range n.host.Groups() {
			if s.Group != keyspace.MetaGroup && s.Role == "leader" && s.Serving && !n.moving[s.Group] {
				n.drive(s)
			}
		}
	}
	w.after(w.between(20*time.Millisecond, 150*time.Millisecond), w.driveSlots)
}

// drive starts the mover's work for a group.
func (n *node) drive(s host.GroupStatus) {
	e := &slotEnd{n: n, life: n.life}
	m, err := mover.New(mover.Options{Host: e, Sender: e, Store: e, Directory: e, Clock: n, Rand: n.w.rng, Bugs: n.w.cfg.Bugs})
	if err != nil {
		n.w.problem("mover: %v", err)
		return
	}
	work := m.Work(&s, e.Map())
	if work == nil {
		return
	}
	life := n.life
	n.moving[s.Group] = true
	stop := n.w.spawn(func(t *task) {
		e.t = t
		if err := work(context.Background()); err == nil {
			n.w.stats.SlotRuns++
		}
		if n.life == life {
			delete(n.moving, s.Group)
		}
	})
	n.tasks = append(n.tasks, stop)
}

// slotEnd is what a mover of one node's life sees of the world.
type slotEnd struct {
	n    *node
	life int
	t    *task
}

// Map is the newest record, or one of before.
func (e *slotEnd) Map() *router.Map {
	past := e.n.w.slots.past
	back := 0
	if e.n.w.faultsOn && e.n.w.chance(0.3) {
		back = e.n.w.rng.IntN(min(len(past), 4))
	}
	return past[len(past)-1-back]
}

func (e *slotEnd) Refresh(context.Context) error { return e.pause() }

// pause waits for a moment.
func (e *slotEnd) pause() error {
	d := e.n.w.between(time.Millisecond, 20*time.Millisecond)
	return e.t.await(time.Minute, func(done func()) { e.n.w.after(d, done) })
}

func (e *slotEnd) Groups() []host.GroupStatus { return e.n.host.Groups() }

func (e *slotEnd) SlotStates() map[keyspace.GroupID]*format.SlotState { return e.n.host.SlotStates() }

// here runs f on this node once it is awake and waits for its answer.
func (e *slotEnd) here(f func(done func())) error {
	err := e.t.await(rpcTimeout, func(done func()) {
		e.n.whenAwake(e.life, func() {
			f(done)
			e.n.wake()
		})
	})
	if err == nil && e.n.life != e.life {
		return errStopped
	}
	return err
}

func (e *slotEnd) ChangeSlots(_ context.Context, g keyspace.GroupID, c format.SlotChange) (a host.SlotAnswer, err error) {
	waited := e.here(func(done func()) {
		e.n.host.ChangeSlotsAsync(context.Background(), g, c, func(answer host.SlotAnswer, failed error) {
			a, err = answer, failed
			done()
		})
	})
	if waited != nil {
		return a, waited
	}
	e.n.w.note("step", uint64(g), uint64(c.Kind), uint64(c.Move))
	if err == nil && c.Kind == format.SlotAccept {
		e.n.w.stats.SlotMoves++
	}
	return a, err
}

func (e *slotEnd) ImportSlots(_ context.Context, g keyspace.GroupID, c format.SlotChange, keys []format.ExportKey) (err error) {
	e.n.w.stats.Imported += len(keys)
	waited := e.here(func(done func()) {
		e.n.host.ImportSlotsAsync(context.Background(), g, c, keys, func(failed error) {
			err = failed
			done()
		})
	})
	if waited != nil {
		return waited
	}
	return err
}

func (e *slotEnd) MergePage(ctx context.Context, g keyspace.GroupID, slots *format.SlotSet, page *host.ExportPage, after []byte, at keyspace.Revision) (keys []format.ExportKey, err error) {
	waited := e.here(func(done func()) {
		keys, err = e.n.host.MergePage(ctx, g, slots, page, after, at)
		done()
	})
	if waited != nil {
		return nil, waited
	}
	return keys, err
}

func (e *slotEnd) LeftoverPage(ctx context.Context, g keyspace.GroupID, after []byte, maxKeys int) (keys []format.ExportKey, last []byte, done bool, err error) {
	waited := e.here(func(over func()) {
		keys, last, done, err = e.n.host.LeftoverPage(ctx, g, after, min(maxKeys, 5))
		over()
	})
	if waited != nil {
		return nil, nil, false, waited
	}
	return keys, last, done, err
}

// there runs f on a node that believes to lead a group, over the network.
func (e *slotEnd) there(g keyspace.GroupID, f func(to *node, done func())) error {
	w := e.n.w
	var leaders []*node
	for _, n := range w.nodes {
		if s, ok := statusOf(n, g); ok && s.Role == "leader" && s.Serving {
			leaders = append(leaders, n)
		}
	}
	if len(leaders) == 0 {
		if err := e.pause(); err != nil {
			return err
		}
		return fault.New(fault.Unavailable, "group has no known leader", "group", g)
	}
	to := leaders[w.rng.IntN(len(leaders))]
	life := to.life
	return e.here(func(done func()) {
		w.hop(e.n, to, func() {
			to.whenAwake(life, func() {
				f(to, func() { w.hop(to, e.n, func() { e.n.whenAwake(e.life, done) }) })
				to.wake()
			})
		})
	})
}

// hop carries a request or an answer, unless the link is cut.
func (w *World) hop(from, to *node, f func()) {
	if from != to && (w.cut[[2]int{from.index, to.index}] || w.faultsOn && w.chance(0.01)) {
		return
	}
	delay := w.between(100*time.Microsecond, 2*time.Millisecond)
	if w.faultsOn && w.chance(0.03) {
		delay = w.between(0, 1500*time.Millisecond) // late, also after a freeze was undone
	}
	w.after(delay, func() {
		if from == to || !w.cut[[2]int{from.index, to.index}] {
			f()
		}
	})
}

func (e *slotEnd) SlotStep(_ context.Context, g keyspace.GroupID, c format.SlotChange) (a host.SlotAnswer, err error) {
	waited := e.there(g, func(to *node, done func()) {
		to.host.ChangeSlotsAsync(context.Background(), g, c, func(answer host.SlotAnswer, failed error) {
			to.w.note("their step", uint64(g), uint64(c.Kind), uint64(c.Move))
			a, err = answer, failed
			done()
		})
	})
	if waited != nil {
		return a, waited
	}
	return a, err
}

// SlotStatus confirms the clock and then looks at the state.
func (e *slotEnd) SlotStatus(_ context.Context, g keyspace.GroupID) (s router.SlotStatus, err error) {
	waited := e.there(g, func(to *node, done func()) {
		clock := &replica.ClockOp{}
		before, _ := statusOf(to, g)
		to.host.Submit(context.Background(), &replica.Request{Group: g, Clock: clock, Done: func(r *replica.Request) {
			if err = r.Err; err != nil {
				done()
				return
			}
			to.host.ReadIndex(context.Background(), g, func(p host.ReadPoint, failed error) {
				base := before.Applied
				if e.n.w.cfg.Bugs.Has(invariant.BugTailFromView) {
					base = p.Index
				}
				s, err = router.SlotStatus{Slots: to.host.SlotStates()[g], Clock: clock.Result, Index: p.Index, Base: base}, failed
				done()
			})
		}})
	})
	if waited != nil {
		return s, waited
	}
	return s, err
}

// nowait is a context for reads that must not wait for the loop of a host: it runs
// on this thread.
type nowait struct{ context.Context }

var over = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (nowait) Done() <-chan struct{} { return over }

func (e *slotEnd) SlotExport(ctx context.Context, q host.ExportRequest) (p host.ExportPage, err error) {
	q.MaxBytes = 300
	at := nowait{host.RunsLoop(ctx)}
	return e.page(q.Group, func(to *node) (host.ExportPage, error) { return to.host.ExportSlots(at, q) })
}

func (e *slotEnd) SlotChanges(ctx context.Context, q host.ChangedRequest) (host.ExportPage, error) {
	q.MaxBytes = 300
	at := nowait{host.RunsLoop(ctx)}
	return e.page(q.Group, func(to *node) (host.ExportPage, error) { return to.host.ExportChanged(at, q) })
}

func (e *slotEnd) page(g keyspace.GroupID, read func(to *node) (host.ExportPage, error)) (p host.ExportPage, err error) {
	waited := e.there(g, func(to *node, done func()) {
		p, err = read(to)
		if err == nil {
			p, err = format.DecodeExportPage(format.AppendExportPage(nil, &p))
		}
		done()
	})
	if waited != nil {
		return p, waited
	}
	return p, err
}

// Put writes the record, as a condition on its version allows.
func (e *slotEnd) Put(_ context.Context, q *api.PutRequest) (*api.PutResponse, error) {
	if err := e.pause(); err != nil {
		return nil, err
	}
	r, err := format.DecodeSystem[format.SlotsRecord](q.GetKey(), q.GetValue())
	if err != nil {
		return nil, err
	}
	if !e.n.w.writeSlots(r, q.GetCondition().GetVersionMatch()) {
		return nil, fault.New(fault.ConditionFailed, "the record has another version")
	}
	return &api.PutResponse{Version: e.n.w.slots.version}, nil
}

// routes is what a client knows of the owners of slots.
type routes struct {
	known *router.Map
	// guess are owners that are not in the record yet.
	guess map[keyspace.SlotID]keyspace.GroupID
}

// groupOf is the group that a client asks for a key of what was g's.
func (c *client) groupOf(g keyspace.GroupID, key string) keyspace.GroupID {
	if !c.w.cfg.Splits {
		return g
	}
	slot := keyspace.SlotOf(keyspace.DefaultNamespace, key)
	if guess, ok := c.guess[slot]; ok {
		return guess
	}
	if c.known == nil {
		c.known = c.w.slots.past[0]
	}
	owner, _ := c.known.GroupOf(slot)
	return owner
}

// moved looks for the owner of a slot that a group does not own.
func (c *client) moved(asked keyspace.GroupID, key string, err error) {
	if fault.CodeOf(err) != fault.WrongGroup {
		return
	}
	c.w.stats.Elsewhere++
	if c.guess == nil {
		c.guess = make(map[keyspace.SlotID]keyspace.GroupID)
	}
	slot := keyspace.SlotOf(keyspace.DefaultNamespace, key)
	c.known = c.w.slots.past[len(c.w.slots.past)-1]
	delete(c.guess, slot)
	if owner, _ := c.known.GroupOf(slot); owner == asked {
		c.guess[slot] = keyspace.GroupID(c.w.cfg.Groups) // all slots move there
	}
}

// slotsSettled reports whether no move is under way and nothing is left to be
// cleared away.
func (w *World) slotsSettled() bool {
	if !w.cfg.Splits {
		return true
	}
	if len(w.slots.record.Moves) > 0 {
		return false
	}
	for g := keyspace.GroupID(1); int(g) <= w.cfg.Groups; g++ {
		lead := w.leader(g)
		if lead == nil {
			return false
		}
		s := lead.host.SlotStates()[g]
		if s == nil || s.In != nil || s.Out != nil || s.Purging || s.Owned != w.slots.past[len(w.slots.past)-1].Owned(g) {
			return false
		}
	}
	return true
}

// spread names keys whose slots belong to a group in the beginning.
func (w *World) spread(g keyspace.GroupID, name string) string {
	if !w.cfg.Splits {
		return fmt.Sprintf("g%d-%s", g, name)
	}
	own := w.foundingSlots(1 + (g-1)%keyspace.GroupID(w.owners()))
	for i := 0; ; i++ {
		key := fmt.Sprintf("{g%d-%s-%d}", g, name, i)
		if own.Has(keyspace.SlotOf(keyspace.DefaultNamespace, key)) {
			return key
		}
	}
}
