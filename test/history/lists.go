package history

import (
	"fmt"
	"slices"
	"strings"
)

// Anomalies of transactions on lists, by Adya's names where there is one.
const (
	// AbortedRead (G1a): what an aborted transaction appended was read.
	AbortedRead = "G1a"
	// IntermediateRead (G1b): a list was read between two appends of one
	// transaction.
	IntermediateRead = "G1b"
	// Internal: a transaction did not see its own appends, or saw a list change.
	Internal = "internal"
	// Duplicate: an element is in a list twice.
	Duplicate = "duplicate append"
	// Garbage: an element was read that nobody appended.
	Garbage = "garbage"
	// Incompatible: of two lists that were read of a key none begins with the other.
	Incompatible = "incompatible orders"
	// Cycles of dependencies: of writes alone, of writes and reads, with one
	// anti-dependency, with several.
	WriteCycle       = "G0"
	CircularFlow     = "G1c"
	SingleAntiCycle  = "G-single"
	AntiCycle        = "G2"
	realtimeSuffix   = "-realtime" // of a cycle that needs real time
	MalformedHistory = "malformed history"
)

// ListTxn is a transaction that reads and appends to lists.
//
// The order of a list tells the order of the transactions that wrote it, and a
// read tells which of them it saw: so a history of such transactions has few
// explanations, and one pass over a graph judges it (as Elle does, Kingsbury and
// Alvaro 2020), where a search for an order would not end. The graph has a
// transaction as node and an edge from each to those that must come later:
//
//	ww  appended the element behind one of the other's
//	wr  read a list whose last element is the other's
//	rw  read a list to which the other appended the next element
//	rt  had ended when the other began
//
// The store is strictly serializable if, and as far as a history can tell only
// if, the graph has no cycle.
//
// An append to a list that nobody read to that point is after all that was read.
// A transaction of unknown outcome takes part if an element of it was seen: then it
// happened, whole; else it might be at the end of all, and says nothing.
type ListTxn struct {
	Client  int
	Outcome Outcome
	Span
	Ops []ListOp
}

// ListOp is a read, or an append.
type ListOp struct {
	Key string
	// Append is the element, unlike every other of its key; 0 of a read.
	Append int32
	// Read is the whole list that was read. Reads without an answer are left out.
	Read []int32
}

// CheckLists judges a history. Elements start at 1.
func CheckLists(txns []ListTxn) []Violation {
	l := &lists{txns: txns, keys: map[string]*list{}, happened: make([]bool, len(txns))}
	l.collectAppends()
	l.collectReads()
	for _, k := range l.sorted {
		k.judgeOrder(l)
	}
	l.graph = make(graph, len(txns))
	for _, k := range l.sorted {
		k.addEdges(l)
	}
	l.addRealTime()
	l.findCycles()
	return l.found
}

type lists struct {
	violations
	txns     []ListTxn
	happened []bool // committed, or unknown and seen
	keys     map[string]*list
	sorted   []*list
	graph    graph
}

// list is what is known of one key.
type list struct {
	id     int32
	name   string
	writes map[int32]listWrite
	reads  []listRead
	// order is the longest list that was read; broken when there is no order.
	order  []int32
	broken bool
}

type listWrite struct {
	txn  int32
	last bool // of its transaction
}

// listRead is a list as a transaction found it, without its own appends.
type listRead struct {
	txn  int32
	seen []int32
}

func (l *lists) list(key string) *list {
	k := l.keys[key]
	if k == nil {
		k = &list{id: int32(len(l.sorted)), name: key, writes: map[int32]listWrite{}}
		l.keys[key], l.sorted = k, append(l.sorted, k)
	}
	return k
}

// collectAppends notes who appended what.
func (l *lists) collectAppends() {
	for i, t := range l.txns {
		for j, op := range t.Ops {
			k := l.list(op.Key)
			if op.Append == 0 {
				continue
			}
			if w, again := k.writes[op.Append]; again {
				l.add(MalformedHistory, "T%d and T%d both append %d to %s", w.txn, i, op.Append, op.Key)
			}
			last := !slices.ContainsFunc(t.Ops[j+1:], func(o ListOp) bool { return o.Key == op.Key && o.Append != 0 })
			k.writes[op.Append] = listWrite{int32(i), last}
		}
	}
}

