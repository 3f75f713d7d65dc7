package concurrency

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kvstore/client"
	"kvstore/internal/env/system"
	"kvstore/internal/keyspace"
)

// Errors of this package; those of package client come as they are.
var (
	// ErrSessionLost says that the lease of the session has ended, or may have.
	ErrSessionLost = errors.New("the session was lost")
	// ErrLocked says that somebody else holds the lock.
	ErrLocked = errors.New("the lock is held by somebody else")
	// ErrHeld says that this Mutex, or Election, is held or being waited for already.
	ErrHeld = errors.New("held already")
	// ErrNotHeld says that it is not held, or not any more.
	ErrNotHeld = errors.New("not held")
	// ErrNoLeader says that nobody has won the election.
	ErrNoLeader = errors.New("there is no leader")
)

// DefaultTTL of sessions: how long others wait when a holder dies.
const DefaultTTL = 15 * time.Second

// leaveTimeout bounds the end of a session, which has no context.
const leaveTimeout = 5 * time.Second

// dropPause is the longest pause between attempts to delete a key of the session.
const dropPause = time.Second

// SessionOption changes a session.
type SessionOption func(*sessionOptions)

type sessionOptions struct {
	ttl       time.Duration
	near      string
	namespace string
}

// WithTTL sets how long the session outlives its last sign of life: whole seconds.
func WithTTL(ttl time.Duration) SessionOption { return func(o *sessionOptions) { o.ttl = ttl } }

// InNamespace keeps the locks and elections of the session in a namespace other than
// the client's.
func InNamespace(name string) SessionOption { return func(o *sessionOptions) { o.namespace = name } }

// Near lays the session beside the locks and elections of a name in the namespace
// default: entering one is then a single log entry, where it is a transaction over
// groups otherwise.
func Near(name string) SessionOption { return func(o *sessionOptions) { o.near = name } }

// Session is a lease that is kept alive until Close. It is safe for concurrent use.
type Session struct {
	c         *client.Client
	namespace string
	lease     string
	ttl       time.Duration
	// alive ends when the session is lost or closed.
	alive  context.Context // the life of the session
	end    context.CancelCauseFunc
	keys   atomic.Uint64 // counts the keys of the session
	closed sync.Once

	mu sync.Mutex
	// ended: nothing joins wg any more; guarded by mu.
	ended bool
	wg    sync.WaitGroup
}

// errEnded is the cause of alive's end when the session was closed.
var errEnded = errors.New("the session was closed")

// NewSession grants a lease and begins to keep it alive. ctx bounds the grant only.
func NewSession(ctx context.Context, c *client.Client, opts ...SessionOption) (*Session, error) {
	o := sessionOptions{ttl: DefaultTTL}
	for _, opt := range opts {
		opt(&o)
	}
	began := time.Now()
	l, err := grant(ctx, c, &o)
	if err != nil {
		return nil, err
	}
	s := &Session{c: c, namespace: o.namespace, lease: l.ID, ttl: l.TTL}
	s.alive, s.end = context.WithCancelCause(context.WithoutCancel(ctx))
	s.wg.Go(func() { s.keepAlive(began.Add(l.TTL)) })
	return s, nil
}

// grant tries again under another id when an answer was lost: what was granted then
// ends by itself.
func grant(ctx context.Context, c *client.Client, o *sessionOptions) (l client.Lease, err error) {
	for range 3 {
		l, err = c.GrantLease(ctx, o.ttl, leaseID(o.near))
		if !errors.Is(err, client.ErrUnknownOutcome) || ctx.Err() != nil {
			break
		}
	}
	return l, err
}

// leaseID draws an id with the hash part of a name's keys, where an id can have it.
func leaseID(near string) string {
	random := strings.ToLower(rand.Text())
	if near == "" {
		return random
	}
	prefix, err := prefixOf(near)
	if err != nil {
		return random // whoever uses the name is told
	}
	if id := "{" + keyspace.HashPart(prefix) + "}" + random; keyspace.ValidateLeaseID(id) == nil {
		return id
	}
	return random
}

// keepAlive renews the lease three times in its TTL, and gives the session up when
// its end cannot be excluded: a TTL after the last renewal that succeeded was sent.
func (s *Session) keepAlive(until time.Time) {
	every := s.ttl / 3
	for {
		if system.Pause(s.alive, every) != nil {
			return
		}
		sent := time.Now()
		ctx, cancel := context.WithDeadline(s.alive, until)
		_, err := s.c.KeepLeaseAlive(ctx, s.lease)
		cancel()
		switch {
		case s.alive.Err() != nil:
			return
		case err == nil:
			until, every = sent.Add(s.ttl), s.ttl/3
		case errors.Is(err, client.ErrLeaseNotFound), errors.Is(err, client.ErrClosed), !time.Now().Before(until):
			s.end(ErrSessionLost)
			return
		default:
			every = min(s.ttl/10, max(0, time.Until(until)))
		}
	}
}

// Lease is the id of the session's lease, for keys that should end with it
// (client.WithLease).
func (s *Session) Lease() string { return s.lease }

// TTL is how long the session outlives its last sign of life.
func (s *Session) TTL() time.Duration { return s.ttl }

// Done is closed when the session is lost, or closed: what it held others may have.
func (s *Session) Done() <-chan struct{} { return s.alive.Done() }

// Err is nil while the session lives, and ErrSessionLost when it is lost.
func (s *Session) Err() error {
	switch cause := context.Cause(s.alive); {
	case cause == nil, errors.Is(cause, errEnded):
		return nil
	default:
		return cause
	}
}

// Context returns a context that ends with ctx or with the session, then with the
// cause ErrSessionLost.
func (s *Session) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.alive, func() { cancel(ErrSessionLost) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}

// Close ends the session and gives back at once what it holds. The lease ends by
// itself when that fails.
func (s *Session) Close() error {
	var err error
	s.closed.Do(func() {
		lost := s.alive.Err() != nil
		s.Orphan()
		if lost {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.alive), leaveTimeout)
		defer cancel()
		if _, err = s.c.RevokeLease(ctx, s.lease); errors.Is(err, client.ErrLeaseNotFound) {
			err = nil
		}
	})
	return err
}

// Orphan stops keeping the session alive and gives nothing back: its lease goes on
// until it ends by itself.
func (s *Session) Orphan() {
	s.end(errEnded)
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.wg.Wait()
}

// drop deletes a key of the session in the background, however often that has to be
// tried: else it would stand before others as long as the session lives. What is not
// deleted when the session ends goes with its lease.
func (s *Session) drop(key string, opts ...client.DeleteOption) (gone <-chan struct{}) {
	done := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		close(done)
		return done
	}
	s.wg.Go(func() {
		defer close(done)
		for {
			_, err := s.c.Delete(s.alive, key, opts...)
			if !transient(err) || system.Pause(s.alive, min(s.ttl/10, dropPause)) != nil {
				return
			}
		}
	})
	return done
}

// transient errors may pass.
func transient(err error) bool {
	switch client.CodeOf(err) {
	case client.CodeUnavailable, client.CodeOverloaded, client.CodeDeadlineExceeded, client.CodeUnknownOutcome:
		return true
	default:
		return false
	}
}

// newKey is a key of the session's own under a prefix.
func (s *Session) newKey(prefix string) string {
	return prefix + s.lease + "-" + base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(counterBytes(s.keys.Add(1)))
}

func counterBytes(n uint64) []byte {
	return []byte{byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}
