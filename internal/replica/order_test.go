package replica

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// aTxn names a transaction that was created just now; n tells it from others.
func aTxn(n uint64) keyspace.TxnKey {
	return keyspace.TxnKey{ID: keyspace.TxnID{Created: keyspace.RevisionAt(wall), Random: n}, Slot: 40}
}

// order enqueues a step whose prefetch found what the store has.
func (r *rig) order(o OrderOp, t *TxnOp) *answer {
	if o.Participants == nil && o.Kind != OrderQuery {
		o.Participants = []keyspace.SlotID{o.Key.Slot, o.Key.Slot + 1}
	}
	a := &answer{req: &Request{Group: 1, Order: &o, Txn: t, Deadline: r.now.Mono + time.Minute}}
	return r.enqueue(a)
}

func (r *rig) enqueue(a *answer) *answer {
	a.req.Done = func(*Request) { a.done = true }
	r.fetchAll(a.req)
	r.core.Enqueue(a.req)
	return a
}

func (r *rig) fetchAll(req *Request) {
	for _, ops := range req.Sets() {
		for i := range ops {
			r.fetch(&ops[i])
		}
	}
	for op := range req.Records {
		r.fetch(op)
		view := r.store.View()
		if value, _, ok, _ := view.Get(7, op.DiskKey(), keyspace.MaxRevision); ok {
			op.fetch.Record = value
		}
		view.Close()
	}
}

func (r *rig) prepareTxn(k keyspace.TxnKey, t TxnOp) *answer {
	return r.order(OrderOp{Kind: OrderPrepare, Key: k}, &t)
}

func (r *rig) commitTxn(k keyspace.TxnKey, at keyspace.Revision, branch twophase.Branch) *answer {
	return r.order(OrderOp{Kind: OrderCommit, Key: k, At: at, Branch: branch}, nil)
}

// says is what a participant answered, in words.
func (a *answer) says() string {
	switch res := &a.req.Order.Result; {
	case !a.done:
		return "nothing yet"
	case a.req.Err != nil:
		return string(fault.CodeOf(a.req.Err))
	case res.Expired:
		return "expired"
	default:
		words := []string{[]string{"unknown", "prepared", "committed", "aborted"}[res.State]}
		if res.State == twophase.Prepared {
			words = append(words, fmt.Sprint(res.Holds, res.ThenPossible, res.OtherwisePossible))
		}
		if res.State == twophase.Aborted {
			words = append(words, []string{"", "conflict", "poisoned", "ordered", "elsewhere"}[res.Cause])
		}
		return strings.Join(words, " ")
	}
}

func (a *answer) mustSay(t *testing.T, want string) {
	t.Helper()
	if got := a.says(); got != want {
		t.Fatalf("the participant says %q, want %q (%v)", got, want, a.req.Err)
	}
}

// state is the newest version of a key: "version:value", or "none".
func (r *rig) state(key string) string {
	r.t.Helper()
	view := r.store.View()
	defer view.Close()
	value, rev, ok, err := view.Get(7, keyspace.AppendDataKey(nil, 1, []byte(key)), keyspace.MaxRevision)
	if err != nil {
		r.t.Fatal(err)
	}
	if !ok {
		return "none"
	}
	rec, err := format.DecodeRecord(value, rev)
	switch {
	case err != nil:
		r.t.Fatal(err)
	case rec.Flags&format.FlagTombstone != 0:
		return "none"
	}
	return fmt.Sprintf("%d:%s", rec.Version, rec.Value)
}

// locks tells how many transactions are prepared, applied and in log order.
func (r *rig) mustHold(applied, evaluated int) {
	r.t.Helper()
	if a, e := len(r.core.state.Prepared), len(r.core.lead.locks.prepared); a != applied || e != evaluated {
		r.t.Fatalf("%d prepared in the state and %d in log order, want %d and %d", a, e, applied, evaluated)
	}
	if evaluated == 0 && (len(r.core.lead.locks.keys) != 0 || r.core.lead.locks.bytes != 0) {
		r.t.Fatalf("locks of nobody: %v, %d bytes", r.core.lead.locks.keys, r.core.lead.locks.bytes)
	}
}

