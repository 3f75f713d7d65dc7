package replica

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kvstore/internal/engine/mem"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/twophase"
)

// txnModel drives a participant at random: orders of some transactions, writers,
// requests with ids, refused proposals, entries that are applied one by one or die
// with their term.
type txnModel struct {
	rt   *rapid.T
	r    *rig
	log  [][]byte // applied; empty ones open a term
	asks []*answer
}

var modelKeys = []string{"a", "b", "c"}

// What a participant says of a transaction never contradicts itself; evaluation sees
// the locks that the log makes; nothing is written to a locked key but by its holder,
// nor at or below what was settled; and a replica that begins anywhere in the log,
// with a state that was stored there, comes to the same state.
func TestParticipantsFollowTheLog(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		r.core.cfg.MaxQueueOps = 1000
		m := &txnModel{rt: rt, r: r}
		start := r.core.state
		r.elect()
		m.log = append(m.log, nil)
		for range rapid.IntRange(10, 80).Draw(rt, "turns") {
			m.turn()
			m.mustSeeTheLog()
		}
		for len(r.log) > 0 {
			m.apply()
		}
		r.core.StepDown(fault.New(fault.Unavailable, "the end"))
		for _, a := range m.asks {
			if !a.done {
				rt.Fatalf("never answered: %+v", a.req)
			}
		}
		m.mustAgree()
		m.replay(start)
	})
}

func (m *txnModel) turn() {
	rt, r := m.rt, m.r
	switch rapid.IntRange(0, 11).Draw(rt, "what") {
	case 0, 1, 2:
		m.ask(OrderOp{Kind: OrderPrepare, Wait: rapid.IntRange(0, 3).Draw(rt, "wait") == 0}, m.txn())
	case 3, 4:
		m.end()
	case 5:
		m.ask(OrderOp{Kind: rapid.SampledFrom([]OrderKind{OrderRefuse, OrderPoison, OrderQuery, OrderAbort}).Draw(rt, "kind")}, nil)
	case 6:
		m.asks = append(m.asks, r.submit(put(rapid.SampledFrom(modelKeys).Draw(rt, "key"), "w")))
	case 7:
		m.asks = append(m.asks, r.once(m.key().ID, nil, put(rapid.SampledFrom(modelKeys).Draw(rt, "key"), "once")))
	case 8, 9:
		out := r.core.Evaluate(r.now)
		if out.Payload != nil {
			if rapid.IntRange(0, 3).Draw(rt, "dropped") == 0 {
				r.core.Dropped()
			} else {
				r.propose(out.Payload)
			}
		}
		for _, again := range out.Refetch {
			r.fetchAll(again)
			r.core.Enqueue(again)
		}
		r.core.Confirmed(r.term, r.core.Unconfirmed())
	case 10:
		if len(r.log) > 0 {
			m.apply()
		}
	case 11:
		switch rapid.IntRange(0, 5).Draw(rt, "rare") {
		case 0:
			r.elect()
			r.now.Mono += time.Minute
			m.log = append(m.log, nil)
		case 1:
			m.asks = append(m.asks, r.low(keyspace.RevisionAt(wall-int64(rapid.IntRange(0, 3).Draw(rt, "mark")))))
		case 2:
			m.asks = append(m.asks, r.enqueue(&answer{req: &Request{Group: 1, Forget: &ForgetOp{Keys: []keyspace.TxnKey{m.key(), m.key()}}}}))
		case 3:
			r.core.CloseIdle(r.now)
		case 4:
			r.now.Physical += int64(rapid.IntRange(0, 50).Draw(rt, "later"))
		default:
			r.flush()
		}
	}
}

// key is one of a few transactions, older ones and younger ones.
func (m *txnModel) key() keyspace.TxnKey {
	n := rapid.IntRange(0, 5).Draw(m.rt, "txn")
	k := aTxn(uint64(n))
	k.ID.Created = keyspace.RevisionAt(wall - int64(n%4))
	return k
}

func (m *txnModel) txn() *TxnOp {
	t := &TxnOp{Checks: []Op{check(rapid.SampledFrom(modelKeys).Draw(m.rt, "check"), atVersion(uint64(rapid.IntRange(0, 2).Draw(m.rt, "version"))))}}
	t.Then = []Op{put(rapid.SampledFrom(modelKeys).Draw(m.rt, "then"), "t")}
	t.Otherwise = []Op{del(rapid.SampledFrom(modelKeys).Draw(m.rt, "otherwise"))}
	return t
}

func (m *txnModel) ask(o OrderOp, t *TxnOp) {
	if o.Key.ID.Zero() {
		o.Key = m.key()
	}
	m.asks = append(m.asks, m.r.order(o, t))
}

