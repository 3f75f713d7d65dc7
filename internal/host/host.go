package host

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/raftlog"
)

// Host runs the replicas of one node.
//
// One loop owns all of them. An iteration takes the whole inbox, steps raft,
// evaluates what waits into at most one entry per group, collects every dirty
// group's Ready, writes all groups' entries and hard states in one frame, starts
// its sync and sends messages (so that a leader's sync runs beside
// replication), and applies and answers what is committed. Responses that wait for
// durability leave when the sync has ended (syncState). What arrives meanwhile
// is the next batch, so batching adapts by itself. One lane, one sync at a
// time: more lanes make smaller batches and pay more syncs.
type Host struct {
	opt    Options
	log    *raftlog.Log
	inbox  *inbox
	groups map[keyspace.GroupID]*group
	order  []*group
	dir    atomic.Pointer[map[keyspace.GroupID]*group] // copy on write, for readers

	mail    mail
	batch   *raftlog.Batch
	out     outgoing // where messages are encoded, one at a time
	inline  bool     // this loop's write is synced before it ends
	appends []appendTask
	syncs   syncState
	pace    chunkPace
	peers   map[keyspace.NodeID]clockSample
	flush   flushState
	sweeps  int         // rounds of sweeps under way
	snaps   int         // snapshots being sent
	offered []*group    // snapshots offered to raft in this loop
	stalled bool        // the disk is full: the batch and its responses wait
	hanging atomic.Bool // a sync runs for longer than StallAfter
	unfit   atomic.Bool // this node should lead nothing
	// clockAhead is how far the clock is from the median of all, in milliseconds.
	clockAhead atomic.Int64
	// hides: see HidesReplicas.
	hides   atomic.Bool
	fitness fitness
	watched loopWatch
	ticked  bool // this loop has let time pass

	nextRead     uint64
	gathering    time.Duration // how long the first group whose readers are held holds them still, 0 for none
	nextInstance atomic.Uint64
	inherited    keyspace.InstanceID // the highest instance of earlier lives of the node
	receiving    atomic.Int64        // snapshots being received: the floor stands still
	floor        atomic.Uint64
	ticks        uint64

	started bool
	closing bool
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	jobs    sync.Mutex
	over    bool // no job begins any more; guarded by jobs
	failed  atomic.Pointer[error]
	done    chan struct{}
}

// New opens the replicas that the log knows. Nothing runs before Start.
func New(o Options) (*Host, error) {
	o.setDefaults()
	h := &Host{opt: o, log: o.Log, inbox: newInbox(), groups: make(map[keyspace.GroupID]*group),
		batch: o.Log.NewBatch(), peers: make(map[keyspace.NodeID]clockSample), done: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.flush.checkpoints = make(map[uint64][]checkpointOf)
	if h.opt.Go == nil {
		h.opt.Go = h.spawn
	}
	if err := h.scanInstances(); err != nil {
		return nil, err
	}
	for _, info := range o.Log.Groups() {
		if info.Removed {
			continue
		}
		if err := h.openGroup(info); err != nil {
			return nil, fmt.Errorf("opening group %d: %w", info.Group, err)
		}
	}
	h.loadFloor()
	h.shareDirectory()
	return h, nil
}

// spawn runs a job on a goroutine that Close waits for. After that there is none:
// the loop has ended, and readers and snapshots give up instances only.
func (h *Host) spawn(job func(context.Context)) {
	h.jobs.Lock()
	defer h.jobs.Unlock()
	if h.over {
		return
	}
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		job(h.ctx)
	}()
}

// Start runs the loop until Close or a fatal error (see Err).
func (h *Host) Start(context.Context) {
	h.started = true
	h.deleteOrphans()
	h.spawn(h.watch)
	go h.run()
}

func (h *Host) run() {
	defer close(h.done)
	defer h.endFailed()
	ticker := time.NewTicker(h.opt.TickInterval)
	defer ticker.Stop()
	paced := time.NewTimer(time.Hour)
	defer paced.Stop()
	for {
		if !h.busy() {
			if wait := h.patience(); wait > 0 {
				paced.Reset(wait)
			}
			select {
			case <-h.inbox.wake:
			case <-paced.C:
				h.paced()
			case <-ticker.C:
				h.Tick()
			case <-h.ctx.Done():
				return
			}
		} else {
			select {
			case <-ticker.C:
				h.Tick()
			case <-h.ctx.Done():
				return
			default:
			}
		}
		// Goroutines that can run hand over what they have first: it joins this
		// loop. This waits for nothing.
		runtime.Gosched()
		if err := h.Step(); err != nil {
			h.fail(err)
			return
		}
	}
}

// patience is when the loop has work without mail, 0 for not.
func (h *Host) patience() time.Duration {
	var wait time.Duration
	for _, left := range []time.Duration{h.gathering, h.beatsDue(), h.pace.due(), h.lagDue()} {
		if left > 0 && (wait == 0 || left < wait) {
			wait = left
		}
	}
	return wait
}

// paced lets the groups look again for chunks to propose and reads to confirm.
func (h *Host) paced() {
	h.pace.waiting = false
	for _, g := range h.order {
		g.dirty = true
	}
}

