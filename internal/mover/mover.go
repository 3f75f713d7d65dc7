package mover

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"kvstore/internal/env"
	"kvstore/internal/env/system"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// Host runs the replicas of this node; *host.Host is the real one.
type Host interface {
	Groups() []host.GroupStatus
	// SlotStates are the published ones of the replicas here.
	SlotStates() map[keyspace.GroupID]*format.SlotState
	// ChangeSlots takes a step in the log of a group that is led here and returns
	// once it is applied.
	ChangeSlots(ctx context.Context, g keyspace.GroupID, c format.SlotChange) (host.SlotAnswer, error)
	// ImportSlots writes records to a group that is led here, with how far the
	// import or the purge is after them.
	ImportSlots(ctx context.Context, g keyspace.GroupID, c format.SlotChange, keys []format.ExportKey) error
	// MergePage returns what a group lacks of a page and, of a page of a view at a
	// revision, deletions of what it has and the page, from after on, has not. It may
	// shorten the page, or raise its floor.
	MergePage(ctx context.Context, g keyspace.GroupID, slots *format.SlotSet, page *host.ExportPage, after []byte, at keyspace.Revision) ([]format.ExportKey, error)
	// LeftoverPage returns deletions of what a group has and does not own.
	LeftoverPage(ctx context.Context, g keyspace.GroupID, after []byte, maxKeys int) (keys []format.ExportKey, last []byte, done bool, err error)
}

// Sender asks the group at the other end; *router.Router is the real one. The
// first three go to the group's leader.
type Sender interface {
	SlotStep(ctx context.Context, g keyspace.GroupID, c format.SlotChange) (host.SlotAnswer, error)
	SlotStatus(ctx context.Context, g keyspace.GroupID) (router.SlotStatus, error)
	SlotChanges(ctx context.Context, q host.ChangedRequest) (host.ExportPage, error)
	// SlotExport may be served by any replica.
	SlotExport(ctx context.Context, q host.ExportRequest) (host.ExportPage, error)
}

// Directory knows the cluster's metadata; *meta.Directory is the real one.
type Directory interface {
	Map() *router.Map
	Refresh(ctx context.Context) error
}

// Options builds a Mover; Logger and Interval may be left out.
type Options struct {
	Host      Host
	Sender    Sender
	Store     Store
	Directory Directory
	Clock     env.Clock
	Rand      env.Rand
	Logger    *slog.Logger
	// Interval between two looks at each group; 500 ms by default.
	Interval time.Duration
	// Bugs are planted by the simulation only.
	Bugs invariant.Bug
}

const (
	defaultInterval = 500 * time.Millisecond
	// stepTimeout bounds one step, exportTimeout one page.
	stepTimeout   = 5 * time.Second
	exportTimeout = 20 * time.Second
	// Pause before a group is looked at again after a failure: doubled each time.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 15 * time.Second
)

// Mover moves slots to and clears them from the groups that this node leads. A
// group has at most one worker, which ends when it has to wait.
type Mover struct {
	o     Options
	pacer pacer
	wg    sync.WaitGroup
	stop  context.CancelFunc

	mu       sync.Mutex
	working  map[keyspace.GroupID]bool      // guarded by mu
	retry    map[keyspace.GroupID]retry     // guarded by mu
	progress map[keyspace.GroupID]*progress // guarded by mu
}

type retry struct {
	at    time.Duration
	pause time.Duration
}

// New returns a mover that does nothing yet.
func New(o Options) (*Mover, error) {
	if o.Host == nil || o.Sender == nil || o.Store == nil || o.Directory == nil || o.Clock == nil || o.Rand == nil {
		return nil, errors.New("mover: Host, Sender, Store, Directory, Clock and Rand are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	return &Mover{
		o: o, stop: func() {}, pacer: pacer{clock: o.Clock}, working: make(map[keyspace.GroupID]bool),
		retry: make(map[keyspace.GroupID]retry), progress: make(map[keyspace.GroupID]*progress),
	}, nil
}

// Start begins to move.
func (m *Mover) Start(ctx context.Context) error {
	ctx, m.stop = context.WithCancel(router.WithIdentity(ctx, router.SystemIdentity))
	m.wg.Go(func() { m.run(ctx) })
	return nil
}

// Close ends all workers where they are. It comes before the router's and the
// host's Close.
func (m *Mover) Close() error {
	m.stop()
	m.wg.Wait()
	return nil
}

func (m *Mover) run(ctx context.Context) {
	for {
		m.round(ctx)
		// Half of the interval is random, so that nodes do not ask in step.
		wait := m.o.Interval/2 + time.Duration(m.o.Rand.Uint64()%uint64(m.o.Interval/2+1))
		if system.Pause(ctx, wait) != nil {
			return
		}
	}
}

// round starts a worker for every group led here that has something to do.
func (m *Mover) round(ctx context.Context) {
	now := m.o.Clock.Mono()
	view := m.o.Directory.Map()
	m.pacer.set(view.Balance.CopyRate)
	slots := m.o.Host.SlotStates()
	for _, g := range m.o.Host.Groups() {
		if g.Group == keyspace.MetaGroup || g.Role != "leader" || !g.Serving {
			m.forget(g.Group)
			continue
		}
		g.Slots = slots[g.Group]
		if work := m.Work(&g, view); work != nil && m.begin(g.Group, now) {
			m.wg.Go(func() { m.end(g.Group, work(ctx)) })
		}
	}
}

// Work is what a group's worker does, nil for nothing: it drives the move to the
// group until it ends or has to wait, and then does the group's part as a sender.
func (m *Mover) Work(g *host.GroupStatus, view *router.Map) func(context.Context) error {
	move, moving := moveTo(g, view)
	if !moving && NextOut(g.Slots, recordOf(g.Group, view)).Kind == OutNothing {
		return nil
	}
	r := &receipt{m: m, group: g.Group, move: move, own: g.Slots}
	return func(ctx context.Context) error {
		if moving {
			if err := r.run(ctx); err != nil {
				return err
			}
		}
		return (&clearing{m: m, group: r.group, own: r.own}).run(ctx)
	}
}

// begin takes a group for a worker, unless it has one or is to be left alone
// for a while.
func (m *Mover) begin(g keyspace.GroupID, now time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.working[g] || now < m.retry[g].at {
		return false
	}
	m.working[g] = true
	return true
}

func (m *Mover) end(g keyspace.GroupID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.working, g)
	if err == nil {
		delete(m.retry, g)
		return
	}
	r := m.retry[g]
	r.pause = min(max(2*r.pause, firstRetry), lastRetry)
	r.at = m.o.Clock.Mono() + r.pause
	m.retry[g] = r
	m.o.Logger.Info("a move of slots is interrupted and will be continued", "group", g, "again_in", r.pause, "error", err)
}

// forget drops what is known of a group that is led elsewhere.
func (m *Mover) forget(g keyspace.GroupID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.working[g] {
		delete(m.retry, g)
		delete(m.progress, g)
	}
}
