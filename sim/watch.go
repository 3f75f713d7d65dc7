package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/watch"
	seen "kvstore/test/history"
)

// Watches of a run with Watchers: clients of the real hubs of all nodes (watchHub).
// They read slowly now and then, their connections break and lose what was under
// way, their nodes crash, and they go on at other nodes by their last token. In the
// end the judge of test/history compares what they saw with what was written.
//
// They need slots that have one owner each, so a run with Watchers has Splits too.

// watches is what is known of them.
type watches struct {
	all    []*watcher
	writes []*seen.Write
	txns   []watchedTxn
	// previous is what is wrong with what events say was before.
	previous []string
}

// watcher is one watch, over all streams that it had.
type watcher struct {
	w      *World
	create *api.WatchCreate
	saw    seen.Stream
	by     *watchHub // nil while it has no stream
	token  []byte
	part   []*api.WatchEvent // fragments of an update
	at     uint64
	until  uint64 // what it has to come to, in the end
	// state is what keys were by the last event of each.
	state map[string]*api.WatchEvent
}

// watchedTxn is a transaction over several groups that moves money.
type watchedTxn struct {
	id      keyspace.TxnID
	changes []seen.Change
}

// spreadKeys begin the names of all keys whose slots are divided among groups.
const spreadKeys = "{g"

// startWatches begins the watches, some of them late and in the past.
func (w *World) startWatches() {
	long := uint64(keyspace.RevisionAt(firstWall))
	asked := []*api.WatchCreate{
		{Prefix: spreadKeys, AfterRevision: long},
		{Prefix: spreadKeys, Previous: true},
		{Key: w.spread(1, "k0"), Previous: true},
		{Prefix: spreadKeys, AfterRevision: uint64(keyspace.RevisionAt(firstWall + 3000))},
		{Key: w.watchedAccount()},
		{Prefix: w.spread(2, "pair"), AfterRevision: long},
	}
	for i, q := range asked[:min(w.cfg.Watchers, len(asked))] {
		q.WatchId = 1
		x := &watcher{w: w, create: q, state: make(map[string]*api.WatchEvent)}
		x.saw = seen.Stream{Name: fmt.Sprintf("%d, %s", i, q.Key+q.Prefix), From: q.AfterRevision, Match: func(key string) bool {
			return key == q.Key || q.Key == "" && strings.HasPrefix(key, q.Prefix)
		}}
		w.watches.all = append(w.watches.all, x)
		w.after(w.between(600*time.Millisecond, 6*time.Second), x.tend)
	}
}

// watchedAccount is a key that transactions over several groups write, or any.
func (w *World) watchedAccount() string {
	if w.cfg.Transactions {
		return w.txns.keys[0]
	}
	return w.spread(2, "k1")
}

// tend finds a node for a watcher that has none.
func (x *watcher) tend() {
	w := x.w
	if x.by != nil && x.by.n.hub != x.by { // it crashed before the stream began
		x.by = nil
	}
	if n := w.nodes[w.rng.IntN(len(w.nodes))]; x.by == nil && n.hub != nil && n.paused <= w.now {
		x.by = n.hub
		x.by.Go(func() { x.watch(n.hub) })
	}
	w.after(w.between(10*time.Millisecond, 100*time.Millisecond), x.tend)
}

// gone is the context of a look at a stream that does not wait.
var gone = nowait{context.Background()}

// watch reads one stream, for a while.
func (x *watcher) watch(h *watchHub) {
	w := x.w
	defer func() { x.by = nil }()
	s, err := h.hub.Open(context.Background())
	if err != nil {
		return
	}
	defer s.Close()
	x.part = nil
	s.Create(context.Background(), x.request())
	leave := w.now + w.between(200*time.Millisecond, 4*time.Second)
	w.after(leave-w.now, h.kick)
	for !w.faultsOn || w.now < leave {
		m, err := next(s)
		if m == nil && err == nil {
			if looks := h.looks; !h.until(func() bool { return h.looks != looks }) {
				return
			}
			continue
		}
		h.kick() // there is room
		if err != nil || w.faultsOn && w.chance(0.02) || !x.take(m) {
			return // with what was under way
		}
		if w.faultsOn && w.chance(0.05) { // it reads nothing for a while
			if !x.rest(h) {
				return
			}
		}
	}
}

