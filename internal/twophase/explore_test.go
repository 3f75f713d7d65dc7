package twophase

import (
	"fmt"
	"math/bits"
	"testing"
)

// The exploration goes through every state that small systems can reach: some
// transactions, attempts and participants, of which the last one moves from one
// group to another.
//
// Transactions meet in locks only. A system of one transaction in which a
// participant may find any lock taken therefore has every behaviour that one
// transaction can have among any number of others; systems of two, in which locks
// are what they are, are there to see that it is not too many.
//
// Messages are never lost for good and never used up: a request may arrive at any
// time and any number of times, and what was answered once may be acted upon for
// ever, by anybody. That is duplication, delay, reordering and every crash of a
// coordinator at once, since a coordinator knows nothing but answers. A
// participant's step is one entry of its group's log, so that a crash of a leader is
// a step that did not happen or an answer that was not sent.

// The largest dimensions of a system.
const (
	maxTxns     = 2
	maxAttempts = 2
	maxParts    = 3
)

// system is what is explored.
type system struct {
	txns, attempts, parts int
	// anyConflict: locks may be taken by transactions that are not looked at.
	anyConflict bool
	// moves: the last participant may change its group. ages: low-water marks rise,
	// and records are dropped.
	moves, ages bool
	// conditions: those of a list's operations may not hold.
	conditions bool
	// staged: before it drops records a participant asks each participant for what is
	// prepared, itself first; else it sees the state of all at once.
	staged bool
}

// ways an answer can be, as bits.
const (
	saidHeld   uint16 = 1 << iota // prepared, checks held
	saidNot                       // prepared, they did not
	saidNoThen                    // prepared, checks held, but not the conditions of that list
	saidNone                      // prepared, neither checks held nor conditions of a list
	saidThen                      // committed
	saidElse
	saidNothing
	saidConflict
	saidPoisoned
	saidOrdered
	saidExpired
)

const (
	saidPrepared  = saidHeld | saidNot | saidNoThen | saidNone
	saidCommitted = saidThen | saidElse | saidNothing
	saidAborted   = saidConflict | saidPoisoned | saidOrdered
)

// what a client may have been told, as bits.
const (
	toldThen uint8 = 1 << iota
	toldElse
	toldNothing
	toldAborted
	toldExpired
)

// orders that exist, as bits.
const (
	orderThen uint8 = 1 << iota
	orderElse
	orderNothing
	orderAbort
	orderExpired // abort because somebody had forgotten

	orderCommit = orderThen | orderElse | orderNothing
)

// commits are the branches with what stands for them.
var commits = []struct {
	branch Branch
	said   uint16
	order  uint8
	told   uint8
}{
	{Then, saidThen, orderThen, toldThen},
	{Otherwise, saidElse, orderElse, toldElse},
	{Nothing, saidNothing, orderNothing, toldNothing},
}

// place of the mover's slot.
const (
	atOld uint8 = iota
	copied
	frozen
	gone
	atNew
)

// world is one state.
type world struct {
	record [maxTxns][maxAttempts][maxParts]uint16 // as bits of said, 0 for none
	said   [maxTxns][maxAttempts][maxParts]uint16
	orders [maxTxns][maxAttempts]uint8
	told   [maxTxns]uint8
	again  [maxTxns]bool   // the second attempt was started
	low    [maxParts]uint8 // transactions below the low-water mark
	place  uint8
	// asked are the participants that told a participant, as bits, that they have
	// nothing prepared of a transaction.
	asked [maxTxns][maxParts]uint8
	// image is what a planted bug copies before the freeze.
	image [maxTxns][maxAttempts]uint16
}

// flaw is a planted mistake; the exploration must find each.
type flaw uint8

const (
	noFlaw flaw = iota
	flawVolatileNo
	flawPoisonAbortsPrepared
	flawCollectEarly
	flawPrepareBelowLow
	flawAgainUnheard
	flawPrepareFrozen
	flawLowStays
	flawExpiredIsAborted
	flawConflictAnswered
	flawConditionsIgnored
	flawOwnAskedLast
)

// records are what the bits of said stand for.
var records = func() (out [11]Record) {
	for i := range out {
		out[i] = recordOf(1 << i)
	}
	return out
}()