// end commits what was told to be prepared, as whoever heard it of all might, always
// in the same way.
func (m *txnModel) end() {
	for _, a := range m.asks {
		o := a.req.Order
		if o == nil || !a.done || a.req.Err != nil || o.Result.State != twophase.Prepared || rapid.Bool().Draw(m.rt, "another") {
			continue
		}
		c := twophase.Conclude([]twophase.Answer{o.Result.Answer, {Record: twophase.Record{State: twophase.Prepared, Stamp: o.Result.Stamp + 3,
			Holds: true, ThenPossible: true, OtherwisePossible: true}}})
		aborted := false
		for _, b := range m.asks {
			aborted = aborted || b.req.Order != nil && b.req.Order.Key == o.Key && b.req.Order.Kind == OrderAbort
		}
		if !aborted {
			m.ask(OrderOp{Kind: OrderCommit, Key: o.Key, At: c.At, Branch: c.Branch}, nil)
		}
		return
	}
}

func (m *txnModel) apply() {
	r := m.r
	payload := r.log[0]
	r.log = r.log[1:]
	m.log = append(m.log, payload)
	settled, before := r.core.Settled(), r.core.state.Prepared
	r.apply(payload)
	m.mustKeep(payload, settled, before)
}

// mustKeep holds an entry against what was settled and locked before it.
func (m *txnModel) mustKeep(payload []byte, settled keyspace.Revision, prepared []*format.Prepared) {
	var e format.Entry
	if err := format.DecodeEntry(payload, &e); err != nil {
		m.rt.Fatal(err)
	}
	ended := make(map[keyspace.TxnKey]bool)
	for _, k := range e.Ended {
		ended[k] = true
	}
	for _, w := range e.Writes {
		if !w.Delete && w.Revision <= settled {
			m.rt.Fatalf("a write at %v, settled was %v", w.Revision, settled)
		}
		for _, p := range prepared {
			for _, key := range append(append([][]byte(nil), p.Exclusive...), p.Shared...) {
				if bytes.Equal(key, w.Key) && !ended[p.Key] {
					m.rt.Fatalf("a write of %q, which %+v locks", w.Key, p.Key)
				}
			}
		}
	}
	if got := m.r.core.Settled(); got < settled {
		m.rt.Fatalf("settled %v after %v", got, settled)
	}
}

// mustSeeTheLog compares the locks of evaluation with what the log makes of them.
func (m *txnModel) mustSeeTheLog() {
	c := m.r.core
	follower := New(c.cfg, mvcc.New(mem.Open(), mvcc.Options{}), 7, c.state)
	low := c.state.LowWater
	for n, payload := range m.r.log {
		var e format.Entry
		if err := format.DecodeEntry(payload, &e); err != nil {
			m.rt.Fatal(err)
		}
		follower.applyTxns(&e, keyspace.Index(n))
		low = max(low, e.LowWater)
	}
	want := newLockTable(follower.state.Prepared)
	if fmt.Sprint(c.lead.locks.summary()) != fmt.Sprint(want.summary()) || c.lead.locks.bytes != want.bytes || c.lead.low != low {
		m.rt.Fatalf("evaluation sees %v up to %v, the log says %v up to %v", c.lead.locks.summary(), c.lead.low, want.summary(), low)
	}
}

// summary is who is prepared and what is locked.
func (t *lockTable) summary() map[string]string {
	out := make(map[string]string)
	for k, p := range t.prepared {
		out[k.Key()] = fmt.Sprint(p.Stamp)
	}
	for key, l := range t.keys {
		out[key] = fmt.Sprint(l.exclusive != nil, len(l.shared))
	}
	return out
}

// mustAgree holds all that was said of each transaction against each other.
func (m *txnModel) mustAgree() {
	committed, aborted := make(map[keyspace.TxnKey]bool), make(map[keyspace.TxnKey]bool)
	for _, a := range m.asks {
		o := a.req.Order
		if o == nil || a.req.Err != nil {
			continue
		}
		elsewhere := o.Result.Cause == twophase.Elsewhere || len(o.Result.Participants) == 1
		committed[o.Key] = committed[o.Key] || o.Result.State == twophase.Committed && !elsewhere
		aborted[o.Key] = aborted[o.Key] || o.Result.State == twophase.Aborted && !elsewhere
		if committed[o.Key] && aborted[o.Key] {
			m.rt.Fatalf("transaction %+v is committed and aborted", o.Key)
		}
	}
}

// replay applies the log on a second replica, which is stored and begun anew at some
// entry.
func (m *txnModel) replay(start format.State) {
	stop := rapid.IntRange(0, len(m.log)).Draw(m.rt, "checkpoint")
	store := mvcc.New(mem.Open(), mvcc.Options{})
	core := New(m.r.core.cfg, store, 7, start)
	term := start.Term
	for n, payload := range m.log {
		if n == stop {
			s, err := format.DecodeState(format.AppendState(nil, core.State()))
			if err != nil {
				m.rt.Fatal(err)
			}
			core = New(m.r.core.cfg, store, 7, s)
		}
		if len(payload) == 0 {
			term++
		}
		if _, err := core.Apply(core.state.Index+1, term, payload); err != nil {
			m.rt.Fatal(err)
		}
	}
	if a, b := format.AppendState(nil, m.r.core.State()), format.AppendState(nil, core.State()); !bytes.Equal(a, b) {
		m.rt.Fatalf("leader %+v\nreplayed %+v", m.r.core.State(), core.State())
	}
}