// every participant's step in every state: what it says, and whether it makes an
// entry. Steps before the last one are there to get to the state.
func TestOrders(t *testing.T) {
	for script, want := range map[string]string{
		"prepare":                                "prepared true true true, entry",
		"prepare prepare":                        "prepared true true true",
		"query":                                  "unknown",
		"prepare query":                          "prepared true true true",
		"refuse":                                 "aborted conflict, entry",
		"refuse refuse":                          "aborted conflict",
		"refuse prepare":                         "aborted conflict",
		"prepare refuse":                         "prepared true true true",
		"poison":                                 "aborted poisoned, entry",
		"poison prepare":                         "aborted poisoned",
		"prepare poison":                         "prepared true true true",
		"abort":                                  "aborted ordered, entry",
		"abort prepare":                          "aborted ordered",
		"prepare abort":                          "aborted ordered, entry",
		"prepare abort abort":                    "aborted ordered",
		"prepare abort commit":                   "failed_precondition",
		"commit":                                 "failed_precondition",
		"prepare commit":                         "committed, entry",
		"prepare commit commit":                  "committed",
		"prepare commit poison":                  "committed",
		"prepare commit abort":                   "committed",
		"prepare commit prepare":                 "committed",
		"prepare commit later":                   "failed_precondition",
		"prepare early":                          "failed_precondition",
		"prepare otherwise":                      "committed, entry",
		"prepare nothing":                        "committed, entry",
		"prepare commit nothing":                 "failed_precondition",
		"poison commit":                          "failed_precondition",
		"raise prepare":                          "expired",
		"raise poison":                           "expired",
		"raise refuse":                           "expired",
		"raise abort":                            "expired",
		"raise query":                            "expired",
		"raise commit":                           "expired",
		"prepare raise query":                    "prepared true true true",
		"prepare raise commit":                   "committed, entry",
		"prepare commit raise query":             "committed",
		"prepare commit raise forget query":      "expired",
		"prepare raise forget query":             "prepared true true true",
		"prepare commit forget query":            "committed",
		"prepare commit raise forget prepare":    "expired",
		"refuse raise forget commit":             "expired",
		"prepare flush commit":                   "committed, entry",
		"prepare commit flush raise query":       "committed",
		"prepare lead commit":                    "committed, entry",
		"prepare commit lead flush prepare":      "committed",
		"prepare lead flush lead abort":          "aborted ordered, entry",
		"prepare commit raise lead forget query": "expired",
	} {
		t.Run(script, func(t *testing.T) {
			r := newRig(t)
			r.elect()
			r.submit(put("a", "a"))
			r.settle()
			r.now.Physical += 5
			var a *answer
			made := false
			for _, step := range strings.Fields(script) {
				before := r.index
				if next := r.orderStep(step); next != nil {
					a = next
				}
				made = r.index > before
			}
			got := a.says()
			if made && a.req.Err == nil {
				got += ", entry"
			}
			if got != want {
				t.Fatalf("%s, want %s (%v)", got, want, a.req.Err)
			}
			state := a.req.Order.Result.State
			if a.req.Err != nil {
				return
			}
			if held := state == twophase.Prepared; held != (len(r.core.state.Prepared) == 1) || held != (len(r.core.lead.locks.prepared) == 1) {
				t.Fatalf("it is %v, and the state has %v", state, r.core.state.Prepared)
			}
		})
	}
}