func recordOf(bit uint16) Record {
	switch bit {
	case saidHeld, saidNot, saidNoThen, saidNone:
		return Record{State: Prepared, Stamp: 11, Holds: bit == saidHeld || bit == saidNoThen,
			ThenPossible: bit == saidHeld || bit == saidNot, OtherwisePossible: bit != saidNone}
	case saidConflict:
		return Record{State: Aborted, Cause: Conflict}
	case saidPoisoned:
		return Record{State: Aborted, Cause: Poisoned}
	case saidOrdered:
		return Record{State: Aborted, Cause: Ordered}
	}
	for _, c := range commits {
		if bit == c.said {
			return Record{State: Committed, At: 11, Branch: c.branch}
		}
	}
	return Record{}
}

func decode(bit uint16) Record {
	if bit == 0 {
		return Record{}
	}
	return records[bits.TrailingZeros16(bit)]
}

func encode(r Record) uint16 {
	if r.State == Unknown {
		return 0
	}
	for i := range records {
		if records[i] == r {
			return 1 << i
		}
	}
	return 0
}

func answerOf(bit uint16) Answer {
	if bit == saidExpired {
		return Answer{Expired: true}
	}
	return Answer{Record: decode(bit)}
}

func bitOf(a Answer) uint16 {
	if a.Expired {
		return saidExpired
	}
	return encode(a.Record)
}

// explorer visits states.
type explorer struct {
	system
	flaw  flaw
	seen  map[world]struct{}
	queue []world
	bad   string
}

func (x *explorer) visit(w world) {
	if _, ok := x.seen[w]; ok || x.bad != "" {
		return
	}
	x.seen[w] = struct{}{}
	x.queue = append(x.queue, w)
	x.bad = w.broken()
}

// broken names the property that a state breaks.
func (w *world) broken() string {
	for t := range maxTxns {
		committed := 0
		for a := range maxAttempts {
			all := uint16(0)
			for p := range maxParts {
				all |= w.record[t][a][p] | w.said[t][a][p]
			}
			done, ordered := all&saidCommitted, w.orders[t][a]&orderCommit
			switch {
			case done != 0 && all&saidAborted != 0:
				return fmt.Sprintf("transaction %d attempt %d is committed and aborted", t, a)
			case done&(done-1) != 0:
				return fmt.Sprintf("transaction %d attempt %d took two branches", t, a)
			case ordered != 0 && w.orders[t][a]&orderAbort != 0:
				return fmt.Sprintf("transaction %d attempt %d is ordered to commit and to abort", t, a)
			}
			if done != 0 || ordered != 0 {
				committed++
			}
		}
		if committed > 1 {
			return fmt.Sprintf("transaction %d happened twice", t)
		}
		if told := w.told[t] &^ toldExpired; told&(told-1) != 0 {
			return fmt.Sprintf("transaction %d was answered in two ways: %04b", t, told)
		}
		if committed > 0 && w.told[t]&toldAborted != 0 {
			return fmt.Sprintf("transaction %d happened and was answered as aborted", t)
		}
	}
	return ""
}

// reachable reports whether orders of a participant are taken, prepares among
// them.
func (x *explorer) reachable(w *world, p int, prepare bool) bool {
	if p != x.parts-1 {
		return true
	}
	switch w.place {
	case gone:
		return false
	case frozen:
		return !prepare || x.flaw == flawPrepareFrozen
	}
	return true
}

func (w *world) expired(t, p int) bool { return t < int(w.low[p]) }

// locked reports whether another attempt is prepared at a participant: all write
// the same key.
func (w *world) locked(t, a, p int) bool {
	for ot := range maxTxns {
		for oa := range maxAttempts {
			if (ot != t || oa != a) && w.record[ot][oa][p]&saidPrepared != 0 {
				return true
			}
		}
	}
	return false
}

// step visits what follows from a participant's step.
func (x *explorer) step(w world, t, a, p int, next Record, ans Answer) {
	w.record[t][a][p] = encode(next)
	w.said[t][a][p] |= bitOf(ans)
	x.visit(w)
}

func (x *explorer) expand(w world) {
	for t := range x.txns {
		for a := range x.attempts {
			if a > 0 && !w.again[t] {
				continue
			}
			for p := range x.parts {
				x.arrive(w, t, a, p)
				x.collect(w, t, a, p)
			}
			x.conclude(w, t, a)
		}
	}
	if x.moves {
		x.move(w)
	}
	for p := range x.parts {
		if x.ages && int(w.low[p]) < x.txns && x.reachable(&w, p, false) {
			next := w
			next.low[p]++
			x.visit(next)
		}
	}
}

