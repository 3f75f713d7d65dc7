//go:build unix

package cluster

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"kvstore/client"
	"kvstore/test/cluster/harness"
	"kvstore/test/history"
)

// mixedLists are transactions that read and append to lists, interactive ones and
// ones that compare what was seen before.
type mixedLists struct {
	begun   atomic.Int64
	element atomic.Int32

	mu   sync.Mutex
	txns []history.ListTxn
	keys map[string]bool
	// seen is the state of lists by key, as anyone saw it last.
	seen map[string]listSeen
}

// listSeen is a list at a revision, 0 when there was none.
type listSeen struct {
	revision uint64
	list     []int32
}

// listsPerEpoch transactions share lists, then new ones begin: lists stay short.
const listsPerEpoch = 250

func (l *mixedLists) work(w *worker) {
	epoch := l.begun.Add(1) / listsPerEpoch
	tags := w.places()
	keys := w.spread(fmt.Sprintf("la/%d/", epoch), tags, 1+w.random.IntN(3))
	if w.chance(2) {
		l.transact(w, keys, len(tags))
	} else {
		l.compare(w, keys, len(tags))
	}
}

// run is one attempt of a transaction.
type run struct {
	history.ListTxn
	changes []history.Change
}

func (r *run) read(key string, list []int32) {
	r.Ops = append(r.Ops, history.ListOp{Key: key, Read: list})
}

// append appends an element of its own and returns the list as text.
func (l *mixedLists) append(r *run, key string, list []int32) []byte {
	e := l.element.Add(1)
	r.Ops = append(r.Ops, history.ListOp{Key: key, Append: e})
	text := listText(list, e)
	r.changes = append(r.changes, history.Change{Key: key, Value: listMark(text)})
	return []byte(text)
}

// transact is an interactive transaction. Each run appends elements of its own: what
// a run that met a conflict appended must never be seen.
func (l *mixedLists) transact(w *worker, keys []string, groups int) {
	ctx, cancel := w.context()
	defer cancel()
	var r *run
	writes := make([]bool, len(keys))
	for i := range writes {
		writes[i] = w.chance(2)
	}
	err := w.client.Transact(ctx, func(tx *client.Tx) error {
		if r != nil {
			l.add(w, r, history.Aborted, 0, groups)
		}
		r = &run{ListTxn: history.ListTxn{Client: w.id, Span: history.Span{Call: w.now()}}}
		for i, key := range keys {
			rec, err := there(tx.Get(key))
			if err != nil {
				return err
			}
			list, err := listOf(rec)
			if err != nil {
				return err
			}
			r.read(key, list)
			if writes[i] {
				tx.Put(key, l.append(r, key, list))
			}
		}
		return nil
	})
	l.add(w, r, w.outcome(err), 0, groups)
}

// compare is one transaction that appends where lists are as they were seen last,
// and reads them all where one is not. The others are read in any case.
func (l *mixedLists) compare(w *worker, keys []string, groups int) {
	ctx, cancel := w.context()
	defer cancel()
	r := &run{ListTxn: history.ListTxn{Client: w.id, Span: history.Span{Call: w.now()}}}
	txn := w.client.Txn(ctx)
	var reads []string // of Then, behind the puts
	for i, key := range keys {
		txn.Else(client.OpGet(key))
		if i > 0 && w.chance(2) {
			reads = append(reads, key)
			continue
		}
		seen := l.lastSeen(key)
		txn.If(client.Key(key).Revision().Eq(seen.revision))
		r.read(key, seen.list)
		txn.Then(client.OpPut(key, l.append(r, key, seen.list)))
	}
	for _, key := range reads {
		txn.Then(client.OpGet(key))
	}
	res, err := txn.Commit()
	outcome := w.outcome(err)
	if outcome != history.Committed {
		l.add(w, r, outcome, 0, groups)
		return
	}
	from := len(r.changes)
	if !res.Succeeded {
		refused := &run{ListTxn: history.ListTxn{Client: w.id, Span: r.Span}}
		l.add(w, r, history.Aborted, 0, groups)
		r, reads, from = refused, keys, 0
	}
	for i, key := range reads {
		rec, err := there(res.Get(from + i))
		if err != nil {
			w.t.Errorf("a get in a transaction: %v", err)
			return
		}
		list, err := listOf(rec)
		if err != nil {
			w.t.Error(err)
		}
		r.read(key, list)
		l.remember(key, rec, list)
	}
	l.add(w, r, history.Committed, res.Revision, groups)
}

func (l *mixedLists) lastSeen(key string) listSeen {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[key]
}

func (l *mixedLists) remember(key string, rec *client.Record, list []int32) {
	if rec == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[string]listSeen{}
	}
	if rec.Revision > l.seen[key].revision {
		l.seen[key] = listSeen{rec.Revision, list}
	}
}

// add records how a run ended.
func (l *mixedLists) add(w *worker, r *run, o history.Outcome, revision uint64, groups int) {
	if r == nil { // it never ran
		return
	}
	r.Outcome, r.Return = o, w.now()
	if o == history.Unknown {
		r.Return = history.Forever
	}
	if len(r.changes) == 0 && o != history.Committed {
		return
	}
	w.ended(o, groups)
	if len(r.changes) > 0 {
		w.note(history.Write{Outcome: o, Revision: revision, Changes: r.changes})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.txns = append(l.txns, r.ListTxn)
	if l.keys == nil {
		l.keys = map[string]bool{}
	}
	for _, op := range r.Ops {
		l.keys[op.Key] = true
	}
}

// readAll reads every list once more: what was acknowledged and never read again
// could be lost without a trace.
func (l *mixedLists) readAll(m *mixed) {
	w := &worker{mixed: m, id: 9, client: m.clients[0]}
	for key := range l.keys {
		harness.Eventually(m.t, func() error {
			ctx, cancel := w.context()
			defer cancel()
			r := &run{ListTxn: history.ListTxn{Client: w.id, Span: history.Span{Call: w.now()}}}
			rec, err := there(w.client.Get(ctx, key))
			if err != nil {
				return err
			}
			list, err := listOf(rec)
			if err != nil {
				return err
			}
			r.read(key, list)
			r.Return = w.now()
			l.txns = append(l.txns, r.ListTxn)
			return nil
		})
	}
}

func (l *mixedLists) judge(report report) {
	report("lists", history.CheckLists(l.txns), len(l.txns), " transactions and runs on ", len(l.keys), " lists")
}

// listText is a list as the value of its key.
func listText(list []int32, last int32) string {
	var b strings.Builder
	for _, e := range list {
		b.WriteString(strconv.Itoa(int(e)) + " ")
	}
	b.WriteString(strconv.Itoa(int(last)))
	return b.String()
}

// listMark is what tells a list from all others of its key: the last element.
func listMark(text string) string { return text[strings.LastIndexByte(text, ' ')+1:] }

func listOf(rec *client.Record) (list []int32, err error) {
	if rec == nil {
		return nil, nil
	}
	for _, f := range strings.Fields(string(rec.Value)) {
		e, err := strconv.ParseInt(f, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s holds %.60q", rec.Key, rec.Value)
		}
		list = append(list, int32(e))
	}
	return list, nil
}