func (x *watcher) rest(h *watchHub) bool {
	d := x.w.between(0, 400*time.Millisecond)
	return h.await(time.Minute, func(done func()) { x.w.after(d, done) }) == nil
}

// next returns a message that is there, nil for none.
func next(s *watch.Stream) (*api.WatchResponse, error) {
	m, err := s.NextUntil(gone)
	if err != nil {
		if s.Cause() == nil { // it would have waited
			return nil, nil
		}
		return nil, err
	}
	return watch.Decode(m)
}

// request begins the watch, or goes on with it.
func (x *watcher) request() *api.WatchCreate {
	q := &api.WatchCreate{WatchId: x.create.WatchId, Key: x.create.Key, Prefix: x.create.Prefix, Previous: x.create.Previous}
	if q.Token = x.token; len(x.token) == 0 {
		q.AfterRevision = x.create.AfterRevision
	}
	return q
}

// resumable are the ends of watches after which a client goes on.
var resumable = []fault.Code{fault.Unavailable, fault.Overloaded, fault.WrongLeader, fault.WrongGroup, fault.DeadlineExceeded, fault.Canceled}

// take takes a message; false when the watch has ended.
func (x *watcher) take(m *api.WatchResponse) bool {
	for _, c := range m.GetCreated() {
		if x.saw.From == 0 {
			x.saw.From = c.GetRevision()
		}
		x.reached(c.GetRevision(), c.GetToken(), nil)
	}
	for _, b := range m.GetBatches() {
		x.takeBatch(b)
	}
	for _, p := range m.GetProgress() {
		x.reached(p.GetRevision(), p.GetToken(), nil)
	}
	ended := m.GetEnded() // of the stream's one watch
	if len(ended) == 0 {
		return true
	}
	why := ended[0].GetStatus()
	x.w.note("watch ended", uint64(len(why.GetCode())))
	if !slices.Contains(resumable, fault.Code(why.GetCode())) {
		x.w.problem("the watch of %s ended: %v", x.saw.Name, why)
	}
	return false
}

func (x *watcher) takeBatch(b *api.WatchBatch) {
	x.part = append(x.part, b.GetEvents()...)
	if b.GetFragment() {
		return
	}
	events := make([]seen.Event, 0, len(x.part))
	for _, ev := range x.part {
		x.w.stats.Watched++
		x.judgePrevious(ev)
		e := seen.Event{Key: ev.GetRecord().GetKey(), Revision: ev.GetRecord().GetRevision(), Version: ev.GetRecord().GetVersion()}
		if e.Delete = ev.GetType() == api.WatchEvent_DELETE; !e.Delete {
			e.Value = marked(string(ev.GetRecord().GetValue()))
		}
		x.w.note(e.Key, uint64(x.w.now), e.Revision)
		events = append(events, e)
	}
	x.part = nil
	x.reached(b.GetRevision(), b.GetToken(), events)
}

// reached notes an update.
func (x *watcher) reached(rev uint64, token []byte, events []seen.Event) {
	if n := len(x.saw.Updates); len(events) == 0 && n > 0 && len(x.saw.Updates[n-1].Events) == 0 && rev >= x.at {
		x.saw.Updates[n-1].Revision = rev
	} else {
		x.saw.Updates = append(x.saw.Updates, seen.Update{Events: events, Revision: rev})
	}
	x.at, x.token = rev, token
}

// judgePrevious compares what an event says was before with what was.
func (x *watcher) judgePrevious(ev *api.WatchEvent) {
	key, old := ev.GetRecord().GetKey(), ev.GetPrevious()
	before, known := x.state[key]
	x.state[key] = ev
	switch was := before.GetRecord(); {
	case !x.create.Previous || !known:
	case (old == nil) != (before.GetType() == api.WatchEvent_DELETE):
		x.wrong("what %s was before %d is %v, and was %v", key, ev.GetRecord().GetRevision(), old, before)
	case old != nil && (old.GetRevision() != was.GetRevision() || old.GetVersion() != was.GetVersion() || string(old.GetValue()) != string(was.GetValue())):
		x.wrong("%s was of revision %d before %d, and is said to have been of %d", key, was.GetRevision(), ev.GetRecord().GetRevision(), old.GetRevision())
	}
}

func (x *watcher) wrong(format string, args ...any) {
	x.w.watches.previous = append(x.w.watches.previous, fmt.Sprintf("the watch of %s: ", x.saw.Name)+fmt.Sprintf(format, args...))
}