// arrive delivers what may arrive at one participant.
func (x *explorer) arrive(w world, t, a, p int) {
	cur, expired := decode(w.record[t][a][p]), w.expired(t, p)
	if x.reachable(&w, p, true) {
		for _, v := range x.verdicts(&w, t, a, p) {
			next, ans := Prepare(cur, expired && x.flaw != flawPrepareBelowLow, v)
			if x.flaw == flawVolatileNo && cur.State == Unknown && next.State == Aborted {
				next = Record{}
			}
			x.step(w, t, a, p, next, ans)
		}
	}
	if !x.reachable(&w, p, false) {
		return
	}
	next, ans := Poison(cur, expired)
	if x.flaw == flawPoisonAbortsPrepared && cur.State == Prepared {
		next = Record{State: Aborted, Cause: Poisoned}
		ans = Answer{Record: next}
	}
	x.step(w, t, a, p, next, ans)
	orders := w.orders[t][a]
	for _, c := range commits {
		if orders&c.order != 0 {
			x.safely(func() {
				next, ans := Commit(cur, expired, 11, c.branch)
				x.step(w, t, a, p, next, ans)
			})
		}
	}
	if orders&(orderAbort|orderExpired) != 0 {
		next, ans := Abort(cur, expired)
		x.step(w, t, a, p, next, ans)
	}
}

// verdicts are the ways in which a participant may judge a Prepare.
func (x *explorer) verdicts(w *world, t, a, p int) []Verdict {
	if w.locked(t, a, p) {
		return []Verdict{{Conflict: true}}
	}
	out := []Verdict{{Stamp: 11, Holds: true, ThenPossible: true, OtherwisePossible: true}, {Stamp: 11, ThenPossible: true, OtherwisePossible: true}}
	if x.conditions {
		out = append(out, Verdict{Stamp: 11, Holds: true, OtherwisePossible: true}, Verdict{Stamp: 11})
	}
	if x.anyConflict {
		out = append(out, Verdict{Conflict: true})
	}
	return out
}

// safely turns a broken invariant of the protocol's functions into a finding.
func (x *explorer) safely(f func()) {
	defer func() {
		if r := recover(); r != nil && x.bad == "" {
			x.bad = fmt.Sprint(r)
		}
	}()
	f()
}

// collect drops a record.
func (x *explorer) collect(w world, t, a, p int) {
	if !w.expired(t, p) || !x.reachable(&w, p, false) {
		return
	}
	if x.staged {
		x.askAll(w, t, p)
	}
	if !decode(w.record[t][a][p]).State.Final() {
		return
	}
	if x.staged {
		if w.asked[t][p] == 1<<x.parts-1 {
			w.record[t][a][p] = 0
			x.visit(w)
		}
		return
	}
	for q := range x.parts {
		state := decode(w.record[t][a][q]).State
		if x.flaw != flawCollectEarly && !state.Final() && (state == Prepared || !w.expired(t, q)) {
			return
		}
	}
	w.record[t][a][p] = 0
	x.visit(w)
}

// askAll asks one participant more whether it has anything prepared of a transaction.
func (x *explorer) askAll(w world, t, p int) {
	for q := range x.parts {
		if q != p && w.asked[t][p]&(1<<p) == 0 && x.flaw != flawOwnAskedLast {
			continue
		}
		held := false
		for a := range x.attempts {
			held = held || w.record[t][a][q]&saidPrepared != 0
		}
		if !held {
			next := w
			next.asked[t][p] |= 1 << q
			x.visit(next)
		}
	}
}

// conclude acts on any answers that were ever given.
func (x *explorer) conclude(w world, t, a int) {
	var each func(answers []Answer)
	each = func(answers []Answer) {
		if p := len(answers); p < x.parts {
			for _, bit := range choices(w.said[t][a][p]) {
				each(append(answers[:p:p], answerOf(bit)))
			}
			return
		}
		x.act(w, t, a, Conclude(answers))
	}
	each(nil)
}

// choices are the answers in a set of bits, and silence.
func choices(set uint16) []uint16 {
	out := []uint16{0}
	for b := uint16(1); b <= saidExpired; b <<= 1 {
		if set&b != 0 {
			out = append(out, b)
		}
	}
	return out
}