// Tick lets time pass by one TickInterval at the next Step.
func (h *Host) Tick() {
	h.inbox.mu.Lock()
	h.inbox.in.ticks++
	h.inbox.mu.Unlock()
}

// busy reports whether a Step would find work without new mail.
func (h *Host) busy() bool {
	if h.stalled {
		return false // the next tick tries again
	}
	for _, g := range h.order {
		if g.dirty || g.rn.HasReady() {
			return true
		}
	}
	return !h.batch.Empty()
}

// Busy reports whether Step has work to do.
func (h *Host) Busy() bool {
	if h.busy() {
		return true
	}
	h.inbox.mu.Lock()
	defer h.inbox.mu.Unlock()
	return !h.inbox.in.empty()
}

// Step runs one iteration of the loop. An error is fatal: the disk failed or a
// replica met an entry it must not skip.
func (h *Host) Step() error {
	start := h.opt.Clock.Mono()
	h.watched.began.Store(int64(max(1, start)))
	defer h.watched.began.Store(0)
	h.mail = h.inbox.take(h.mail)
	h.receive()
	h.ticked = h.mail.ticks > 0
	h.mail.reset()
	h.gathering = 0
	for _, g := range h.order {
		switch {
		case g.dirty:
			g.dirty = false
			h.propose(g)
			h.confirmReads(g)
		case g.reads.held:
			h.confirmReads(g)
		}
		if left := g.core.HoldLeft(start); left > 0 {
			h.lookAgain(left)
		}
	}
	for _, g := range h.order {
		if !h.stalled && g.rn.HasReady() {
			h.ready(g)
		}
	}
	if h.ticked {
		h.retryReads()
	}
	h.releaseBeats()
	if err := h.commit(); err != nil {
		return err
	}
	h.opt.Out.Flush()
	if err := h.applyAll(); err != nil {
		return err
	}
	if !h.stalled {
		h.refuseOffered()
	}
	h.opt.Out.Flush()
	h.maybeSeal()
	if f := h.opt.Hooks.LoopLatency; f != nil {
		f(h.opt.Clock.Mono() - start)
	}
	return nil
}

// receive distributes the mail to the groups.
func (h *Host) receive() {
	for i := range h.mail.messages {
		h.step(&h.mail.messages[i])
	}
	for _, f := range h.mail.controls {
		f()
	}
	for range h.mail.ticks {
		h.tick()
	}
	for _, r := range h.mail.requests {
		h.admit(r)
	}
	for _, w := range h.mail.reads {
		h.admitRead(w)
	}
}

// fail stops the host for good; everything that waits ends with the error.
func (h *Host) fail(err error) {
	h.failed.CompareAndSwap(nil, &err)
	h.opt.Logger.Error("the host stopped", "error", err)
	h.stopWaiters(errFailed(err))
	h.cancel()
}

// endFailed answers what came while a loop ran that failed, and refuses what
// comes later. Close would do it too late: whoever sends requests is closed
// before the host, and waits for the answers.
func (h *Host) endFailed() {
	err := h.Err()
	if err == nil {
		return
	}
	down := errFailed(err)
	h.receiveLast(down)
	h.stopWaiters(down)
}

func errFailed(err error) error {
	return fault.Wrap(fault.Unavailable, err, "this node's storage failed")
}

// Err returns why the host stopped by itself, nil while it runs.
func (h *Host) Err() error {
	if p := h.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Done is closed when the loop has ended.
func (h *Host) Done() <-chan struct{} { return h.done }

// Close hands leadership on where it can, flushes the deltas, writes the last
// checkpoints and stops. The log and the engine stay open; their owner closes
// them afterwards.
func (h *Host) Close() error {
	if h.started && h.Err() == nil {
		h.handOver()
	}
	h.cancel()
	if h.started {
		<-h.done
	}
	h.jobs.Lock()
	h.over = true
	h.jobs.Unlock()
	h.wg.Wait()
	h.closing = true
	h.receiveLast(errStopped())
	h.stopWaiters(errStopped())
	if h.Err() != nil {
		return h.Err()
	}
	return h.finalFlush()
}

// receiveLast ends requests that arrived after the loop.
func (h *Host) receiveLast(down error) {
	m := h.inbox.close()
	for _, r := range m.requests {
		r.Fail(down)
	}
	for _, w := range m.reads {
		w.done(ReadPoint{}, down)
	}
}

func errStopped() error { return fault.New(fault.Unavailable, "this node is shutting down") }

func (h *Host) stopWaiters(err error) {
	for _, g := range h.order {
		g.core.StepDown(err)
		g.reads.failAll(err)
		g.answerDigests(0, err)
		if g.conf != nil {
			g.conf.done(err)
			g.conf = nil
		}
	}
}

// shareDirectory publishes the set of groups to readers.
func (h *Host) shareDirectory() {
	m := make(map[keyspace.GroupID]*group, len(h.groups))
	for id, g := range h.groups {
		m[id] = g
	}
	h.dir.Store(&m)
}

// lookup returns the replica that may serve data of a group, nil for none.
func (h *Host) lookup(id keyspace.GroupID) *group {
	if h.opt.Witness {
		return nil
	}
	return (*h.dir.Load())[id]
}

// control runs f on the loop.
func (h *Host) control(f func()) {
	h.inbox.put(func(m *mail) { m.controls = append(m.controls, f) })
}
