package host

import (
	"bytes"
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// lockTable is what transactions that are prepared in a group lock of a replica
// here, for readers (DESIGN 9).
//
// Whoever may see a transaction's commit has to wait until it is decided: a
// transaction counts as committed before its writes are here, and at a revision
// that may lie above that of the reader's permission. So the loop enters locks
// before it publishes the entry that took them, and takes them out after it has
// published the one that let them go. A reader waits for its index to be applied,
// then looks here, then takes its view: where it finds no lock of what was prepared
// before its permission, the view has what was committed.
//
// With nothing prepared a reader looks at one pointer.
type lockTable struct {
	seen atomic.Pointer[locksSeen]

	mu   sync.Mutex
	held map[keyspace.TxnKey]*heldTxn
	// keys are disk keys. Two transactions may have a key for a moment, while the
	// entry by which one let it go is applied and not published.
	keys    map[string][]heldKey
	freed   keyspace.Revision
	waiters int
	over    bool // the replica ended
}

// locksSeen is what a reader looks at first.
type locksSeen struct {
	// oldest is the least stamp of what is prepared.
	oldest keyspace.Revision
	// freed is a published revision at or above that of every commit so far that let
	// locks go.
	freed keyspace.Revision
}

// heldTxn is a prepared transaction.
type heldTxn struct {
	*format.Prepared
	gone chan struct{}
	// first and last bound the keys that it writes.
	first, last []byte
	// asked is when somebody was asked to finish it, 0 for never; guarded by the
	// table's mutex.
	asked time.Duration
}

type heldKey struct {
	by        *heldTxn
	exclusive bool
}

const (
	// askAfter is how long a reader waits for a lock before it has the transaction
	// finished; askAgain is how soon somebody is asked again.
	askAfter = 5 * time.Millisecond
	askAgain = 250 * time.Millisecond
)

// add enters transactions, before what prepared them is published.
func (t *lockTable) add(all []*format.Prepared) {
	if len(all) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range all {
		t.enter(p)
	}
	t.show()
}

// enter needs mu.
func (t *lockTable) enter(p *format.Prepared) {
	if t.held[p.Key] != nil {
		return
	}
	if t.held == nil {
		t.held, t.keys = make(map[keyspace.TxnKey]*heldTxn), make(map[string][]heldKey)
	}
	h := &heldTxn{Prepared: p, gone: make(chan struct{})}
	t.held[p.Key] = h
	for _, k := range p.Exclusive {
		t.keys[string(k)] = append(t.keys[string(k)], heldKey{h, true})
		if h.first == nil || bytes.Compare(k, h.first) < 0 {
			h.first = k
		}
		if bytes.Compare(k, h.last) > 0 {
			h.last = k
		}
	}
	for _, k := range p.Shared {
		t.keys[string(k)] = append(t.keys[string(k)], heldKey{h, false})
	}
}

// remove takes transactions out whose end is published; published is the
// revision that readers may ask for since.
func (t *lockTable) remove(all []*format.Prepared, published keyspace.Revision) {
	if len(all) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range all {
		t.leave(t.held[p.Key])
	}
	t.freed = max(t.freed, published)
	t.show()
}

// leave needs mu.
func (t *lockTable) leave(h *heldTxn) {
	if h == nil {
		return
	}
	delete(t.held, h.Key)
	for _, keys := range [][][]byte{h.Exclusive, h.Shared} {
		for _, k := range keys {
			t.drop(string(k), h)
		}
	}
	close(h.gone)
}

func (t *lockTable) drop(key string, h *heldTxn) {
	var rest []heldKey
	for _, k := range t.keys[key] {
		if k.by != h {
			rest = append(rest, k)
		}
	}
	if len(rest) == 0 {
		delete(t.keys, key)
		return
	}
	t.keys[key] = rest
}

// keep takes out all but those of a state that took the place of another and is
// published: what ended meanwhile, nobody told. Those of the state were added
// before.
func (t *lockTable) keep(all []*format.Prepared, published keyspace.Revision) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.held) == 0 {
		return
	}
	gone := maps.Clone(t.held)
	for _, p := range all {
		delete(gone, p.Key)
	}
	for _, h := range gone {
		t.leave(h)
	}
	t.freed = max(t.freed, published)
	t.show()
}

// end tells who waits that the replica is gone. Its locks stay: nobody knows here
// what becomes of them.
func (t *lockTable) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	t.over = true
	for _, h := range t.held {
		close(h.gone)
	}
}

// show needs mu.
func (t *lockTable) show() {
	s := &locksSeen{oldest: keyspace.MaxRevision, freed: t.freed}
	for _, h := range t.held {
		s.oldest = min(s.oldest, h.Stamp)
	}
	t.seen.Store(s)
}

// look returns whether something is prepared that a reader at rev has to know,
// and whether locks were let go at a revision above rev.
func (t *lockTable) look(rev keyspace.Revision) (locked, freed bool) {
	s := t.seen.Load()
	if s == nil {
		return false, false
	}
	return s.oldest <= rev, s.freed > rev
}