// collectReads takes the reads of all that happened. What they show of unknown
// transactions makes those happen too.
func (l *lists) collectReads() {
	var next []int32
	for i, t := range l.txns {
		if t.Outcome == Committed {
			l.happened[i] = true
			next = append(next, int32(i))
		}
	}
	for len(next) > 0 {
		i := next[len(next)-1]
		next = next[:len(next)-1]
		for _, r := range l.readsOf(int(i)) {
			r.reads = append(r.reads, r.listRead)
			for _, e := range r.seen {
				w, known := r.writes[e]
				if known && !l.happened[w.txn] && l.txns[w.txn].Outcome == Unknown {
					l.happened[w.txn] = true
					next = append(next, w.txn)
				}
			}
		}
	}
}

type keyRead struct {
	*list
	listRead
}

// readsOf are the lists that a transaction found; what it should have seen of its
// own appends is judged on the way.
func (l *lists) readsOf(i int) (out []keyRead) {
	t := &l.txns[i]
	for j, op := range t.Ops {
		if op.Append != 0 {
			continue
		}
		own, before := ownAppends(t.Ops[:j], op.Key)
		found := len(op.Read) - len(own)
		if found < 0 || !slices.Equal(op.Read[found:], own) {
			l.add(Internal, "%s\n  read %s as %s behind its own %s", l.describe(i), op.Key, short(op.Read), short(own))
			continue
		}
		if before != nil && !slices.Equal(op.Read[:found], *before) {
			l.add(Internal, "%s\n  read %s as %s, then as %s", l.describe(i), op.Key, short(*before), short(op.Read))
			continue
		}
		if before == nil {
			out = append(out, keyRead{l.keys[op.Key], listRead{int32(i), op.Read[:found]}})
		}
	}
	return out
}

// ownAppends are those to a key among ops, and what was read of it first, if it was.
func ownAppends(ops []ListOp, key string) (own []int32, read *[]int32) {
	for _, op := range ops {
		switch {
		case op.Key != key:
		case op.Append != 0:
			own = append(own, op.Append)
		case read == nil:
			found := op.Read[:max(0, len(op.Read)-len(own))]
			read = &found
		}
	}
	return own, read
}

// judgeOrder finds the order of a list and what was read that cannot be.
func (k *list) judgeOrder(l *lists) {
	longest := -1
	for i, r := range k.reads {
		if longest < 0 || len(r.seen) > len(k.reads[longest].seen) {
			longest = i
		}
	}
	if longest < 0 {
		return
	}
	k.order = k.reads[longest].seen
	for _, r := range k.reads {
		if !slices.Equal(r.seen, k.order[:len(r.seen)]) {
			k.broken = true
			l.add(Incompatible, "%s was read as %s and as %s\n  %s\n  %s", k.name, short(r.seen), short(k.order),
				l.describe(int(r.txn)), l.describe(int(k.reads[longest].txn)))
		}
		if w, known := k.lastOf(r.seen); known && !w.last && w.txn != r.txn {
			l.add(IntermediateRead, "%s was read as %s, and T%d appended more after its %d\n  %s\n  %s", k.name, short(r.seen), w.txn, r.seen[len(r.seen)-1],
				l.describe(int(r.txn)), l.describe(int(w.txn)))
		}
	}
	k.judgeElements(l, int(k.reads[longest].txn))
}

func (k *list) lastOf(seen []int32) (w listWrite, known bool) {
	if len(seen) == 0 {
		return w, false
	}
	w, known = k.writes[seen[len(seen)-1]]
	return w, known
}

func (k *list) judgeElements(l *lists, reader int) {
	seen := map[int32]bool{}
	for _, e := range k.order {
		w, known := k.writes[e]
		switch {
		case seen[e]:
			k.broken = true
			l.add(Duplicate, "%d is in %s twice: %s\n  %s\n  %s", e, k.name, short(k.order), l.describe(reader), l.describe(int(w.txn)))
		case !known:
			k.broken = true
			l.add(Garbage, "%d is in %s and nobody appended it: %s\n  %s", e, k.name, short(k.order), l.describe(reader))
		case l.txns[w.txn].Outcome == Aborted:
			l.add(AbortedRead, "%d of the aborted T%d was read in %s: %s\n  %s\n  %s", e, w.txn, k.name, short(k.order), l.describe(reader), l.describe(int(w.txn)))
		}
		seen[e] = true
	}
}

