//go:build unix

package cluster

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kvstore/client"
	"kvstore/test/history"
)

// mixedStore is small transactions of every form on a few keys.
type mixedStore struct {
	begun, values atomic.Int64

	mu    sync.Mutex
	calls []*history.StoreCall
	// versions that anybody saw last, by window and key.
	versions map[[2]int]uint64
}

// storePerWindow transactions share keys, then new ones begin: that bounds what the
// model has to search.
const storePerWindow = 40

// storeSearch bounds the judgement of one window.
const storeSearch = 5 * time.Second

// storeGroups is over how many groups the keys of a window lie.
const storeGroups = 3

func storeKey(m *mixed, window, key int) string {
	return fmt.Sprintf("st/%d/%s%d", window, m.tags[key%storeGroups][0], key)
}

func (s *mixedStore) work(w *worker) {
	c := &history.StoreCall{Client: w.id, Window: int(s.begun.Add(1) / storePerWindow)}
	keys, groups := s.keys(w)
	for _, k := range keys[:w.random.IntN(min(3, len(keys)+1))] {
		c.Checks = append(c.Checks, history.StoreCheck{Key: k, Version: s.version(c.Window, k)})
	}
	c.Then = s.ops(w, keys, "t")
	if len(c.Checks) > 0 {
		c.Otherwise = s.ops(w, keys, "e")
	}
	ctx, cancel := w.context()
	defer cancel()
	txn := w.client.Txn(ctx)
	for _, check := range c.Checks {
		txn.If(client.Key(storeKey(w.mixed, c.Window, check.Key)).Version().Eq(check.Version))
	}
	txn.Then(s.wire(w, c.Window, c.Then)...).Else(s.wire(w, c.Window, c.Otherwise)...)
	c.Call = w.now()
	res, err := txn.Commit()
	c.Return = w.now()
	o := w.outcome(err)
	w.ended(o, groups)
	s.noteWrites(w, c, o, res)
	if o == history.Aborted {
		return
	}
	if c.Answer.Unknown = o == history.Unknown; c.Answer.Unknown {
		c.Return = history.Forever
	} else {
		s.answer(c, res)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
}

// keys draws the keys of a transaction.
func (s *mixedStore) keys(w *worker) (keys []int, groups int) {
	keys = w.random.Perm(history.StoreKeys)
	if w.random.Float64() < w.share {
		keys = keys[:3]
		apart := map[int]bool{}
		for _, k := range keys {
			apart[k%storeGroups] = true
		}
		return keys, len(apart)
	}
	g := w.random.IntN(storeGroups)
	var own []int
	for _, k := range keys {
		if k%storeGroups == g {
			own = append(own, k)
		}
	}
	return own, 1
}

// ops draws a list, one operation for each key.
func (s *mixedStore) ops(w *worker, keys []int, list string) (ops []history.StoreOp) {
	for _, k := range keys {
		op := history.StoreOp{Verb: history.StoreVerb(w.random.IntN(3)), Key: k}
		if op.Verb == history.StorePut {
			op.Value = fmt.Sprintf("%d%s", s.values.Add(1), list)
		}
		ops = append(ops, op)
	}
	return ops
}

func (s *mixedStore) wire(w *worker, window int, ops []history.StoreOp) (out []client.Op) {
	for _, op := range ops {
		key := storeKey(w.mixed, window, op.Key)
		switch op.Verb {
		case history.StoreGet:
			out = append(out, client.OpGet(key))
		case history.StorePut:
			out = append(out, client.OpPut(key, []byte(op.Value)))
		case history.StoreDelete:
			out = append(out, client.OpDelete(key))
		}
	}
	return out
}

func (s *mixedStore) version(window, key int) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.versions[[2]int{window, key}]
}

// answer takes the results and what they say of versions.
func (s *mixedStore) answer(c *history.StoreCall, res *client.TxnResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.versions == nil {
		s.versions = map[[2]int]uint64{}
	}
	c.Answer.Succeeded = res.Succeeded
	for i, op := range taken(c, res.Succeeded) {
		var r history.StoreResult
		switch op.Verb {
		case history.StoreGet:
			if rec, err := res.Get(i); err == nil {
				r = history.StoreResult{Version: rec.Version, Value: string(rec.Value)}
			}
		case history.StorePut:
			r = history.StoreResult{Version: res.Put(i).Version}
		case history.StoreDelete:
			if res.Delete(i).Existed {
				r.Version = 1
			}
		}
		c.Answer.Results = append(c.Answer.Results, r)
		if op.Verb == history.StoreDelete {
			r.Version = 0
		}
		s.versions[[2]int{c.Window, op.Key}] = r.Version
	}
}

func taken(c *history.StoreCall, succeeded bool) []history.StoreOp {
	if succeeded {
		return c.Then
	}
	return c.Otherwise
}

// noteWrites says what a watch has to show: of an unknown outcome either list, or
// nothing, and never the list that was not taken.
func (s *mixedStore) noteWrites(w *worker, c *history.StoreCall, o history.Outcome, res *client.TxnResult) {
	for _, succeeded := range []bool{true, false} {
		write := history.Write{Outcome: o}
		if o == history.Committed {
			if write.Revision = res.Revision; res.Succeeded != succeeded {
				write = history.Write{Outcome: history.Aborted}
			}
		}
		for i, op := range taken(c, succeeded) {
			change := history.Change{Key: storeKey(w.mixed, c.Window, op.Key), Value: op.Value, Delete: op.Verb == history.StoreDelete}
			nothing := change.Delete && write.Outcome == history.Committed && !res.Delete(i).Existed
			change.Perhaps = change.Delete && o == history.Unknown
			if op.Verb != history.StoreGet && !nothing {
				write.Changes = append(write.Changes, change)
			}
		}
		if len(write.Changes) > 0 {
			w.note(write)
		}
	}
}

func (s *mixedStore) judge(report report) {
	found, undecided := history.CheckStore(s.calls, storeSearch)
	seen := []string{fmt.Sprintf("%d transactions in windows of %d", len(s.calls), storePerWindow)}
	if undecided > 1+int(s.begun.Load())/storePerWindow/20 {
		found = append(found, history.Violation{Kind: "undecided", Text: "the model found no end in too many windows to call this a proof"})
	}
	if undecided > 0 {
		seen = append(seen, fmt.Sprintf("%d windows undecided", undecided))
	}
	report("store", found, strings.Join(seen, ", "))
}