// of returns the transaction that makes a reader of a key at rev wait, nil for
// none: one that may write it or, with shared, that only looked at it.
func (t *lockTable) of(key []byte, rev keyspace.Revision, shared bool) *heldTxn {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.keys[string(key)] {
		if k.by.Stamp <= rev && (k.exclusive || shared) {
			return k.by
		}
	}
	return nil
}

// nearest returns the first of the keys in a range that what is prepared at or
// below rev may write, the last one with reverse; nil when there is none.
func (t *lockTable) nearest(lower, upper []byte, reverse bool, rev keyspace.Revision) (key []byte, by *heldTxn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.held {
		if h.Stamp > rev || h.first == nil || bytes.Compare(h.last, lower) < 0 || bytes.Compare(h.first, upper) >= 0 {
			continue
		}
		for _, k := range h.Exclusive {
			if bytes.Compare(k, lower) < 0 || bytes.Compare(k, upper) >= 0 {
				continue
			}
			if key == nil || (bytes.Compare(k, key) < 0) != reverse {
				key, by = k, h
			}
		}
	}
	return key, by
}

// passLocks waits for what is prepared at or below a point and may write a key.
func (h *Host) passLocks(ctx context.Context, g *group, p *ReadPoint, ns keyspace.NamespaceID, key string) error {
	if locked, _ := g.locks.look(p.Rev); !locked {
		return nil
	}
	_, err := h.awaitKey(ctx, g, p.Rev, ns, key, false)
	return err
}

// passExpiry is passLocks for a key whose deadline has passed at the point, with
// transactions that only looked at it: they hold that it had not. It reports
// whether it waited.
func (h *Host) passExpiry(ctx context.Context, g *group, p *ReadPoint, ns keyspace.NamespaceID, key string) (waited bool, err error) {
	rev := max(p.Rev, p.Clock)
	if locked, _ := g.locks.look(rev); !locked {
		return false, nil
	}
	return h.awaitKey(ctx, g, rev, ns, key, true)
}

func (h *Host) awaitKey(ctx context.Context, g *group, rev keyspace.Revision, ns keyspace.NamespaceID, key string, shared bool) (waited bool, err error) {
	diskKey := keyspace.AppendDataKey(nil, ns, []byte(key))
	for {
		by := g.locks.of(diskKey, rev, shared)
		if by == nil {
			return waited, nil
		}
		if err := h.await(ctx, g, by); err != nil {
			return waited, err
		}
		waited = true
	}
}

// await waits for a transaction to end. After a moment, and then at intervals, it
// has somebody asked to finish it; never once per waiter.
func (h *Host) await(ctx context.Context, g *group, by *heldTxn) error {
	t := &g.locks
	if !t.admit(h.opt.MaxWaitingReads) {
		return h.errManyReads(g)
	}
	defer t.dismiss()
	if ctx.Value(runsLoop{}) != nil { // nothing ends while the caller waits
		h.askFor(g, by)
		return errLocked(g.id, by).WithRetry(h.opt.TickInterval)
	}
	timer := time.NewTimer(askAfter)
	defer timer.Stop()
	for {
		select {
		case <-by.gone:
			if t.ended() {
				return errNotHosted(g.id)
			}
			return nil
		case <-ctx.Done():
			return errLocked(g.id, by).WithRetry(h.opt.TickInterval)
		case <-h.ctx.Done():
			return errStopped()
		case <-timer.C:
			h.askFor(g, by)
			timer.Reset(askAgain)
		}
	}
}

// askFor asks for the end of a transaction, unless somebody did lately.
func (h *Host) askFor(g *group, by *heldTxn) {
	if hook := h.opt.Hooks.Locked; hook != nil && g.locks.mayAsk(by, h.opt.Clock.Mono()) {
		hook(g.id, by.Prepared)
	}
}

func (t *lockTable) ended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

func (t *lockTable) admit(limit int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiters >= limit {
		return false
	}
	t.waiters++
	return true
}

func (t *lockTable) dismiss() {
	t.mu.Lock()
	t.waiters--
	t.mu.Unlock()
}

// mayAsk reports whether nobody asked for the end of a transaction lately.
func (t *lockTable) mayAsk(by *heldTxn, mono time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if by.asked != 0 && mono-by.asked < askAgain {
		return false
	}
	by.asked = max(1, mono)
	return true
}

func errLocked(id keyspace.GroupID, by *heldTxn) *fault.Error {
	return fault.New(fault.Unavailable, "the key waits for the outcome of a transaction", "group", id, "transaction", by.Key.ID)
}

// noLocks holds what a freeze of slots promises: nothing that is prepared has
// keys in slots that leave.
func noLocks(s *format.State) {
	if s.Slots == nil || s.Slots.Out == nil || s.Slots.Out.Nonce == 0 {
		return
	}
	for _, p := range s.Prepared {
		for _, keys := range [][][]byte{p.Exclusive, p.Shared} {
			for _, k := range keys {
				invariant.Assert(!s.Slots.Out.Slots.Has(slotOf(k)), "transaction %v locks key %x of slots that are frozen", p.Key.ID, k)
			}
		}
	}
}
