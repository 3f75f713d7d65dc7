package concurrency

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kvstore/client"
	"kvstore/internal/keyspace"
)

// prefixOf begins the keys of all who want what has a name. They lie in one slot:
// the order in which they were created is only the order of their revisions because
// one group's log has all of them.
func prefixOf(name string) (string, error) {
	prefix := name + "/"
	if keyspace.HashPart(prefix) == prefix {
		prefix = "{" + name + "}/"
	}
	// The hash part must be there, and not depend on what follows.
	if name == "" || keyspace.HashPart(prefix) == prefix || len(prefix) > keyspace.MaxKeyBytes/2 {
		return "", &client.Error{Code: client.CodeInvalidArgument, Message: fmt.Sprintf(
			"the name %.64q cannot be that of a lock or election: want 1 to %d bytes that do not begin with a closing brace", name, keyspace.MaxKeyBytes/2-3)}
	}
	return prefix, nil
}

// queue is a place among those who want one thing: the owner is whose key was
// created first.
type queue struct {
	s      *Session
	name   string
	prefix string
	err    error // of the name
	// key is "" while nobody stands in the queue; created is the revision at which
	// it was created, 0 while that is not known.
	key     string
	created uint64
	first   bool
}

func newQueue(s *Session, name string) queue {
	prefix, err := prefixOf(name)
	return queue{s: s, name: name, prefix: prefix, err: err}
}

// enter writes a key at the end of the queue.
func (q *queue) enter(ctx context.Context, value []byte) error {
	switch {
	case q.err != nil:
		return q.err
	case q.first:
		return ErrHeld
	case q.s.alive.Err() != nil:
		return ErrSessionLost
	}
	q.key, q.created, q.first = q.s.newKey(q.prefix), 0, false
	for {
		res, err := q.s.c.Put(ctx, q.key, value, client.IfAbsent(), client.WithLease(q.s.lease), client.InNamespace(q.s.namespace))
		switch {
		case err == nil:
			q.created = res.Revision
			return nil
		case errors.Is(err, client.ErrLeaseNotFound):
			q.s.end(ErrSessionLost)
			return ErrSessionLost
		case ctx.Err() != nil, !errors.Is(err, client.ErrUnknownOutcome) && !errors.Is(err, client.ErrConditionFailed):
			return err
		}
		// It may be there although the answer was lost.
		rec, err := q.s.c.Get(ctx, q.key, client.KeysOnly(), client.InNamespace(q.s.namespace))
		switch {
		case err == nil:
			q.created = rec.CreatedRevision
			return nil
		case !errors.Is(err, client.ErrNotFound):
			return err
		}
	}
}

// wait returns when the key is the first. One that was created at the revision of
// another, and is to come behind it, is given up for a new one.
func (q *queue) wait(ctx context.Context, value []byte) error {
	for {
		before, rev, err := q.before(ctx)
		if errors.Is(err, errTied) {
			if err = q.leave(ctx); err == nil || errors.Is(err, ErrNotHeld) {
				err = q.enter(ctx, value)
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if before == "" {
			q.first = true
			return nil
		}
		if err := q.awaitGone(ctx, before, rev); err != nil {
			return err
		}
	}
}

// before returns the key before the queue's own, "" for none, and the revision at
// which it was so. ErrSessionLost when the own key is not there any more, errTied when
// it has to be another one.
func (q *queue) before(ctx context.Context) (key string, rev uint64, err error) {
	place := place{key: q.key, created: q.created}
	opts := []client.ListOption{client.WithPrefix(q.prefix), client.KeysOnly(), client.InNamespace(q.s.namespace)}
	for token := ""; ; {
		page, err := q.s.c.List(ctx, append(opts, client.After(token))...)
		if err != nil {
			return "", 0, err
		}
		for i := range page.Records {
			place.see(&page.Records[i])
		}
		if token, rev = page.Token, page.Revision; token == "" {
			break
		}
	}
	switch {
	case !place.present:
		return "", 0, ErrSessionLost
	case place.tied:
		return "", 0, errTied
	}
	return place.before, rev, nil
}

// errTied: another key was created at the same revision.
var errTied = errors.New("created at the revision of another key")

// place is where a key stands among others. Two may have been created at the same
// revision: one that is put with a lease of another group is written by a transaction
// over both, at the highest of their stamps, and that may be the stamp of a put in its
// own group. Who of the two looks sees the other, since looking waits for what is
// prepared. The lesser key stays, the other one has to go: a token belongs to one
// owner.
type place struct {
	key     string
	created uint64

	present, tied bool
	before        string // the last one before it
	latest        uint64 // of before
}

func (p *place) see(r *client.Record) {
	switch {
	case r.Key == p.key && r.CreatedRevision == p.created:
		p.present = true
	case r.CreatedRevision == p.created && r.Key < p.key:
		p.tied = true
	case r.CreatedRevision < p.created && r.CreatedRevision > p.latest:
		p.before, p.latest = r.Key, r.CreatedRevision
	}
}

// awaitGone returns when a key was deleted after a revision, or when that cannot be
// told any more.
func (q *queue) awaitGone(ctx context.Context, key string, rev uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for u, err := range q.s.c.Watch(ctx, client.OnKey(key), client.FromRevision(rev), client.KeysOnly(), client.InNamespace(q.s.namespace)) {
		if errors.Is(err, client.ErrOutOfRange) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, ev := range u.Events {
			if ev.Type == client.EventDelete {
				return nil
			}
		}
	}
	return ctx.Err()
}

// run enters and waits, and leaves again when that fails.
func (q *queue) run(ctx context.Context, value []byte) error {
	bound, cancel := q.s.Context(ctx)
	defer cancel()
	err := q.enter(bound, value)
	if err == nil {
		err = q.wait(bound, value)
	}
	if err == nil || errors.Is(err, ErrHeld) || q.key == "" {
		return err
	}
	return q.giveUp(ctx, bound, err)
}

// leaveWithin is how long who gave up waits until that is done; it goes on in the
// background.
const leaveWithin = 100 * time.Millisecond

// giveUp leaves after a failure and returns what it was.
func (q *queue) giveUp(ctx, bound context.Context, err error) error {
	switch ended := ctx.Err(); {
	case ended == nil && errors.Is(context.Cause(bound), ErrSessionLost):
		err = ErrSessionLost
	case ended != nil && (q.created != 0 || !errors.Is(err, ended)): // else err says more
		err = ended
	}
	gone := q.s.drop(q.key, q.own(), client.InNamespace(q.s.namespace))
	q.forget()
	timer := time.NewTimer(leaveWithin)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
	}
	return err
}

// own is the condition that the key is the queue's.
func (q *queue) own() client.WriteOption {
	if q.created != 0 {
		return client.IfCreated(q.created)
	}
	return client.IfLease(q.s.lease)
}

// forget is the state of who does not stand in the queue.
func (q *queue) forget() { q.key, q.created, q.first = "", 0, false }

// leave deletes the key. ErrNotHeld when it was not there.
func (q *queue) leave(ctx context.Context) error {
	if q.key == "" {
		return ErrNotHeld
	}
	_, err := q.s.c.Delete(ctx, q.key, q.own(), client.InNamespace(q.s.namespace))
	switch {
	case errors.Is(err, client.ErrConditionFailed):
		err = ErrNotHeld
	case err != nil:
		return err
	}
	q.forget()
	return err
}

func (q *queue) fence() client.Fence {
	return client.Fence{Namespace: q.s.namespace, Key: q.key, Revision: q.token()}
}

func (q *queue) token() uint64 {
	if !q.first {
		return 0
	}
	return q.created
}
