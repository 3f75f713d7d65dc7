//go:build unix

package cluster

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"kvstore/client"
	"kvstore/test/history"
)

// mixedFence is a register that only who holds a lock may write. The lock is a key
// with a deadline, its revision the token: it is held under a token exactly while
// the key has that revision. Register and lock lie in one group, or in two where
// transactions may have several.
type mixedFence struct {
	serial atomic.Int64

	mu     sync.Mutex
	grants []history.Grant
	writes []history.Guarded
}

// fenceTTL is short, so that holders lose the lock without noticing.
const fenceTTL = time.Second

func (f *mixedFence) keys(m *mixed) (lock, register string, groups int) {
	lock, register = "fence/lock/"+m.tags[0][0], "fence/register/"+m.tags[0][0]
	if m.share > 0 {
		return lock, "fence/register/" + m.tags[1][0], 2
	}
	return lock, register, 1
}

// work gets the lock, writes for a while, often longer than it holds it, and gives
// it back, if it does not forget to.
func (f *mixedFence) work(w *worker) {
	token, ok := f.acquire(w)
	if !ok {
		w.pause(20 * time.Millisecond)
		return
	}
	until := time.Now().Add(time.Duration(w.random.Int64N(int64(2 * fenceTTL))))
	for time.Now().Before(until) {
		if f.write(w, token) == history.Aborted {
			w.pause(20 * time.Millisecond)
		}
		w.pause(5 * time.Millisecond)
	}
	if !w.chance(3) {
		f.release(w, token)
	}
}

func (f *mixedFence) acquire(w *worker) (token uint64, ok bool) {
	lock, _, _ := f.keys(w.mixed)
	ctx, cancel := w.context()
	defer cancel()
	own := fmt.Sprintf("%d.%d", w.id, f.serial.Add(1))
	g := history.Grant{Holder: w.id, Span: history.Span{Call: w.now()}}
	res, err := w.client.Txn(ctx).If(client.Key(lock).Absent()).Then(client.OpPut(lock, []byte(own), client.WithTTL(fenceTTL))).Commit()
	switch w.outcome(err) {
	case history.Aborted:
		return 0, false
	case history.Unknown: // look whether it is ours
		rec, err := w.client.Get(ctx, lock)
		if err != nil || string(rec.Value) != own {
			return 0, false
		}
		g.Token = rec.Revision
	case history.Committed:
		if !res.Succeeded {
			return 0, false
		}
		g.Token = res.Revision
	}
	g.Return = w.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grants = append(f.grants, g)
	return g.Token, true
}

func (f *mixedFence) write(w *worker, token uint64) history.Outcome {
	lock, register, groups := f.keys(w.mixed)
	ctx, cancel := w.context()
	defer cancel()
	g := history.Guarded{Holder: w.id, Token: token, Span: history.Span{Call: w.now()}}
	res, err := w.client.Txn(ctx).If(client.Key(lock).Revision().Eq(token)).Then(client.OpPut(register, fmt.Appendf(nil, "%d %d", token, f.serial.Add(1)))).Commit()
	g.Return, g.Outcome = w.now(), w.outcome(err)
	w.ended(g.Outcome, groups)
	switch {
	case g.Outcome == history.Unknown:
		g.Return = history.Forever
	case g.Outcome == history.Committed && !res.Succeeded:
		g.Outcome = history.Aborted
	case g.Outcome == history.Committed:
		g.Revision = res.Revision
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes = append(f.writes, g)
	return g.Outcome
}

func (f *mixedFence) release(w *worker, token uint64) {
	lock, _, _ := f.keys(w.mixed)
	ctx, cancel := w.context()
	defer cancel()
	_, err := w.client.Txn(ctx).If(client.Key(lock).Revision().Eq(token)).Then(client.OpDelete(lock)).Commit()
	w.outcome(err) // without an answer, the deadline releases it
}

func (f *mixedFence) judge(report report) {
	refused := 0
	for _, g := range f.writes {
		if g.Outcome == history.Aborted {
			refused++
		}
	}
	report("fencing", history.CheckFencing(f.grants, f.writes), len(f.grants), " grants, ", len(f.writes), " writes, ", refused, " refused")
}
