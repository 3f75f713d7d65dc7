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
	// FoundGroup makes a group's first and only replica; nothing when it is there.
	FoundGroup(ctx context.Context, seed host.GroupSeed) error
}

// Store writes the cluster's records; *router.Router is the real one.
type Store interface {
	Put(ctx context.Context, req *api.PutRequest) (*api.PutResponse, error)
	BatchPut(ctx context.Context, req *api.BatchPutRequest) (*api.BatchPutResponse, error)
	Delete(ctx context.Context, req *api.DeleteRequest) (*api.DeleteResponse, error)
}

// Directory knows the cluster's metadata; *meta.Directory is the real one.
type Directory interface {
	Map() *router.Map
}

// Options builds a Balancer; Logger, Silent, CopyRate and the durations may be
// left out.
type Options struct {
	Node      keyspace.NodeID
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
	o     Options
	wg    sync.WaitGroup
	stop  context.CancelFunc
	steps *steps
	mu    sync.Mutex
	// recorded is what was last written of a group here; guarded by mu.
	recorded map[keyspace.GroupID]recorded
	// gaveUp are the notes in force of the groups led here; guarded by mu.
	gaveUp map[keyspace.GroupID][]router.GivenUp
	// watches are of the learners of groups led here; only the loop uses them.
	watches map[keyspace.GroupID]*learnerWatch
	rate    int64 // last told to CopyRate; only the loop uses it
	// heard is since when dead nodes are heard from again; only the step of the
	// meta group uses it.
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
	return &Balancer{o: o, stop: func() {}, steps: newSteps(), recorded: make(map[keyspace.GroupID]recorded),
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

// Close ends the loop and waits for the steps that it began; a change under way goes on in the group's log. It comes
// before the router's and the host's Close.
func (b *Balancer) Close() error {
	b.stop()
	b.wg.Wait()
	b.steps.running.Wait()
	return nil
}

func (b *Balancer) run(ctx context.Context) {
	for {
		// Half of the interval is random, so that leaders do not write in step.
		wait := b.o.Interval/2 + time.Duration(b.o.Rand.Uint64()%uint64(b.o.Interval/2+1))
		if !b.pause(ctx, wait) {
			return
		}
		b.round(ctx)
	}
}

// pause waits until the next round, and reports whether there is one. A group
// that took a step is soon ready for the next.
func (b *Balancer) pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.steps.taken:
		timer.Reset(wait / 4)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// round looks at every group that this node leads, and begins a step of each
// that needs one.
func (b *Balancer) round(ctx context.Context) {
	m := b.o.Directory.Map()
	b.pace(m)
	var led []host.GroupStatus
	b.found(ctx, m)
	for _, g := range b.o.Host.Groups() {
		b.o.Host.Guide(g.Group, m.Wanted(g.Group))
		if g.Role == "leader" && g.Serving {
			led = append(led, g)
		}
	}
	b.watchLearners(led, m)
	b.keepGivenUp(led, m)
	b.steps.begin(led, func(g *host.GroupStatus) bool { return b.needsStep(g, m) },
		func(g *host.GroupStatus) bool { return b.step(ctx, g, m) })
}

// needsStep reports whether there is anything to do for a group.
func (b *Balancer) needsStep(g *host.GroupStatus, m *router.Map) bool {
	if g.Group == keyspace.MetaGroup || !b.isRecorded(g, m) {
		return true
	}
	_, ok := Decide(g, m)
	return ok && !m.Balance.Paused
}

// step records a group and takes its next step; the leader of the meta group
// places all groups besides. It reports whether members changed.
func (b *Balancer) step(ctx context.Context, g *host.GroupStatus, m *router.Map) (changed bool) {
	if err := b.record(ctx, g, m); err != nil {
		// A replica is recorded before anything is built on it: a node of which
		// the records say that it holds nothing may be removed.
		b.o.Logger.Debug("group record is not written", "group", g.Group, "error", err)
		return false
	}
	if g.Group == keyspace.MetaGroup {
		b.place(ctx, m)
	}
	return !m.Balance.Paused && b.reconcile(ctx, g, m)
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
	givenUp []router.GivenUp
}

// record keeps group/<n> true: written once in each term, and when the members
// differ from what was written, or when somebody else wrote since. A leader that
// was deposed and does not know it must not write over its successor: the write
// holds for the version that was read, and a record of a later term is left.
func (b *Balancer) record(ctx context.Context, g *host.GroupStatus, m *router.Map) error {
	last, seen := b.lastRecorded(g.Group), m.Recorded[g.Group]
	if _, replaced := m.Replaced[b.o.Node]; replaced || m.Removed[b.o.Node] {
		return fault.New(fault.FailedPrecondition, "this node does not belong to the cluster any more", "node", b.o.Node)
	}
	if seen.Term > g.Term {
		return fault.New(fault.FailedPrecondition, "a later leader recorded the members", "limit", seen.Term, "actual", g.Term)
	}
	if b.isRecorded(g, m) {
		return nil
	}
	version, givenUp := max(last.Version, seen.Version), b.givenUp(g.Group)
	record := format.GroupRecord{Term: g.Term, Members: make([]format.MemberRecord, len(g.Members))}
	for i, member := range g.Members {
		record.Members[i] = format.MemberRecord(member)
	}
	for _, u := range givenUp {
		record.GivenUp = append(record.GivenUp, format.GivenUpRecord(u))
	}
	ctx, cancel := context.WithTimeout(router.WithIdentity(ctx, router.SystemIdentity), stepTimeout)
	defer cancel()
	written, err := b.writeGroup(ctx, g, m, record, version)
	if err != nil {
		b.setRecorded(g.Group, recorded{}) // what is read next decides
		return err
	}
	b.setRecorded(g.Group, recorded{router.Recorded{Term: g.Term, Version: written}, slices.Clone(g.Members), givenUp})
	return nil
}

// isRecorded reports whether a group's record says what is so.
func (b *Balancer) isRecorded(g *host.GroupStatus, m *router.Map) bool {
	last := b.lastRecorded(g.Group)
	return last.Term == g.Term && last.Version >= m.Recorded[g.Group].Version && slices.Equal(last.members, g.Members) &&
		slices.Equal(last.givenUp, b.givenUp(g.Group))
}

func (b *Balancer) lastRecorded(g keyspace.GroupID) recorded {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.recorded[g]
}

func (b *Balancer) setRecorded(g keyspace.GroupID, r recorded) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recorded[g] = r
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