func (x *explorer) act(w world, t, a int, c Conclusion) {
	switch c.Verb {
	case DoCommit:
		if x.flaw == flawConditionsIgnored && c.Branch == Nothing {
			c.Branch = Then
		}
		for _, o := range commits {
			if o.branch == c.Branch {
				w.orders[t][a] |= o.order
				w.told[t] |= o.told
			}
		}
	case DoAbort:
		if c.Expired {
			w.orders[t][a] |= orderExpired
		} else {
			w.orders[t][a] |= orderAbort
		}
		x.visit(w)
		if a+1 < x.attempts && (c.Again || x.flaw == flawAgainUnheard && !c.Expired) {
			again := w
			again.again[t] = true
			x.visit(again)
		}
		switch {
		case x.flaw == flawConflictAnswered && !c.Expired:
			w.told[t] |= toldAborted
		case !c.Known:
			return
		case c.Expired && x.flaw != flawExpiredIsAborted:
			w.told[t] |= toldExpired
		default:
			w.told[t] |= toldAborted
		}
	default:
		return
	}
	x.visit(w)
}

// move takes the mover's slot one step on, or back.
func (x *explorer) move(w world) {
	next := w
	switch w.place {
	case atOld:
		next.place = frozen
	case frozen:
		back := w
		back.place = atOld
		x.visit(back)
		next.place = gone
	case gone:
		next.place = atNew
		if x.flaw == flawLowStays {
			next.low[x.parts-1] = 0
		}
	default:
		return
	}
	if x.flaw == flawPrepareFrozen {
		x.moveImage(&w, &next)
	}
	x.visit(next)
}

// moveImage is the move whose last copy is taken at the freeze, not when the slot
// is left.
func (x *explorer) moveImage(w, next *world) {
	for t := range x.txns {
		for a := range x.attempts {
			switch next.place {
			case frozen:
				next.image[t][a] = w.record[t][a][x.parts-1]
			case atNew:
				next.record[t][a][x.parts-1], next.image[t][a] = w.image[t][a], 0
			}
		}
	}
}

func explore(s system, f flaw, limit int) *explorer {
	x := &explorer{system: s, flaw: f, seen: make(map[world]struct{})}
	x.visit(world{})
	for len(x.queue) > 0 && x.bad == "" && len(x.seen) < limit {
		w := x.queue[0]
		x.queue = x.queue[1:]
		x.expand(w)
	}
	return x
}

func TestExplore(t *testing.T) {
	for name, s := range map[string]system{
		"one of many, moving":       {txns: 1, attempts: 2, parts: 2, anyConflict: true, moves: true, ages: true},
		"one of many, three parts":  {txns: 1, attempts: 1, parts: 3, anyConflict: true, moves: true, ages: true},
		"conditions of operations":  {txns: 1, attempts: 1, parts: 2, conditions: true, moves: true, ages: true},
		"records dropped in stages": {txns: 1, attempts: 1, parts: 2, anyConflict: true, moves: true, ages: true, staged: true},
		"two, moving":               {txns: 2, attempts: 1, parts: 2, moves: true},
		"two, ageing":               {txns: 2, attempts: 1, parts: 2, ages: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				return // one goroutine, and many states
			}
			const limit = 20_000_000
			x := explore(s, noFlaw, limit)
			t.Logf("%d states", len(x.seen))
			if x.bad != "" {
				t.Fatal(x.bad)
			}
			if len(x.queue) > 0 {
				t.Fatalf("%d states and no end", len(x.seen))
			}
		})
	}
}

func TestExplorationFinds(t *testing.T) {
	if testing.Short() {
		return
	}
	all := system{txns: 1, attempts: 2, parts: 2, anyConflict: true, moves: true, ages: true, conditions: true}
	for name, f := range map[string]flaw{
		"a refusal leaves nothing behind":                            flawVolatileNo,
		"poison aborts what is prepared":                             flawPoisonAbortsPrepared,
		"records are dropped while another participant is not final": flawCollectEarly,
		"prepared below the low-water mark":                          flawPrepareBelowLow,
		"a new attempt before all have answered":                     flawAgainUnheard,
		"prepared while the slot is frozen and copied":               flawPrepareFrozen,
		"the low-water mark does not move with the slot":             flawLowStays,
		"what is forgotten is answered as aborted":                   flawExpiredIsAborted,
		"a conflict is answered at once":                             flawConflictAnswered,
		"a condition of an operation does not count":                 flawConditionsIgnored,
		"whoever drops records asks itself last":                     flawOwnAskedLast,
	} {
		t.Run(name, func(t *testing.T) {
			s := all
			s.staged = f == flawOwnAskedLast
			x := explore(s, f, 5_000_000)
			if x.bad == "" {
				t.Fatalf("not found in %d states", len(x.seen))
			}
			t.Logf("%d states: %s", len(x.seen), x.bad)
		})
	}
}
