//go:build unix

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kvstore/client"
	"kvstore/client/concurrency"
	"kvstore/test/history"
	"kvstore/test/lockcheck"
)

// mixedLock is a register that only who holds one of the SDK's locks, or leads one of
// its elections, may write: its writes carry the fence. Holders stop keeping their
// sessions alive now and then and go on writing, as a paused process would.
type mixedLock struct {
	what   string
	make   func(s *concurrency.Session, name string) lockHolder
	serial atomic.Int64

	mu     sync.Mutex
	grants []history.Grant
	writes []history.Guarded
	holds  []lockcheck.Hold
}

// lockHolder is a Mutex or an Election.
type lockHolder interface {
	take(ctx context.Context, w *worker) error
	// touch does what a holder may do beside writing.
	touch(ctx context.Context) error
	giveBack(ctx context.Context) error
	Token() uint64
	Fence() client.Fence
}

type mutexHolder struct{ *concurrency.Mutex }

func (h mutexHolder) take(ctx context.Context, w *worker) error {
	if w.chance(4) {
		return h.TryLock(ctx)
	}
	return h.Lock(ctx)
}
func (h mutexHolder) touch(context.Context) error        { return nil }
func (h mutexHolder) giveBack(ctx context.Context) error { return h.Unlock(ctx) }

type electionHolder struct{ *concurrency.Election }

func (h electionHolder) take(ctx context.Context, w *worker) error {
	return h.Campaign(ctx, fmt.Append(nil, w.id))
}
func (h electionHolder) touch(ctx context.Context) error    { return h.Proclaim(ctx, []byte("again")) }
func (h electionHolder) giveBack(ctx context.Context) error { return h.Resign(ctx) }

func newMutexHolder(s *concurrency.Session, name string) lockHolder {
	return mutexHolder{concurrency.NewMutex(s, name)}
}

func newElectionHolder(s *concurrency.Session, name string) lockHolder {
	return electionHolder{concurrency.NewElection(s, name)}
}

// lockTTL is shorter than many a failover, so that sessions are lost.
const lockTTL = 2 * time.Second

// keys lie in one group, or in two where transactions may have several.
func (l *mixedLock) keys(m *mixed) (name, register string, groups int) {
	name, register = l.what+"/"+m.tags[0][0], l.what+"/register/"+m.tags[0][0]
	if m.share > 0 {
		return name, l.what + "/register/" + m.tags[1][0], 2
	}
	return name, register, 1
}

// work takes the lock, writes for a while, often longer than it holds it, and gives
// it back, if it does not forget to.
func (l *mixedLock) work(w *worker) {
	name, _, _ := l.keys(w.mixed)
	opts := []concurrency.SessionOption{concurrency.WithTTL(lockTTL)}
	if w.chance(2) {
		opts = append(opts, concurrency.Near(name))
	}
	ctx, cancel := w.context()
	defer cancel()
	s, err := concurrency.NewSession(ctx, w.client, opts...)
	if err != nil {
		w.outcome(err)
		w.pause(20 * time.Millisecond)
		return
	}
	if w.chance(4) {
		defer s.Orphan()
	} else {
		defer func() { w.lockOutcome(s.Close()) }()
	}
	h := l.make(s, name)
	from := w.now()
	if err := h.take(ctx, w); err != nil {
		w.lockOutcome(err)
		w.pause(20 * time.Millisecond)
		return
	}
	l.hold(w, s, h, from)
}

// hold is the time in which a worker believes that it holds the lock, and some more.
func (l *mixedLock) hold(w *worker, s *concurrency.Session, h lockHolder, from int64) {
	hold := lockcheck.Hold{Owner: fmt.Sprintf("%d.%d", w.id, l.serial.Add(1)), Token: h.Token(), From: w.now(), Lost: true}
	fence, began := h.Fence(), time.Now()
	l.mu.Lock()
	l.grants = append(l.grants, history.Grant{Holder: w.id, Token: hold.Token, Span: history.Span{Call: from, Return: hold.From}})
	l.mu.Unlock()
	until := time.Duration(w.random.Int64N(int64(2 * lockTTL)))
	if w.chance(3) {
		s.Orphan() // it goes on and does not know
		until += lockTTL
	}
	for time.Since(began) < until && !w.stopped() {
		if l.write(w, fence) == history.Aborted {
			w.pause(100 * time.Millisecond)
		}
		w.pause(5 * time.Millisecond)
	}
	ctx, cancel := w.context()
	defer cancel()
	if w.chance(2) {
		w.lockOutcome(h.touch(ctx))
	}
	hold.Until = w.now()
	if !w.chance(4) {
		err := h.giveBack(ctx)
		hold.Lost = err != nil
		w.lockOutcome(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds = append(l.holds, hold)
}

func (l *mixedLock) write(w *worker, fence client.Fence) history.Outcome {
	_, register, groups := l.keys(w.mixed)
	ctx, cancel := w.context()
	defer cancel()
	g := history.Guarded{Holder: w.id, Token: fence.Revision, Span: history.Span{Call: w.now()}}
	res, err := w.client.Put(ctx, register, fmt.Appendf(nil, "%d %d", fence.Revision, l.serial.Add(1)), client.WithFence(fence))
	g.Return, g.Outcome, g.Revision = w.now(), w.outcome(err), res.Revision
	w.ended(g.Outcome, groups)
	if g.Outcome == history.Unknown {
		g.Return = history.Forever
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes = append(l.writes, g)
	return g.Outcome
}

// lockOutcome reads an error of a lock: that it was lost, is held or was not waited
// for is no failure.
func (w *worker) lockOutcome(err error) {
	for _, fine := range []error{concurrency.ErrSessionLost, concurrency.ErrLocked, concurrency.ErrNotHeld, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, fine) {
			return
		}
	}
	w.outcome(err)
}

func (w *worker) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// shown reports whether a write under a grant was accepted: sessions of two seconds may be lost
// for as long as a short run takes on a machine that is busy.
func (l *mixedLock) shown() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.ContainsFunc(l.writes, func(g history.Guarded) bool { return g.Outcome == history.Committed }) {
		return fmt.Errorf("%s: %d grants and no accepted write", l.what, len(l.grants))
	}
	return nil
}

// judge: no write under an older token after one under a newer, and no two holders at
// a time of which both gave the lock back.
func (l *mixedLock) judge(m *mixed, report report) {
	var accepted []lockcheck.Write
	refused := 0
	for _, g := range l.writes {
		switch g.Outcome {
		case history.Committed:
			accepted = append(accepted, lockcheck.Write{Token: g.Token, Revision: g.Revision})
		case history.Aborted:
			refused++
		case history.Unknown:
		}
	}
	if err := lockcheck.Check(l.holds, accepted); err != nil {
		m.t.Errorf("%s: %v", l.what, err)
	}
	if len(l.grants) == 0 || len(accepted) == 0 {
		m.t.Errorf("%s: %d grants and %d accepted writes show nothing", l.what, len(l.grants), len(accepted))
	}
	report(l.what, history.CheckFencing(l.grants, l.writes), len(l.grants), " grants, ", len(accepted), " writes, ", refused, " refused")
}