// orderStep takes a step of TestOrders.
func (r *rig) orderStep(name string) (a *answer) {
	k := aTxn(1)
	stamp := keyspace.Revision(0)
	for _, p := range r.core.state.Prepared {
		stamp = p.Stamp
	}
	if stamp == 0 {
		if rec := r.record(k); rec.At != 0 {
			stamp = rec.At - 9
		}
	}
	switch name {
	case "prepare":
		a = r.prepareTxn(k, TxnOp{Then: []Op{put("a", "2")}, Otherwise: []Op{del("a")}})
	case "commit":
		a = r.commitTxn(k, stamp+9, twophase.Then)
	case "later":
		a = r.commitTxn(k, stamp+10, twophase.Then)
	case "early":
		a = r.commitTxn(k, stamp-1, twophase.Then)
	case "otherwise":
		a = r.commitTxn(k, stamp+9, twophase.Otherwise)
	case "nothing":
		a = r.commitTxn(k, stamp+9, twophase.Nothing)
	case "raise":
		r.low(k.ID.Created)
	case "forget":
		r.enqueue(&answer{req: &Request{Group: 1, Forget: &ForgetOp{Keys: []keyspace.TxnKey{k}}}})
	case "flush":
		r.flush()
	case "lead":
		r.elect()
		r.now.Mono += time.Minute
	default:
		a = r.order(OrderOp{Kind: map[string]OrderKind{"refuse": OrderRefuse, "poison": OrderPoison, "query": OrderQuery, "abort": OrderAbort}[name], Key: k}, nil)
	}
	r.settle()
	return a
}

func (r *rig) low(raise keyspace.Revision) *answer {
	return r.enqueue(&answer{req: &Request{Group: 1, Low: &LowOp{Raise: raise}}})
}

