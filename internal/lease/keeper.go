package lease

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/router"
)

const (
	// A look takes at most a twentieth of the time, and is made at least so often.
	lookShare    = 20
	lookSeldom   = 30 * time.Second
	lookSoon     = 100 * time.Millisecond
	lookPage     = 1000
	lookTimeout  = 30 * time.Second
	endTimeout   = 30 * time.Second
	maxEnding    = 1000 // leases that one look finds
	endParallel  = 8
	endPage      = 128 // keys that are deleted together
	maxStaleLook = 365 * 24 * time.Hour
)

type counter = atomic.Int64

// Ended counts the leases that this node has ended.
func (s *Service) Ended() (expired, revoked int64) {
	return s.ended[replica.LeaseExpired-1].Load(), s.ended[replica.LeaseRevoked-1].Load()
}

// Wake has the keeper look now.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// keep ends the leases of the groups that are led here. What it finds is only a
// hint: whether a lease has ended is judged in the order of its group's log.
func (s *Service) keep(ctx context.Context) {
	for {
		before := s.o.Clock.Mono()
		ended, next := s.find(ctx)
		took := s.o.Clock.Mono() - before
		s.endAll(ctx, ended)
		wait := min(max(s.o.Interval, lookShare*took), max(s.o.Interval, lookSeldom))
		if next > 0 { // sooner, for a lease that is about to end
			wait = min(wait, max(lookSoon, time.Duration(next-s.o.Clock.Wall())*time.Millisecond))
		}
		if len(ended) == maxEnding {
			wait = lookSoon
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.wake:
			s.rest(ctx, before+lookShare*took)
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// rest keeps looks to their share of the time, however often somebody wakes the keeper.
func (s *Service) rest(ctx context.Context, until time.Duration) {
	timer := time.NewTimer(max(0, until-s.o.Clock.Mono()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// find returns leases that may have ended, and when the next one does, 0 for none:
// Unix milliseconds.
func (s *Service) find(ctx context.Context) (ended []string, next int64) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	for _, g := range s.o.Host.Groups() {
		if g.Group == keyspace.MetaGroup || g.Role != "leader" || !g.Serving {
			continue
		}
		l := look{now: s.o.Clock.Wall(), ended: ended, next: next}
		if err := s.scan(ctx, g.Group, &l); err != nil {
			s.o.Logger.Debug("leases of a group are looked at again later", "group", g.Group, "error", err)
		}
		if ended, next = l.ended, l.next; len(ended) >= maxEnding {
			break
		}
	}
	return ended, next
}

// look is what one pass over the records of leases finds.
type look struct {
	now   int64
	alive string // the lease that was seen last, with time left
	ended []string
	next  int64
}

// take looks at the next record in the order of keys.
func (l *look) take(key []byte, rec *format.Record) {
	id, what := keyspace.ParseLeaseKey(string(key))
	switch {
	case what == keyspace.LeaseItself && rec.Expires > l.now:
		l.alive = id
		if l.next == 0 || rec.Expires < l.next {
			l.next = rec.Expires
		}
	case what == keyspace.LeaseMarked && id != l.alive && len(l.ended) < maxEnding:
		l.ended = append(l.ended, id)
	}
}

// scan reads the replica here as it is, however far behind.
func (s *Service) scan(ctx context.Context, g keyspace.GroupID, l *look) error {
	p, err := s.o.Host.StaleRead(g, maxStaleLook)
	if err != nil {
		return err
	}
	q := host.ScanRequest{Namespace: keyspace.LeaseNamespace, Revision: p.Rev, Limit: lookPage}
	for len(l.ended) < maxEnding {
		page, err := s.o.Host.ScanGroup(ctx, g, q, l.take)
		if err != nil || !page.More {
			return err
		}
		q.Start = page.Next
	}
	return nil
}

// endAll ends the leases that have.
func (s *Service) endAll(ctx context.Context, ids []string) {
	var eg errgroup.Group
	eg.SetLimit(endParallel)
	for _, id := range ids {
		eg.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, endTimeout)
			defer cancel()
			l, mark, err := s.look(ctx, id)
			if err == nil && l == nil && mark != nil {
				_, err = s.end(ctx, id, mark)
			}
			if err != nil && ctx.Err() == nil {
				s.o.Logger.Warn("a lease that has ended keeps its keys for now", "lease", id, "error", err)
			}
			return nil
		})
	}
	_ = eg.Wait() // failures were told, and are tried again
}

// end deletes all that is left of a lease that has ended, and returns how many keys
// it deleted.
func (s *Service) end(ctx context.Context, id string, mark *entry) (deleted uint64, err error) {
	why, reason := replica.LeaseExpired, router.ReasonLeaseExpired
	if mark.record.Revoked {
		why, reason = replica.LeaseRevoked, router.ReasonLeaseRevoked
	} else if err := s.bury(ctx, id, mark); err != nil {
		if errors.Is(err, errEndedElsewhere) {
			err = nil
		}
		return 0, err
	}
	for {
		notes, _, err := s.noted(ctx, id, endPage)
		if err == nil && len(notes) == 0 {
			break
		}
		var n uint64
		if err == nil {
			n, err = s.endKeys(ctx, id, mark, notes, reason)
			deleted += n
		}
		if errors.Is(err, errEndedElsewhere) {
			return deleted, nil
		}
		if err != nil {
			return deleted, err
		}
	}
	results, err := s.transact(ctx,
		deleteOp(&api.DeleteRequest{Key: keyspace.LeaseMarkKey(id), Condition: &api.Condition{RevisionMatch: &mark.revision}}),
		goneForGood(id, reason))
	if err == nil && !failed(results[0]) {
		s.ended[why-1].Add(1)
		s.o.Logger.Debug("lease ended", "lease", id, "reason", reason, "keys", deleted)
	}
	return deleted, err
}

// bury deletes the record of a lease that has expired. A transaction over several
// groups that attaches a key, and saw the lease while it was there, holds a lock on
// that record until it is done, and may be done later than the lease ends: behind
// this step its records are all there, and no others come.
func (s *Service) bury(ctx context.Context, id string, mark *entry) error {
	results, err := s.transact(ctx,
		checkOp(keyspace.LeaseMarkKey(id), &api.Condition{RevisionMatch: &mark.revision}),
		goneForGood(id, router.ReasonLeaseExpired))
	if err == nil && (failed(results[0]) || failed(results[1])) {
		err = errEndedElsewhere
	}
	return err
}

// goneForGood deletes the record of a lease that ended, which a deadline does not.
func goneForGood(id, reason string) *api.TransactionOp {
	return deleteOp(&api.DeleteRequest{Key: keyspace.LeaseKey(id), Condition: &api.Condition{MustNotExist: true}, Reason: reason})
}

// endKeys deletes keys that are attached to a lease, then the records that say so.
// All is done under the mark: this may go on long after somebody else did it.
func (s *Service) endKeys(ctx context.Context, id string, mark *entry, notes []note, reason string) (deleted uint64, err error) {
	held := &api.Condition{RevisionMatch: &mark.revision}
	calls := make([]*router.Call, len(notes))
	for i, a := range notes {
		calls[i] = &router.Call{Identity: router.SystemIdentity, Op: transaction(checkOp(keyspace.LeaseMarkKey(id), held),
			deleteOp(&api.DeleteRequest{Namespace: a.Namespace, Key: a.Key, Condition: &api.Condition{LeaseMatch: &id}, Reason: reason}))}
	}
	s.o.Store.Do(ctx, calls...)
	for _, c := range calls {
		results := c.Result.GetTransaction().GetResults()
		switch code := fault.CodeOf(c.Err); {
		case code == fault.NamespaceNotFound: // with all its keys
		case c.Err != nil:
			return deleted, c.Err
		case failed(results[0]):
			return deleted, errEndedElsewhere
		case failed(results[1]): // not attached to this lease any more
		default:
			deleted++
		}
	}
	ops := []*api.TransactionOp{checkOp(keyspace.LeaseMarkKey(id), held)}
	for _, a := range notes {
		ops = append(ops, deleteOp(&api.DeleteRequest{Key: a.at}))
	}
	results, err := s.transact(ctx, ops...)
	if err == nil && failed(results[0]) {
		err = errEndedElsewhere
	}
	return deleted, err
}

// maxLoose bounds the keys that were detached and whose records wait to be removed.
// What is more is removed when the lease ends, and not shown until then.
const maxLoose = 1024

// loose is a key that is not attached to a lease any more.
type loose struct{ namespace, key, lease string }

// Detached hears of a key that is not attached to a lease any more. It does not
// block.
func (s *Service) Detached(namespace, key, lease string) {
	select {
	case s.loose <- loose{namespace, key, lease}:
	default:
	}
}

// tidy removes the records of keys that were detached.
func (s *Service) tidy(ctx context.Context) {
	for {
		var some []loose
		select {
		case l := <-s.loose:
			some = append(some, l)
		case <-ctx.Done():
			return
		}
		for more := true; more && len(some) < endPage; {
			select {
			case l := <-s.loose:
				some = append(some, l)
			default:
				more = false
			}
		}
		s.forget(ctx, some)
	}
}

// forget removes the record of each key, unless that was attached again.
func (s *Service) forget(ctx context.Context, some []loose) {
	calls := make([]*router.Call, len(some))
	for i, l := range some {
		calls[i] = &router.Call{Identity: router.SystemIdentity, Op: &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{
			Namespace: keyspace.LeaseNamespaceName,
			Checks:    []*api.TransactionCheck{{Namespace: l.namespace, Key: l.key, Condition: &api.Condition{LeaseMatch: &l.lease}}},
			Otherwise: []*api.TransactionOp{deleteOp(&api.DeleteRequest{Key: keyspace.LeaseAttachedKey(l.lease, l.namespace, l.key)})},
		}}}}
	}
	s.o.Store.Do(ctx, calls...)
	for i, c := range calls {
		if c.Err != nil && ctx.Err() == nil {
			s.o.Logger.Debug("a key that was detached is forgotten when its lease ends", "lease", some[i].lease, "error", c.Err)
		}
	}
}
