// Package concurrency makes sessions, locks and elections of leases
// (docs/locks.md).
//
//	s, err := concurrency.NewSession(ctx, c, concurrency.Near("nightly"))
//	...
//	defer s.Close()
//	m := concurrency.NewMutex(s, "nightly")
//	if err := m.Lock(ctx); err != nil {
//		...
//	}
//	defer m.Unlock(ctx)
//	_, err = c.Put(ctx, "report", text, client.WithFence(m.Fence()))
//
// A session is a lease that is kept alive in the background. Whoever wants a lock
// writes a key that is attached to it; the keys of a lock lie in one slot, so the
// revisions at which they were created are in the order in which they were written.
// Where two have the same, one of them is written anew. The owner is whose key was
// created first; everybody else watches the key before
// his own, so that one is woken when an owner leaves. The revision at which the
// owner's key was created is the token of the lock: it grows with every owner, also
// over failovers.
//
// A lock alone does not keep an owner from acting when it has lost the lock and does
// not know: it was paused, or cut off, for longer than the session's TTL. Writes to
// this store carry the lock's Fence, and are refused then. Other systems compare
// the Token with the highest they have seen. Session.Done tells as early as it can.
package concurrency