// record is what is stored of a participant.
func (r *rig) record(k keyspace.TxnKey) format.TxnRecord {
	r.t.Helper()
	op := Op{}
	op.nameRecord(k)
	r.fetchAll(&Request{Order: &OrderOp{Key: k}})
	view := r.store.View()
	defer view.Close()
	value, rev, ok, err := view.Get(7, op.DiskKey(), keyspace.MaxRevision)
	if !ok || err != nil {
		return format.TxnRecord{}
	}
	stored, err := format.DecodeRecord(value, rev)
	if err != nil {
		r.t.Fatal(err)
	}
	rec, err := format.DecodeTxnRecord(stored.Value)
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

// A Prepare judges checks and the conditions of both lists at one time, and says
// what each operation would come to. What is written by the commit has its revision,
// which may lie above and below those that the group gives meanwhile.
func TestPreparedListsAreWrittenByTheCommit(t *testing.T) {
	failing := put("b", "x")
	failing.Condition = atVersion(7)
	ttl := put("b", "ttl")
	ttl.TTL = time.Second
	until := put("b", "until")
	until.ExpiresAt = wall + 60_000
	for name, c := range map[string]struct {
		txn    TxnOp
		says   string
		then   string
		branch twophase.Branch
		a, b   string
	}{
		"then":                    {TxnOp{Then: []Op{put("a", "2"), put("b", "1"), read("a")}, Otherwise: []Op{del("a")}}, "true true true", "put:2 put:1 read:1", twophase.Then, "2:2", "1:1"},
		"otherwise":               {TxnOp{Then: []Op{put("a", "2"), put("b", "1"), read("a")}, Otherwise: []Op{del("a")}}, "true true true", "put:2 put:1 read:1", twophase.Otherwise, "none", "none"},
		"nothing":                 {TxnOp{Then: []Op{put("a", "2")}}, "true true true", "put:2", twophase.Nothing, "1:a", "none"},
		"a check does not hold":   {TxnOp{Checks: []Op{check("a", atVersion(9))}, Then: []Op{put("a", "2")}, Otherwise: []Op{put("b", "o")}}, "false true true", "put:2", twophase.Otherwise, "1:a", "1:o"},
		"a condition of then":     {TxnOp{Then: []Op{put("a", "2"), failing}, Otherwise: []Op{put("b", "o")}}, "true false true", "batch_aborted condition_failed", twophase.Nothing, "1:a", "none"},
		"of then, otherwise":      {TxnOp{Then: []Op{failing}, Otherwise: []Op{put("b", "o")}}, "true false true", "condition_failed", twophase.Otherwise, "1:a", "1:o"},
		"a condition of the rest": {TxnOp{Then: []Op{put("a", "2")}, Otherwise: []Op{failing}}, "true true false", "put:2", twophase.Then, "2:2", "none"},
		"delete of what is not":   {TxnOp{Then: []Op{del("b"), put("a", "2")}}, "true true true", "del:false put:2", twophase.Then, "2:2", "none"},
		"a time to live":          {TxnOp{Then: []Op{ttl}}, "true true true", "put:1", twophase.Then, "1:a", "1:ttl"},
		"a deadline":              {TxnOp{Then: []Op{until}}, "true true true", "put:1", twophase.Then, "1:a", "1:until"},
		"reads only":              {TxnOp{Checks: []Op{check("b", atVersion(0))}, Then: []Op{read("a")}}, "true true true", "read:1", twophase.Then, "1:a", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.elect()
			r.submit(put("a", "a"))
			p := r.prepareTxn(aTxn(1), c.txn)
			r.evaluate()
			p.mustBe(t, false, "") // nothing is said before it is applied
			r.mustHold(0, 1)
			r.settle()
			p.mustSay(t, "prepared "+c.says)
			p.req.Ops = p.req.Txn.Then
			if _, got, _ := strings.Cut(p.outcomes(), " "); got != c.then {
				t.Fatalf("then is %s, want %s", got, c.then)
			}
			again := r.prepareTxn(aTxn(1), c.txn)
			r.settle()
			if !reflect.DeepEqual(again.req.Order.Result, p.req.Order.Result) {
				t.Fatalf("asked again it says %+v, before %+v", again.req.Order.Result, p.req.Order.Result)
			}
			stamp := p.req.Order.Result.Stamp
			r.submit(put("other", "1"))
			r.settle()
			if newest := r.core.state.LastRev; r.core.Settled() != stamp-1 || r.core.Closed() >= stamp || newest <= stamp {
				t.Fatalf("settled up to %v, closed to %v, prepared at %v, newest %v", r.core.Settled(), r.core.Closed(), stamp, newest)
			}
			at := stamp + keyspace.RevisionAt(250)
			done := r.commitTxn(aTxn(1), at, c.branch)
			r.settle()
			done.mustSay(t, "committed")
			r.mustHold(0, 0)
			if a, b := r.state("a"), r.state("b"); a != c.a || b != c.b {
				t.Fatalf("a is %s and b is %s, want %s and %s", a, b, c.a, c.b)
			}
			if r.core.Settled() < at || r.core.Clock() <= at {
				t.Fatalf("settled up to %v at clock %v, committed at %v", r.core.Settled(), r.core.Clock(), at)
			}
			r.mustHaveRevisions(c.txn, c.branch, at)
		})
	}
}

// mustHaveRevisions looks at what a commit wrote of b.
func (r *rig) mustHaveRevisions(txn TxnOp, branch twophase.Branch, at keyspace.Revision) {
	r.t.Helper()
	ops := map[twophase.Branch][]Op{twophase.Then: txn.Then, twophase.Otherwise: txn.Otherwise}[branch]
	for i := range ops {
		op := &ops[i]
		value, rev, _, ok := r.store.Latest(7, op.DiskKey())
		if op.Read || !ok || op.Delete {
			continue
		}
		h, err := format.DecodeHeader(value, rev)
		if err != nil {
			r.t.Fatal(err)
		}
		expires := op.ExpiresAt
		if op.TTL > 0 {
			expires = at.UnixMilli() + op.TTL.Milliseconds()
		}
		if rev != at || h.Expires != expires || h.Version == 1 && h.Created != at || h.Version > 1 && h.Created >= at {
			r.t.Fatalf("%s is at %v (commit %v), created %v, expires %d", op.Key, rev, at, h.Created, h.Expires)
		}
	}
}

