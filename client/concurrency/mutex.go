package concurrency

import (
	"context"
	"errors"

	"kvstore/client"
)

// Mutex is a lock that is held by one session at a time in the whole cluster, in the
// order in which they asked. It is used by one goroutine at a time; goroutines that
// want the same lock have a Mutex each, of one session or of several.
type Mutex struct{ queue }

// NewMutex makes a Mutex of a lock. The name may hold a {hash part}; else it is one.
func NewMutex(s *Session, name string) *Mutex { return &Mutex{newQueue(s, name)} }

// Lock waits until the lock is held. It fails with ErrSessionLost when the session
// is lost while it waits, and with ctx's error; the lock is not wanted any more then,
// and where the cluster cannot be told so at once, that is done in the background.
func (m *Mutex) Lock(ctx context.Context) error { return m.run(ctx, nil) }

// TryLock takes the lock if it is free, else it fails with ErrLocked.
func (m *Mutex) TryLock(ctx context.Context) error {
	bound, cancel := m.s.Context(ctx)
	defer cancel()
	if err := m.enter(bound, nil); err != nil {
		if m.created == 0 && m.key != "" {
			return m.giveUp(ctx, bound, err)
		}
		return err
	}
	before, _, err := m.before(bound)
	if err == nil && before == "" {
		m.first = true
		return nil
	}
	if err == nil || errors.Is(err, errTied) {
		err = ErrLocked
	}
	return m.giveUp(ctx, bound, err)
}

// Unlock gives the lock back. ErrNotHeld when it is not held any more: the session
// was lost. After another error the lock may be held still; Unlock may be repeated.
func (m *Mutex) Unlock(ctx context.Context) error {
	if !m.first {
		return ErrNotHeld
	}
	return m.leave(ctx)
}

// Key is the key whose existence is the lock, "" while it is not wanted.
func (m *Mutex) Key() string { return m.key }

// Token is the revision at which the key was created: it grows with every owner. 0
// while the lock is not held.
func (m *Mutex) Token() uint64 { return m.token() }

// Fence lets writes happen only while the lock is held (client.WithFence). It is
// that of the present holding; keep it with the work.
func (m *Mutex) Fence() client.Fence { return m.fence() }