// addEdges adds what one key says. Aborted transactions that were seen are in the
// graph like others: a cycle through one is one.
func (k *list) addEdges(l *lists) {
	if k.broken {
		return
	}
	for i, e := range k.order[min(1, len(k.order)):] {
		l.graph.add(k.writes[k.order[i]].txn, edge{to: k.writes[e].txn, kind: ww, list: k.id, element: e})
	}
	unread := k.unread(l)
	for _, r := range k.reads {
		n := len(r.seen)
		if n > 0 {
			l.graph.add(k.writes[r.seen[n-1]].txn, edge{to: r.txn, kind: wr, list: k.id, element: r.seen[n-1]})
		}
		if n < len(k.order) {
			l.graph.add(r.txn, edge{to: k.writes[k.order[n]].txn, kind: rw, list: k.id, element: k.order[n]})
			continue
		}
		for _, e := range unread {
			l.graph.add(r.txn, edge{to: k.writes[e].txn, kind: rw, list: k.id, element: e})
		}
	}
	if n := len(k.order); n > 0 {
		for _, e := range unread {
			l.graph.add(k.writes[k.order[n-1]].txn, edge{to: k.writes[e].txn, kind: ww, list: k.id, element: e})
		}
	}
}

// unread are the elements that happened and nobody read: they are behind all that
// was.
func (k *list) unread(l *lists) (out []int32) {
	inOrder := make(map[int32]bool, len(k.order))
	for _, e := range k.order {
		inOrder[e] = true
	}
	for e, w := range k.writes {
		if l.happened[w.txn] && !inOrder[e] {
			out = append(out, e)
		}
	}
	slices.Sort(out)
	return out
}

// addRealTime adds an edge from each transaction to those that began after its
// end, without those that follow from others: an ended transaction leaves the
// front when one ends that began after it.
func (l *lists) addRealTime() {
	var moments []moment
	for i, t := range l.txns {
		if !l.happened[i] {
			continue
		}
		moments = append(moments, moment{t.Call, int32(i), false})
		if t.Outcome == Committed {
			moments = append(moments, moment{t.Return, int32(i), true})
		}
	}
	slices.SortFunc(moments, moment.compare)
	var front []int32
	before := make([][]int32, len(l.txns)) // the front when it began
	for _, m := range moments {
		if !m.end {
			if l.txns[m.txn].Outcome == Committed {
				before[m.txn] = slices.Clone(front)
			}
			for _, f := range front {
				l.graph.add(f, edge{to: m.txn, kind: rt})
			}
			continue
		}
		front = slices.DeleteFunc(front, func(f int32) bool { return slices.Contains(before[m.txn], f) })
		front = append(front, m.txn)
		before[m.txn] = nil
	}
}

// moment is the begin or the end of a transaction.
type moment struct {
	at  int64
	txn int32
	end bool
}

// compare puts begins first: what ends and begins at one moment overlaps.
func (m moment) compare(o moment) int {
	switch {
	case m.at != o.at:
		return int(min(1, max(-1, m.at-o.at)))
	case m.end != o.end && m.end:
		return 1
	case m.end != o.end:
		return -1
	}
	return int(m.txn - o.txn)
}

// describe is one transaction.
func (l *lists) describe(i int) string {
	t := &l.txns[i]
	var b strings.Builder
	fmt.Fprintf(&b, "T%d of client %d, %s, %s:", i, t.Client, t.Outcome, t.Span)
	for _, op := range t.Ops {
		if op.Append != 0 {
			fmt.Fprintf(&b, " append %s %d,", op.Key, op.Append)
		} else {
			fmt.Fprintf(&b, " read %s %s,", op.Key, short(op.Read))
		}
	}
	return strings.TrimSuffix(b.String(), ",")
}

// short shows the end of a list.
func short(list []int32) string {
	const most = 8
	if len(list) <= most {
		return fmt.Sprint(list)
	}
	return fmt.Sprintf("[... %s of %d", strings.TrimPrefix(fmt.Sprint(list[len(list)-most:]), "["), len(list))
}