// Who meets whose locks, applied or in flight: another Prepare is refused for good.
func TestLocksRefusePrepares(t *testing.T) {
	holder := TxnOp{Checks: []Op{check("c", atVersion(0))}, Then: []Op{put("x", "1"), read("s")}, Otherwise: []Op{del("o")}}
	for name, c := range map[string]struct {
		txn  TxnOp
		want string
	}{
		"writes what is written":             {TxnOp{Then: []Op{put("x", "2")}}, "aborted conflict"},
		"reads what is written":              {TxnOp{Then: []Op{read("x")}}, "aborted conflict"},
		"checks what is written":             {TxnOp{Checks: []Op{check("x", atVersion(0))}}, "aborted conflict"},
		"writes what the other list deletes": {TxnOp{Otherwise: []Op{put("o", "2")}}, "aborted conflict"},
		"writes what is read":                {TxnOp{Then: []Op{put("s", "2")}}, "aborted conflict"},
		"writes what is checked":             {TxnOp{Then: []Op{put("c", "2")}}, "aborted conflict"},
		"reads what is read":                 {TxnOp{Then: []Op{read("s"), read("c")}}, "prepared true true true"},
		"checks what is checked":             {TxnOp{Checks: []Op{check("c", atVersion(0))}}, "prepared true true true"},
		"other keys":                         {TxnOp{Then: []Op{put("y", "2")}}, "prepared true true true"},
	} {
		for _, inFlight := range []bool{false, true} {
			t.Run(fmt.Sprint(name, inFlight), func(t *testing.T) {
				r := newRig(t)
				r.core.cfg.MaxQueueOps = 100
				var blocked []*format.Prepared
				r.core.cfg.Blocked = func(p *format.Prepared) { blocked = append(blocked, p) }
				r.elect()
				r.prepareTxn(aTxn(1), holder)
				if !inFlight {
					r.settle()
				}
				a := r.prepareTxn(aTxn(2), c.txn)
				r.settle()
				a.mustSay(t, c.want)
				if conflict := strings.HasPrefix(c.want, "aborted"); conflict != (len(blocked) == 1) || conflict && blocked[0].Key != aTxn(1) {
					t.Fatalf("told that %v stand in the way", blocked)
				}
				// What was refused stays so when the lock is gone.
				r.order(OrderOp{Kind: OrderAbort, Key: aTxn(1)}, nil)
				r.settle()
				a = r.prepareTxn(aTxn(2), c.txn)
				r.settle()
				a.mustSay(t, c.want)
			})
		}
	}
}

// DESIGN 4: what raft dropped never was: the locks, the end of locks, the mark.
func TestDroppedStepsOfTransactions(t *testing.T) {
	r := newRig(t)
	r.elect()
	p := r.prepareTxn(aTxn(1), TxnOp{Then: []Op{put("k", "1")}})
	w := r.submit(put("k", "2"))
	r.core.Evaluate(r.now)
	r.mustHold(0, 1)
	r.core.Dropped()
	r.mustHold(0, 0)
	if got := len(r.core.queue.items); got != 2 || r.core.queue.items[0] != p.req {
		t.Fatalf("%d requests wait", got)
	}
	r.settle()
	p.mustSay(t, "prepared true true true")
	w.mustBe(t, false, "")
	r.mustHold(1, 1)

	c := r.commitTxn(aTxn(1), p.req.Order.Result.Stamp, twophase.Then)
	low := r.low(keyspace.RevisionAt(wall - 5000))
	r.core.Evaluate(r.now)
	r.mustHold(1, 0)
	r.core.Dropped()
	r.mustHold(1, 1)
	if r.core.lead.low != 0 {
		t.Fatalf("the mark is %v", r.core.lead.low)
	}
	r.settle()
	c.mustSay(t, "committed")
	low.mustBe(t, true, "")
	w.mustBe(t, true, "")
	if got := r.state("k"); got != "2:2" || r.core.state.LowWater != keyspace.RevisionAt(wall-5000) {
		t.Fatalf("k is %s, the mark %v", got, r.core.state.LowWater)
	}
}

