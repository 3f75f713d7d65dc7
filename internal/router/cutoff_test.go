package router

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// A node that heard of no other member for a while says so at once, and when to
// come back to callers that may know no other node; what is alone in its group,
// or was proposed, is not refused.
func TestCutOffNodesSaySo(t *testing.T) {
	for _, c := range []struct {
		name      string
		unheard   map[keyspace.NodeID]time.Duration
		elsewhere bool
		hosted    bool
		at        time.Duration // at most, the answer comes; 0: not before the deadline
		retry     time.Duration
	}{
		{name: "all are silent", unheard: map[keyspace.NodeID]time.Duration{"b": CutOffAfter, "c": time.Hour}, hosted: true, at: time.Millisecond, retry: CutOffRetry},
		{name: "not for long enough", unheard: map[keyspace.NodeID]time.Duration{"b": CutOffAfter - 1, "c": CutOffAfter - 1}, hosted: true},
		{name: "one is heard", unheard: map[keyspace.NodeID]time.Duration{"b": time.Hour}, hosted: true},
		{name: "who can ask others is told earlier", unheard: map[keyspace.NodeID]time.Duration{"b": GiveBackAfter, "c": GiveBackAfter}, elsewhere: true, hosted: true, at: time.Millisecond},
		{name: "a group of others", unheard: map[keyspace.NodeID]time.Duration{"b": CutOffAfter, "c": time.Hour}, at: time.Millisecond, retry: CutOffRetry},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, func(o *Options) { o.Unheard = func(id keyspace.NodeID) time.Duration { return c.unheard[id] } })
				f.host.leaders = func(keyspace.GroupID) (keyspace.NodeID, bool) { return "", false }
				w := putCall("", "k", "v")
				g, _ := f.dir.Map().GroupOfKey(keyspace.DefaultNamespace, "k")
				f.host.hosted = func(other keyspace.GroupID) bool { return c.hosted || other != g }
				w.Elsewhere, w.Op.TimeoutMs = c.elsewhere, 5000
				began := time.Now()
				f.Do(t.Context(), w)
				wantCode(t, w.Err, fault.Unavailable)
				took := time.Since(began)
				if c.at > 0 != (took <= c.at) {
					t.Errorf("answered after %v", took)
				}
				var e *fault.Error
				if errors.As(w.Err, &e); c.at > 0 && e.RetryAfter != c.retry {
					t.Errorf("come back after %v, want %v", e.RetryAfter, c.retry)
				}
			})
		})
	}
}

// A write that was proposed is not refused, however long nothing is heard.
func TestProposedWritesAreNotRefusedByACutOffNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(o *Options) { o.Unheard = func(keyspace.NodeID) time.Duration { return time.Hour } })
		f.host.submit = func(rs []*replica.Request) bool {
			for _, q := range rs {
				q.Err = fault.New(fault.UnknownOutcome, "leadership was lost")
				q.Done(q)
			}
			return true
		}
		w := putCall("", "k", "v")
		f.Do(t.Context(), w)
		wantCode(t, w.Err, fault.UnknownOutcome)
	})
}
