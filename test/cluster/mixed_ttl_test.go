//go:build unix

package cluster

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"kvstore/client"
	"kvstore/test/history"
)

// mixedTTL is keys with deadlines, read by others than who wrote them.
type mixedTTL struct {
	serial atomic.Int64

	mu     sync.Mutex
	recent []string
	writes []history.DatedWrite
	reads  []history.DatedRead
}

const (
	ttlPrefix = "ttl/"
	ttlRecent = 100 // keys that are read, long after their deadline, too
	ttlPace   = 20 * time.Millisecond
)

// ttlTolerance is how far a group's clock may be from the clients'. It runs ahead by
// a ceiling at most, and lags while no quorum of nodes says what time it is.
var ttlTolerance = history.TTL{Early: time.Second, Late: 2 * time.Second}

func (l *mixedTTL) work(w *worker) {
	w.pause(ttlPace)
	if w.chance(10) {
		l.write(w)
		return
	}
	l.mu.Lock()
	var key string
	if len(l.recent) > 0 {
		key = l.recent[w.random.IntN(len(l.recent))]
	}
	l.mu.Unlock()
	if key != "" {
		l.read(w, key)
	}
}

// write writes new keys once or twice, those of several groups at once.
func (l *mixedTTL) write(w *worker) {
	n := l.serial.Add(1)
	var keys []string
	for _, tag := range w.places() {
		keys = append(keys, fmt.Sprintf("%s%d/%s", ttlPrefix, n, tag))
	}
	for range 1 + w.random.IntN(2) {
		if l.put(w, keys) == history.Unknown {
			return
		}
	}
}

// put writes keys with one deadline.
func (l *mixedTTL) put(w *worker, keys []string) history.Outcome {
	ctx, cancel := w.context()
	defer cancel()
	span := history.Span{Call: w.now()}
	expires := w.wall(span.Call).Add(time.Second + time.Duration(w.random.Int64N(int64(3*time.Second)))).Truncate(time.Millisecond)
	writes := make([]history.DatedWrite, len(keys))
	ops := make([]client.Op, len(keys))
	for i, key := range keys {
		writes[i] = history.DatedWrite{Key: key, Value: fmt.Sprint(l.serial.Add(1)), Expires: int64(expires.Sub(w.start))}
		ops[i] = client.OpPut(key, []byte(writes[i].Value), client.WithExpiry(expires))
	}
	var err error
	if len(keys) == 1 {
		_, err = w.client.Put(ctx, keys[0], []byte(writes[0].Value), client.WithExpiry(expires))
	} else {
		_, err = w.client.Txn(ctx).Then(ops...).Commit()
	}
	o := history.Aborted
	if !errors.Is(err, client.ErrInvalidArgument) { // else it came after the deadline
		o = w.outcome(err)
	}
	if span.Return = w.now(); o == history.Unknown {
		span.Return = history.Forever
	}
	if len(keys) > 1 {
		w.ended(o, len(keys))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range writes {
		writes[i].Span, writes[i].Outcome = span, o
	}
	l.writes = append(l.writes, writes...)
	l.recent = append(l.recent, keys...)
	l.recent = l.recent[max(0, len(l.recent)-ttlRecent):]
	return o
}

func (l *mixedTTL) read(w *worker, key string) {
	ctx, cancel := w.context()
	defer cancel()
	r := history.DatedRead{Key: key, Span: history.Span{Call: w.now()}}
	rec, err := there(w.client.Get(ctx, key))
	if err != nil {
		w.outcome(err)
		return
	}
	r.Return = w.now()
	if rec != nil {
		r.Found, r.Value, r.Expires = true, string(rec.Value), int64(rec.ExpiresAt.Sub(w.start))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads = append(l.reads, r)
}

func (l *mixedTTL) judge(m *mixed, report report) {
	expiries := m.stream.expiries(m)
	report("ttl", ttlTolerance.Check(l.writes, l.reads, expiries), len(l.writes), " writes, ", len(l.reads), " reads, ", len(expiries), " deletions")
}