// Locks are state: they are there for the next leader, and what was in flight is not.
func TestLocksOutliveTheTerm(t *testing.T) {
	r := newRig(t)
	r.elect()
	p := r.prepareTxn(aTxn(1), TxnOp{Then: []Op{put("k", "1")}})
	r.settle()
	lost := r.prepareTxn(aTxn(2), TxnOp{Then: []Op{put("j", "1")}})
	w := r.submit(put("k", "2"))
	r.evaluate()
	r.mustHold(1, 2)
	r.elect()
	r.now.Mono += time.Minute
	r.mustHold(1, 1)
	lost.mustBe(t, true, fault.UnknownOutcome)
	w.mustBe(t, true, fault.Unavailable)
	q := r.order(OrderOp{Kind: OrderQuery, Key: aTxn(2)}, nil)
	r.submit(put("j", "3")).mustBe(t, false, "")
	r.settle()
	q.mustSay(t, "unknown")
	if got := r.state("j"); got != "1:3" {
		t.Fatal(got)
	}
	if closed, _ := r.core.CloseIdle(r.now); closed >= p.req.Order.Result.Stamp {
		t.Fatalf("closed %v over a transaction prepared at %v", closed, p.req.Order.Result.Stamp)
	}
	clock := r.enqueue(&answer{req: &Request{Group: 1, Clock: &ClockOp{}}})
	r.settle()
	clock.mustBe(t, true, "")
	if r.core.Closed() >= p.req.Order.Result.Stamp {
		t.Fatalf("a reading of the clock closed %v", r.core.Closed())
	}
	r.commitTxn(aTxn(1), p.req.Order.Result.Stamp, twophase.Then) // the least there is
	r.settle()
	if got := r.state("k"); got != "1:1" {
		t.Fatal(got)
	}
}

// Large values go ahead of the Prepare that claims them, of both lists; the chunks of
// what is not taken, and of what is replaced, go with the end.
func TestChunksOfTransactions(t *testing.T) {
	large := strings.Repeat("x", 350)
	for _, branch := range []twophase.Branch{twophase.Then, twophase.Otherwise, twophase.Nothing, twophase.NoBranch} {
		t.Run(fmt.Sprint(branch), func(t *testing.T) {
			r := newRig(t)
			r.core.cfg.MaxQueueOps = 100
			r.elect()
			r.submit(put("k", large))
			r.settle()
			p := r.prepareTxn(aTxn(1), TxnOp{Then: []Op{put("k", large+"t"), put("t", large)}, Otherwise: []Op{put("k", large+"o"), put("o", large)}})
			r.settle()
			p.mustSay(t, "prepared true true true")
			if left := r.core.state.Uploads; len(left) != 0 {
				t.Fatalf("nobody claimed %v", left)
			}
			if branch == twophase.NoBranch {
				r.order(OrderOp{Kind: OrderAbort, Key: aTxn(1)}, nil)
			} else {
				r.commitTxn(aTxn(1), p.req.Order.Result.Stamp+5, branch)
			}
			r.settle()
			r.mustHaveChunks("k")
			want := 4
			switch branch {
			case twophase.Then:
				r.mustHaveChunks("t")
				want = 8
			case twophase.Otherwise:
				r.mustHaveChunks("o")
				want = 8
			case twophase.Nothing, twophase.NoBranch:
			}
			if got := r.countChunks(); got != want {
				t.Fatalf("%d chunks are stored, want %d", got, want)
			}
		})
	}
}

