package concurrency

import (
	"context"
	"errors"
	"iter"

	"kvstore/client"
)

// Election chooses one leader at a time among those who campaign, in the order in
// which they began. It is used by one goroutine at a time.
type Election struct{ queue }

// Leader is who won an election.
type Leader struct {
	// Key is the leader's own, Value what it proclaimed.
	Key   string
	Value []byte
	// Token grows with every leader; Revision also with every proclamation.
	Token, Revision uint64
}

// NewElection makes an Election. The name may hold a {hash part}; else it is one.
func NewElection(s *Session, name string) *Election { return &Election{newQueue(s, name)} }

// Observer makes an Election that needs no session, to see who leads; it cannot
// campaign. The namespace is the client's when it is empty.
func Observer(c *client.Client, namespace, name string) *Election {
	return &Election{newQueue(&Session{c: c, namespace: namespace, alive: ended}, name)}
}

// ended is the life of no session.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Key is the key of this candidate, "" while it does not campaign.
func (e *Election) Key() string { return e.key }

// Campaign waits until the election is won; others see value then. It fails as
// Mutex.Lock does.
func (e *Election) Campaign(ctx context.Context, value []byte) error { return e.run(ctx, value) }

// Proclaim changes the value that others see. ErrNotHeld when this is not the leader
// any more.
func (e *Election) Proclaim(ctx context.Context, value []byte) error {
	if !e.first {
		return ErrNotHeld
	}
	_, err := e.s.c.Put(ctx, e.key, value, client.IfCreated(e.created), client.WithLease(e.s.lease), client.InNamespace(e.s.namespace))
	if errors.Is(err, client.ErrConditionFailed) || errors.Is(err, client.ErrLeaseNotFound) {
		return ErrNotHeld
	}
	return err
}

// Resign gives leadership back, as Mutex.Unlock does.
func (e *Election) Resign(ctx context.Context) error {
	if !e.first {
		return ErrNotHeld
	}
	return e.leave(ctx)
}

// Token is the revision at which the leader's key was created; 0 while this is not
// the leader.
func (e *Election) Token() uint64 { return e.token() }

// Fence lets writes happen only while this is the leader (client.WithFence).
func (e *Election) Fence() client.Fence { return e.fence() }

// Leader is who leads now; ErrNoLeader when nobody does.
func (e *Election) Leader(ctx context.Context) (Leader, error) {
	all, _, err := e.candidates(ctx)
	if err != nil {
		return Leader{}, err
	}
	if l, ok := leaderOf(all); ok {
		return l, nil
	}
	return Leader{}, ErrNoLeader
}

// Observe yields the leader, and again whenever there is another one or it proclaims
// another value, until ctx ends or the loop is left. Leaders that follow each other
// fast may be left out. An error is yielded once and ends it.
func (e *Election) Observe(ctx context.Context) iter.Seq2[Leader, error] {
	return func(yield func(Leader, error) bool) {
		var shown uint64 // the revision of what was yielded last
		show := func(all map[string]Leader) bool {
			l, ok := leaderOf(all)
			if !ok || l.Revision == shown {
				return true
			}
			shown = l.Revision
			return yield(l, nil)
		}
		for {
			all, rev, err := e.candidates(ctx)
			if err != nil {
				yield(Leader{}, err)
				return
			}
			if !show(all) {
				return
			}
			if again, err := e.follow(ctx, all, rev, show); !again {
				if err != nil {
					yield(Leader{}, err)
				}
				return
			}
		}
	}
}

// follow keeps all up to date from a revision on. again says that the history does
// not reach back to it.
func (e *Election) follow(ctx context.Context, all map[string]Leader, rev uint64, show func(map[string]Leader) bool) (again bool, err error) {
	for u, err := range e.s.c.Watch(ctx, client.WithPrefix(e.prefix), client.FromRevision(rev), client.InNamespace(e.s.namespace)) {
		if errors.Is(err, client.ErrOutOfRange) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		for _, ev := range u.Events {
			if ev.Type == client.EventDelete {
				delete(all, ev.Record.Key)
			} else {
				all[ev.Record.Key] = candidateOf(&ev.Record)
			}
		}
		if !show(all) {
			return false, nil
		}
	}
	return false, ctx.Err()
}

// candidates are all who campaign, and the revision at which they did.
func (e *Election) candidates(ctx context.Context) (all map[string]Leader, rev uint64, err error) {
	if e.err != nil {
		return nil, 0, e.err
	}
	all = make(map[string]Leader)
	for token := ""; ; {
		page, err := e.s.c.List(ctx, client.WithPrefix(e.prefix), client.InNamespace(e.s.namespace), client.After(token))
		if err != nil {
			return nil, 0, err
		}
		for i := range page.Records {
			all[page.Records[i].Key] = candidateOf(&page.Records[i])
		}
		if token = page.Token; token == "" {
			return all, page.Revision, nil
		}
	}
}

func candidateOf(r *client.Record) Leader {
	return Leader{Key: r.Key, Value: r.Value, Token: r.CreatedRevision, Revision: r.Revision}
}

// leaderOf is the candidate who began first, or has the lesser key where two did
// (place).
func leaderOf(all map[string]Leader) (first Leader, ok bool) {
	for _, l := range all {
		if !ok || l.Token < first.Token || l.Token == first.Token && l.Key < first.Key {
			first, ok = l, true
		}
	}
	return first, ok
}
