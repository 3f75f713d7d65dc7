package router

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// The janitor of a node looks after the transactions of the groups that it leads:
// it has those finished that are prepared for long and that nobody meets, and
// deletes the records of old ones.
//
// A record may be deleted when all participants are final, which is not looked up
// for each (DESIGN 9, ADR 0017). Each step begins when the one before was answered:
//
//  1. The group raises its low-water mark to a time some minutes ago, and tells in the
//     same step the oldest of what is prepared in it. From then on its own records at
//     or below the mark are final for ever, unless that is not above the mark.
//  2. The map is read, which then has every group that could hold a participant, and
//     every other data group tells the oldest of what is prepared there. A group that
//     owns nothing by the map may have accepted slots already.
//  3. When all of it is newer than the mark, the group deletes its final records at or
//     below it.
//
// The group is never asked again after the others: what was prepared in it at the
// raise may have been committed meanwhile, while another group that had nothing
// prepared when it was asked has the commit still to come. Groups without old records
// do nothing, and one group that does not answer keeps everything.

const (
	lookAfter = time.Second
	// preparedLong is how long a transaction may be prepared before it is looked
	// after.
	preparedLong = 4 * time.Second
	collectEvery = 30 * time.Second
	// collectBatch are the records deleted by one entry, collectMost those of a group
	// each time.
	collectBatch, collectMost = 256, 1 << 16
	collectWithin             = 10 * time.Second
)

type janitor struct {
	keep time.Duration // RememberFor
	// seen is since when a transaction is known to be prepared here; the janitor's
	// own.
	seen map[keyspace.TxnKey]time.Duration
	// prepared are those of the groups that are led here.
	prepared  atomic.Int64
	collected atomic.Uint64
	// Collections that something prepared, or a group that did not answer, ended
	// before anything was deleted.
	held, failed atomic.Uint64
	// failing are the groups whose last collection failed; the janitor's own.
	failing map[keyspace.GroupID]bool
}

// tend runs until the router closes.
func (r *Router) tend() {
	look, collect := time.NewTicker(lookAfter), time.NewTicker(collectEvery)
	defer look.Stop()
	defer collect.Stop()
	for {
		select {
		case <-look.C:
			r.lookAfterPrepared()
		case <-collect.C:
			ctx, cancel := context.WithTimeout(r.ctx, collectEvery)
			r.CollectTransactions(ctx)
			cancel()
		case <-r.ctx.Done():
			return
		}
	}
}

// lookAfterPrepared has finished what is prepared for long.
func (r *Router) lookAfterPrepared() {
	j, now := &r.txns.janitor, r.o.Clock.Mono()
	old, count := j.seen, 0
	j.seen = make(map[keyspace.TxnKey]time.Duration)
	for _, g := range r.o.Host.Groups() {
		if _, local, _ := r.o.Host.Leader(g.Group); !local {
			continue
		}
		count += len(g.Prepared)
		for _, p := range g.Prepared {
			since, known := old[p.Key]
			if !known {
				since = now
			}
			j.seen[p.Key] = since
			if now-since >= preparedLong {
				r.FinishTransaction(p)
			}
		}
	}
	j.prepared.Store(int64(count))
}

// CollectTransactions deletes records of transactions, and outcomes of requests,
// that are older than RememberFor, of the groups that are led here.
func (r *Router) CollectTransactions(ctx context.Context) {
	var led []keyspace.GroupID
	for _, g := range r.o.Host.Groups() {
		if _, local, _ := r.o.Host.Leader(g.Group); local && g.Group != keyspace.MetaGroup {
			led = append(led, g.Group)
		}
	}
	r.collectGroups(ctx, led)
}

// collectGroups collects for each, and says when that begins and ceases to fail.
func (r *Router) collectGroups(ctx context.Context, groups []keyspace.GroupID) {
	j := &r.txns.janitor
	before := j.failing
	j.failing = make(map[keyspace.GroupID]bool)
	for _, g := range groups {
		err := r.collectGroup(ctx, g)
		switch {
		case err != nil:
			j.failed.Add(1)
			j.failing[g] = true
			level := slog.LevelWarn
			if before[g] || r.ctx.Err() != nil {
				level = slog.LevelDebug
			}
			r.o.Logger.Log(ctx, level, "records of old transactions are kept: not every group could be asked", "group", g, "error", err)
		case before[g]:
			r.o.Logger.Info("records of old transactions are deleted again", "group", g)
		}
	}
}

// collectGroup deletes the old records of a group.
func (r *Router) collectGroup(ctx context.Context, g keyspace.GroupID) error {
	ctx, cancel := context.WithTimeout(ctx, collectWithin)
	defer cancel()
	clock := r.o.Host.Clocks(ctx, []keyspace.GroupID{g}, 0)[0]
	if clock.Err != nil {
		return clock.Err
	}
	low := keyspace.RevisionAt(clock.Clock.UnixMilli() - r.txns.janitor.keep.Milliseconds())
	keys, err := r.oldRecords(ctx, g, clock.Clock, low, collectBatch)
	if err != nil || len(keys) == 0 {
		return err
	}
	q := &replica.LowOp{Raise: low}
	if err := r.submitOwn(ctx, &replica.Request{Group: g, Low: q}); err != nil {
		return err
	}
	if q.Oldest <= q.LowWater {
		r.txns.janitor.held.Add(1)
		return nil // its recovery is under way
	}
	newer, err := r.othersAbove(ctx, g, q.LowWater)
	if err != nil {
		return err
	}
	if !newer {
		r.txns.janitor.held.Add(1)
		return nil
	}
	return r.forget(ctx, g, q.LowWater)
}

