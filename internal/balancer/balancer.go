package balancer

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

const (
	defaultInterval = time.Second
	// stepTimeout bounds one write or one change.
	stepTimeout = 5 * time.Second
)

// Host changes the members of groups; *host.Host is the real one.
type Host interface {
	Groups() []host.GroupStatus
	// ChangeMembers returns once the step is applied. A step that fails or
	// ends unknown is decided anew.
	ChangeMembers(ctx context.Context, g keyspace.GroupID, c host.MemberChange) (keyspace.ReplicaID, error)
	// Guide names the nodes that should have a voter, the leader first.
	Guide(g keyspace.GroupID, nodes []keyspace.NodeID)
}

// Store writes the group records; *router.Router is the real one.
type Store interface {
	Put(ctx context.Context, req *api.PutRequest) (*api.PutResponse, error)
	Delete(ctx context.Context, req *api.DeleteRequest) (*api.DeleteResponse, error)
}

// Directory knows the cluster's metadata; *meta.Directory is the real one.
type Directory interface {
	Map() *router.Map
}

// Options builds a Balancer; Logger, Silent, CopyRate and the durations may be
// left out.
type Options struct {
	Host      Host
	Store     Store
	Directory Directory
	Rand      env.Rand
	Clock     env.Clock
	Logger    *slog.Logger
	// Silent says for how long nobody heard from a node; 0 while it is alive.
	Silent func(keyspace.NodeID) time.Duration
	// CopyRate is told how many bytes per second this node may send of copies.
	CopyRate func(perSecond int64)
	// ReplaceAfter is how long a node may be silent before its replicas are
	// placed elsewhere; 0 for never.
	ReplaceAfter time.Duration
	// Interval between two looks at each group; 1 s by default.
	Interval time.Duration
}

// Balancer reconciles the groups that this node leads.
type Balancer struct {
	o    Options
	wg   sync.WaitGroup
	stop context.CancelFunc
	// recorded is what was last written of a group here.
	// Only the loop uses it.
	recorded map[keyspace.GroupID]recorded
	rate     int64 // last told to CopyRate
	// heard is since when dead nodes are heard from again.
	heard map[keyspace.NodeID]time.Duration
}

// New returns a balancer that does nothing yet.
func New(o Options) (*Balancer, error) {
	if o.Host == nil || o.Store == nil || o.Directory == nil || o.Rand == nil || o.Clock == nil {
		return nil, errors.New("balancer: Host, Store, Directory, Rand and Clock are required")
	}
	if o.Silent == nil {
		o.Silent = func(keyspace.NodeID) time.Duration { return 0 }
	}
	if o.CopyRate == nil {
		o.CopyRate = func(int64) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	return &Balancer{o: o, stop: func() {}, recorded: make(map[keyspace.GroupID]recorded),
		heard: make(map[keyspace.NodeID]time.Duration)}, nil
}

// Start begins to reconcile.
func (b *Balancer) Start(ctx context.Context) error {
	ctx, b.stop = context.WithCancel(ctx)
	b.wg.Add(1)
	go func() {
		defer b.wg.Done()
		b.run(ctx)
	}()
	return nil
}

// Close ends the loop; a change under way goes on in the group's log. It comes
// before the router's and the host's Close.
func (b *Balancer) Close() error {
	b.stop()
	b.wg.Wait()
	return nil
}

func (b *Balancer) run(ctx context.Context) {
	stepped := false
	for {
		// Half of the interval is random, so that leaders do not write in step. A
		// group that took a step is soon ready for the next.
		wait := b.o.Interval/2 + time.Duration(b.o.Rand.Uint64()%uint64(b.o.Interval/2+1))
		if stepped {
			wait /= 4
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		stepped = b.round(ctx)
	}
}

// round reconciles every group that this node leads, each by one step, and
// places all of them where this node leads the meta group.
func (b *Balancer) round(ctx context.Context) (stepped bool) {
	m := b.o.Directory.Map()
	b.pace(m)
	for _, g := range b.o.Host.Groups() {
		b.o.Host.Guide(g.Group, m.Wanted(g.Group))
		if g.Role != "leader" || !g.Serving || ctx.Err() != nil {
			continue
		}
		if err := b.record(ctx, &g, m); err != nil {
			// A replica is recorded before anything is built on it: a node of which
			// the records say that it holds nothing may be removed.
			b.o.Logger.Debug("group record is not written", "group", g.Group, "error", err)
			continue
		}
		if !m.Balance.Paused {
			stepped = b.reconcile(ctx, &g, m) || stepped
		}
		if g.Group == keyspace.MetaGroup {
			b.place(ctx, m)
		}
	}
	return stepped
}

// trickle is what copies under way are sent while moves are paused: they do not
// time out, and need not begin anew.
const trickle = 32 << 10

// pace tells how fast copies may be sent.
func (b *Balancer) pace(m *router.Map) {
	rate := m.Balance.CopyRate
	if m.Balance.Paused {
		rate = trickle
	}
	if rate != b.rate && rate > 0 {
		b.rate = rate
		b.o.CopyRate(rate)
	}
}

// recorded is a group's record as it was written here.
type recorded struct {
	router.Recorded
	members []format.Member
}

// record keeps group/<n> true: written once in each term, and when the members
// differ from what was written, or when somebody else wrote since. A leader that
// was deposed and does not know it must not write over its successor: the write
// holds for the version that was read, and a record of a later term is left.
func (b *Balancer) record(ctx context.Context, g *host.GroupStatus, m *router.Map) error {
	last, seen := b.recorded[g.Group], m.Recorded[g.Group]
	if seen.Term > g.Term {
		return fault.New(fault.FailedPrecondition, "a later leader recorded the members", "limit", seen.Term, "actual", g.Term)
	}
	if last.Term == g.Term && last.Version >= seen.Version && slices.Equal(last.members, g.Members) {
		return nil
	}
	version := max(last.Version, seen.Version)
	record := format.GroupRecord{Term: g.Term, Members: make([]format.MemberRecord, len(g.Members))}
	for i, member := range g.Members {
		record.Members[i] = format.MemberRecord(member)
	}
	ctx, cancel := context.WithTimeout(router.WithIdentity(ctx, router.SystemIdentity), stepTimeout)
	defer cancel()
	resp, err := b.o.Store.Put(ctx, &api.PutRequest{
		Namespace: keyspace.SystemNamespaceName, Key: format.SystemGroupKey(g.Group),
		Value: format.EncodeSystem(record), ContentType: "application/json",
		Condition: &api.Condition{VersionMatch: &version},
	})
	if err != nil {
		delete(b.recorded, g.Group) // what is read next decides
		return err
	}
	b.recorded[g.Group] = recorded{router.Recorded{Term: g.Term, Version: resp.GetVersion()}, slices.Clone(g.Members)}
	return nil
}

// reconcile takes the next step of a group and reports whether it did.
func (b *Balancer) reconcile(ctx context.Context, g *host.GroupStatus, m *router.Map) bool {
	step, ok := Decide(g, m)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	log := b.o.Logger.With("group", g.Group, "change", step.Change, "reason", step.Reason)
	replica, err := b.o.Host.ChangeMembers(ctx, g.Group, step.Change)
	if err != nil {
		log.Warn("members are not changed", "error", err)
		return false
	}
	log.Info("members are changed", "replica", replica)
	return true
}