func (r *rig) countChunks() (n int) {
	view := r.store.View()
	defer view.Close()
	for ms := int64(wall); ms < wall+10; ms++ {
		for count := range keyspace.Revision(20) {
			for chunk := range uint32(5) {
				if _, _, ok, _ := view.Get(7, keyspace.AppendChunkKey(nil, keyspace.RevisionAt(ms)+count, chunk), keyspace.MaxRevision); ok {
					n++
				}
			}
		}
	}
	return n
}

// What a participant refuses without a trace, because nothing is decided by it.
func TestOrdersThatAreRefused(t *testing.T) {
	txn := func() *TxnOp { return &TxnOp{Then: []Op{put("k", "1")}} }
	future := aTxn(1)
	future.ID.Created += keyspace.RevisionAt(61_000)
	for name, c := range map[string]struct {
		o    OrderOp
		t    *TxnOp
		want fault.Code
	}{
		"no kind":            {OrderOp{Key: aTxn(1)}, txn(), fault.InvalidArgument},
		"no such kind":       {OrderOp{Key: aTxn(1), Kind: 99}, txn(), fault.InvalidArgument},
		"no id":              {OrderOp{Kind: OrderPoison}, nil, fault.InvalidArgument},
		"one participant":    {OrderOp{Kind: OrderPoison, Key: aTxn(1), Participants: []keyspace.SlotID{40}}, nil, fault.InvalidArgument},
		"others participate": {OrderOp{Kind: OrderPoison, Key: aTxn(1), Participants: []keyspace.SlotID{1, 2}}, nil, fault.InvalidArgument},
		"no operations":      {OrderOp{Kind: OrderPrepare, Key: aTxn(1)}, nil, fault.InvalidArgument},
		"no branch":          {OrderOp{Kind: OrderCommit, Key: aTxn(1), At: 5}, nil, fault.InvalidArgument},
		"no revision":        {OrderOp{Kind: OrderCommit, Key: aTxn(1), Branch: twophase.Then}, nil, fault.InvalidArgument},
		"from the future":    {OrderOp{Kind: OrderPrepare, Key: future}, txn(), fault.OutOfRange},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.elect()
			before := r.index
			a := r.order(c.o, c.t)
			r.settle()
			a.mustBe(t, true, c.want)
			if r.index != before {
				t.Fatal("an entry was made")
			}
		})
	}
	r := newRig(t)
	r.elect()
	low := r.low(keyspace.RevisionAt(wall + 10_000))
	r.settle()
	low.mustBe(t, true, fault.InvalidArgument)
}

// The mark is raised in log order, and what is prepared is told of the same moment.
func TestLowWater(t *testing.T) {
	r := newRig(t)
	r.elect()
	none := r.low(0)
	r.settle()
	old := aTxn(1)
	old.ID.Created = keyspace.RevisionAt(wall - 3000)
	r.prepareTxn(old, TxnOp{Then: []Op{put("k", "1")}})
	raised := r.low(keyspace.RevisionAt(wall - 2000))
	late := aTxn(2)
	late.ID.Created = keyspace.RevisionAt(wall - 2000)
	refused := r.prepareTxn(late, TxnOp{Then: []Op{put("j", "1")}})
	r.evaluate()
	raised.mustBe(t, false, "")
	r.settle()
	for _, a := range []*answer{none, raised} {
		a.mustBe(t, true, "")
	}
	refused.mustSay(t, "expired")
	if none.req.Low.Oldest != keyspace.MaxRevision || raised.req.Low.Oldest != old.ID.Created || raised.req.Low.LowWater != late.ID.Created {
		t.Fatalf("told %+v, then %+v", none.req.Low, raised.req.Low)
	}
	lower := r.low(keyspace.RevisionAt(wall - 9000))
	r.settle()
	if lower.req.Low.LowWater != late.ID.Created || r.core.state.LowWater != late.ID.Created {
		t.Fatalf("lowered to %+v", lower.req.Low)
	}
}