// othersAbove reports whether all that is prepared in the other data groups was
// created above a group's mark; they are asked after the group itself has answered.
func (r *Router) othersAbove(ctx context.Context, g keyspace.GroupID, low keyspace.Revision) (bool, error) {
	if err := r.o.Directory.Refresh(ctx); err != nil {
		return false, err
	}
	groups := r.o.Directory.Map().Groups
	if int(g) > groups {
		return false, fault.New(fault.Unavailable, "the groups of the cluster are not known yet", "group", g, "known", groups)
	}
	for other := keyspace.GroupID(1); int(other) <= groups; other++ {
		if other == g {
			continue
		}
		oldest, err := r.oldestPrepared(ctx, other)
		if err != nil || oldest <= low {
			return false, err
		}
	}
	return true, nil
}

// forget deletes all records of a group at or below its mark, bounded.
func (r *Router) forget(ctx context.Context, g keyspace.GroupID, low keyspace.Revision) error {
	for done := 0; done < collectMost; {
		clock := r.o.Host.Clocks(ctx, []keyspace.GroupID{g}, 0)[0]
		if clock.Err != nil {
			return clock.Err
		}
		keys, err := r.oldRecords(ctx, g, clock.Clock, low, collectBatch)
		if err != nil || len(keys) == 0 {
			return err
		}
		op := &replica.ForgetOp{Keys: keys}
		if err := r.submitOwn(ctx, &replica.Request{Group: g, Forget: op}); err != nil {
			return err
		}
		r.txns.janitor.collected.Add(uint64(op.Forgotten))
		if done += op.Forgotten; op.Forgotten < len(keys) {
			return nil // what is not final is not forgotten
		}
	}
	return nil
}

// oldRecords are the first records of transactions created at or below low.
func (r *Router) oldRecords(ctx context.Context, g keyspace.GroupID, at, low keyspace.Revision, limit int) (keys []keyspace.TxnKey, err error) {
	page, err := r.scanHere(ctx, []host.ScanPoint{{Group: g}}, host.ScanRequest{
		Namespace: keyspace.TxnNamespace, Revision: at, KeysOnly: true, Limit: limit, MaxBytes: r.o.PageBytes,
		End: keyspace.TxnID{Created: low + 1}.Append(nil),
	})
	if err != nil {
		return nil, err
	}
	defer page.release()
	for i := range page.records {
		key, err := keyspace.ParseTxnKey(string(page.key(i)))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// submitOwn runs a request on this node's replica.
func (r *Router) submitOwn(ctx context.Context, q *replica.Request) error {
	done := make(chan error, 1)
	q.Deadline = r.o.Clock.Mono() + r.timeout(ctx, 0)
	q.Done = func(q *replica.Request) { done <- q.Err }
	r.o.Host.SubmitAll(ctx, []*replica.Request{q})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fault.Wrap(plainCode(ctx.Err()), ctx.Err(), "the group did not answer in time", "group", q.Group)
	}
}

// TxnLowWaterMethod is the Peer.Call method behind oldestPrepared.
const TxnLowWaterMethod = "TxnLowWater"

// oldestPrepared asks the leader of a group for the earliest creation of what is
// prepared there.
func (r *Router) oldestPrepared(ctx context.Context, g keyspace.GroupID) (oldest keyspace.Revision, err error) {
	q := &api.TxnLowWaterRequest{Group: uint32(g)}
	take := func(resp *api.TxnLowWaterResponse, err error) error {
		oldest = keyspace.Revision(resp.GetOldest())
		return err
	}
	err = r.onGroup(ctx, g, attempt{
		local: func(ctx context.Context) error { return take(r.ServeTxnLowWater(ctx, q)) },
		remote: func(ctx context.Context, node keyspace.NodeID, _ api.PeerClient) error {
			resp := &api.TxnLowWaterResponse{}
			return take(resp, r.CallPeer(ctx, node, TxnLowWaterMethod, q, resp))
		},
	})
	return oldest, err
}

// ServeTxnLowWater answers TxnLowWaterMethod.
func (r *Router) ServeTxnLowWater(ctx context.Context, q *api.TxnLowWaterRequest) (*api.TxnLowWaterResponse, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	op := &replica.LowOp{}
	if err := r.submitOwn(ctx, &replica.Request{Group: keyspace.GroupID(q.GetGroup()), Low: op}); err != nil {
		return nil, err
	}
	return &api.TxnLowWaterResponse{Oldest: uint64(op.Oldest), LowWater: uint64(op.LowWater)}, nil
}
