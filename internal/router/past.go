package router

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// A read of the past is one at a revision, or at a time that the node which is
// asked resolves to one: the last of its millisecond. Any replica serves it that
// has closed the revision, without asking anybody. Where a replica has not, the
// group's leader is asked for its clock, which closes what is not in the future,
// and the replica catches up with what that covers. A revision in the future is
// refused and moves no clock, but for what the clocks of nodes differ.
//
// How far back history is kept a replica says for itself: one that was rebuilt
// keeps less. So what is below a replica's floor is asked of the leader, once.

const (
	// maxAhead is how far in the future a moment may lie that is waited for.
	maxAhead = time.Second
	// recentPast is the age from which on a moment lies in no group's future.
	recentPast = 2 * time.Second
)

// validateMoment refuses what names no single moment.
func validateMoment(rev uint64, ms int64) error {
	switch {
	case rev != 0 && ms != 0:
		return fault.New(fault.InvalidArgument, "at_revision and at_time_ms exclude each other")
	case ms > maxExpiryMilli:
		return fault.New(fault.InvalidArgument, "at_time_ms is too large", "limit", int64(maxExpiryMilli), "actual", ms)
	}
	return nil
}

// moment is the revision that a request names; 0 for none.
func (r *Router) moment(rev uint64, ms int64) keyspace.Revision {
	switch {
	case ms == 0:
		return keyspace.Revision(rev)
	case ms < 0:
		ms = max(0, r.o.Clock.Wall()+ms)
	}
	return keyspace.RevisionAt(ms+1) - 1
}

// resolveMoment notes the revision a read asks for. An operation that names a
// time is replaced by one that names the revision, so that all its parts read at
// the same, wherever they are served.
func (st *callState) resolveMoment(r *Router) {
	switch o := st.call.Op.GetOp().(type) {
	case *api.PipelineOp_Get:
		st.at = r.moment(o.Get.AtRevision, o.Get.AtTimeMs)
		if o.Get.AtTimeMs != 0 {
			op := st.renewOp()
			op.Op = &api.PipelineOp_Get{Get: &api.GetRequest{
				Namespace: o.Get.Namespace, Key: o.Get.Key, KeysOnly: o.Get.KeysOnly, AtRevision: uint64(st.at)}}
		}
	case *api.PipelineOp_BatchGet:
		st.at = r.moment(o.BatchGet.AtRevision, o.BatchGet.AtTimeMs)
		if o.BatchGet.AtTimeMs != 0 {
			op := st.renewOp()
			op.Op = &api.PipelineOp_BatchGet{BatchGet: &api.BatchGetRequest{
				Namespace: o.BatchGet.Namespace, Keys: o.BatchGet.Keys, KeysOnly: o.BatchGet.KeysOnly, AtRevision: uint64(st.at)}}
		}
	}
}

// renewOp gives the call an operation in the place of the caller's.
func (st *callState) renewOp() *api.PipelineOp {
	st.call.Op = &api.PipelineOp{Id: st.call.Op.Id, TimeoutMs: st.call.Op.TimeoutMs}
	return st.call.Op
}

// joinPast starts a read of the past on this node's replica.
func (f *frame) joinPast(p *part) {
	point, err := f.r.o.Host.PointAt(p.group, p.st.at)
	if fault.CodeOf(err) != fault.FailedPrecondition {
		f.servePast(p, point, err)
		return
	}
	f.r.wg.Add(1) // the frame is open
	go func() {
		defer f.r.wg.Done()
		ctx, cancel := f.within(p.st.deadline)
		defer cancel()
		point, err := f.r.closedPoint(ctx, p.group, p.st.at)
		f.servePast(p, point, err)
	}()
}

// servePast goes on with a read whose point is known, or with why it is not.
func (f *frame) servePast(p *part, point host.ReadPoint, err error) {
	p.read, p.next = &groupRead{frame: f, group: p.group, point: point, err: err}, nil
	f.push(func(f *frame) { f.serveReads(p) })
}

// keptElsewhere reports whether a read that this replica's history does not reach
// is for the leader to answer.
func (f *frame) keptElsewhere(p *part, err error) bool {
	if fault.CodeOf(err) != fault.OutOfRange || p.attempts != 1 || p.st.call.Forwarded {
		return false
	}
	_, local, known := f.r.o.Host.Leader(p.group)
	return known && !local
}

// stillKept is the error of a read of the past that the floor overtook: what it
// found may be wrong.
func (r *Router) stillKept(g keyspace.GroupID, at keyspace.Revision) error {
	if at == 0 {
		return nil
	}
	if _, err := r.o.Host.PointAt(g, at); fault.CodeOf(err) == fault.OutOfRange {
		return err
	}
	return nil
}

// closedPoint closes a revision and waits until the replica here has all of it.
func (r *Router) closedPoint(ctx context.Context, g keyspace.GroupID, at keyspace.Revision) (host.ReadPoint, error) {
	clock, err := r.closeAt(ctx, g, at)
	if err != nil {
		return host.ReadPoint{}, err
	}
	return r.o.Host.PointBehind(ctx, host.ScanPoint{Group: g, Index: clock.Index}, at)
}

// closeAt has the leader of g read a clock that is not below at, unless that lies
// in the future.
func (r *Router) closeAt(ctx context.Context, g keyspace.GroupID, at keyspace.Revision) (host.ClockReading, error) {
	for waited := false; ; waited = true {
		clock, err := r.clockAt(ctx, g, 0)
		if err != nil || at <= clock.Clock {
			return clock, err
		}
		ahead := time.Duration(at.UnixMilli()-clock.Clock.UnixMilli()) * time.Millisecond
		switch {
		case ahead == 0:
			return r.clockAt(ctx, g, at)
		case waited || ahead > maxAhead || !r.pause(ctx, ahead):
			return clock, errFuture(at, clock.Clock)
		}
	}
}

func errFuture(at, now keyspace.Revision) error {
	text := func(r keyspace.Revision) string { return r.Time().UTC().Format("2006-01-02T15:04:05.000Z") }
	return fault.New(fault.OutOfRange, "the revision lies in the future",
		"limit", uint64(now), "actual", uint64(at), "limit_time", text(now), "actual_time", text(at))
}

// past makes at the list's snapshot.
func (l *lister) past(ctx context.Context, at keyspace.Revision) error {
	l.rev, l.fixed, l.level = at, true, api.Consistency_CONSISTENCY_SNAPSHOT
	if at.UnixMilli() < l.r.o.Clock.Wall()-recentPast.Milliseconds() {
		return nil // who serves a page closes it
	}
	readings := make([]host.ClockReading, len(l.groups))
	eg, ctx := errgroup.WithContext(ctx)
	for i, g := range l.groups {
		if _, err := l.r.o.Host.PointAt(g, at); err == nil {
			continue
		}
		eg.Go(func() (err error) {
			readings[i], err = l.r.closeAt(ctx, g, at)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	for i, g := range l.groups {
		if readings[i].Index != 0 {
			l.index[g] = readings[i].Index
		}
	}
	return nil
}
