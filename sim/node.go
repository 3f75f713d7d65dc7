package sim

import (
	"context"
	"strconv"
	"time"

	"kvstore/internal/engine/mem"
	"kvstore/internal/engine/present"
	"kvstore/internal/env/simfs"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/raftlog"
	"kvstore/internal/sstable"
)

// node is one machine: a disk, an engine, a clock and, while it is up, a host.
type node struct {
	w      *World
	index  int
	life   int  // counts starts; events of earlier lives do nothing
	wiped  int  // counts wiped directories; part of the node id
	hidden bool // damage of the log hides which replicas lived here
	disk   *simfs.FS
	engine *mem.Mem
	host   *host.Host
	log    *raftlog.Log
	skew   int64 // milliseconds
	paused time.Duration
	stuck  time.Duration // until when the disk does not answer
	full   bool          // the disk has a capacity
	// damaged: its log lost durable records once.
	damaged bool
	woken   bool
	// moving are the groups whose moves of slots are driven here; tasks are ended
	// with this life.
	moving map[keyspace.GroupID]bool
	// finishing are the transactions of others that are being finished here.
	finishing map[keyspace.TxnKey]bool
	tasks     []func()
	hub       *watchHub // of runs with watchers
}

func newNode(w *World, i int) *node {
	return &node{w: w, index: i, disk: simfs.New(), engine: mem.Open()}
}

// witness reports whether the node votes without data.
func (n *node) witness() bool { return n.index >= n.w.dataNodes() }

func nodeID(index, wiped int) keyspace.NodeID {
	return keyspace.NodeID("n" + strconv.Itoa(index) + "." + strconv.Itoa(wiped))
}

func member(replica, n int) format.Member {
	return format.Member{Replica: keyspace.ReplicaID(replica + 1), Node: nodeID(n, 0)}
}

func (n *node) id() keyspace.NodeID { return nodeID(n.index, n.wiped) }

// firstWall is the time at which a run begins, in Unix milliseconds.
const firstWall = 1_700_000_000_000

// Wall and Mono make the node its own clock.
func (n *node) Wall() int64         { return firstWall + n.w.now.Milliseconds() + n.skew }
func (n *node) Mono() time.Duration { return n.w.now }

// boot starts the host on what the disk has.
func (n *node) boot(first bool) {
	n.life++
	n.moving, n.finishing = make(map[keyspace.GroupID]bool), make(map[keyspace.TxnKey]bool)
	log, err := raftlog.Open(n.disk, "log", raftlog.Options{SegmentBytes: 256 << 10, CacheBytes: 64 << 10, Inline: true, Clock: n, Rand: n.w.rng})
	if err != nil {
		n.w.problem("node %d: opening the log: %v", n.index, err)
		return
	}
	n.log = log
	life := n.life
	past, err := sstable.OpenHistory(n.disk, "history", sstable.Options{})
	if err != nil {
		n.w.problem("node %d: opening the history: %v", n.index, err)
		return
	}
	runs, err := sstable.OpenRuns(n.disk, "runs", sstable.Options{})
	if err != nil {
		n.w.problem("node %d: opening the runs: %v", n.index, err)
		return
	}
	known, err := present.Wrap(context.Background(), n.engine)
	if err != nil {
		n.w.problem("node %d: asking the engine: %v", n.index, err)
		return
	}
	store := mvcc.New(known, mvcc.Options{SealBytes: 8 << 10, MaxSealed: 4, History: past, Runs: runs, MergeRuns: 3, SmallBytes: n.w.runBytes(1500), MoveBytes: n.w.moveBytes(),
		ApartBytes: 200, RecordBytes: 64 << 10})
	h, err := host.New(host.Options{Node: n.id(), ClusterID: "sim", Log: log, Store: store, Engine: known,
		Out: &outbound{n: n, life: life}, Snapshots: n, Clock: n, Rand: n.w.rng, Window: time.Minute,
		MaxEntryOps: 8, ChunkBytes: 256, MaxUncommittedBytes: n.w.uncommitted(), LogBytes: n.w.logBytes(), LogTail: 50, Hooks: n.hooks(), Bugs: n.w.cfg.Bugs,
		Witness: n.witness(), FeedBytes: n.w.feedBytes(), LagLimit: n.w.lagLimit(),
		Go: func(job func(context.Context)) { n.background(life, job) }})
	if err != nil {
		n.w.problem("node %d: opening the host: %v", n.index, err)
		return
	}
	n.host = h
	if first {
		if err := h.Bootstrap(n.seeds()); err != nil {
			n.w.problem("node %d: bootstrap: %v", n.index, err)
			return
		}
	}
	n.scheduleTick(life)
	n.wake()
	n.hidden = log.Hidden()
	n.startHub()
}

// obeyAdvice is the operator, who deletes the directory when damage hides
// which replicas lived there.
func (n *node) obeyAdvice() {
	if n.host == nil {
		return
	}
	groups, life := n.host.Groups(), n.life
	lost := n.hidden && len(groups) == 0 || n.host.HidesReplicas()
	for _, s := range groups {
		lost = lost || s.Quarantined != "" && s.Replica == 0
	}
	if lost {
		n.w.after(time.Second, func() {
			if n.life == life {
				n.w.wipe(n)
			}
		})
	}
}

func (n *node) hooks() host.Hooks {
	return host.Hooks{
		Election: func(keyspace.GroupID, bool) { n.w.stats.Elections++ },
		Snapshot: func(sent bool, _ int64) {
			if !sent {
				n.w.stats.Snapshots++
			}
		},
		Blocked: n.met,
		Locked:  n.met,
		Flush:   func(time.Duration, int64) { n.w.stats.Flushes++ },
		Merge:   func(time.Duration, int64) { n.w.stats.Merges++ },
		Move:    func(time.Duration, int64) { n.w.stats.Moves++ },
	}
}

// seeds are the first groups with this node's part in them.
func (n *node) seeds() []host.GroupSeed {
	var out []host.GroupSeed
	for _, s := range n.w.seeds {
		s.Self = 0
		for _, m := range s.Members {
			if m.Node == n.id() {
				s.Self = m.Replica
			}
		}
		out = append(out, s)
	}
	return out
}

// background runs a job as an event of this life. All jobs use the disk.
func (n *node) background(life int, job func(context.Context)) {
	n.w.after(n.w.between(0, 20*time.Millisecond), func() { n.whenUnstuck(life, job) })
}

func (n *node) whenUnstuck(life int, job func(context.Context)) {
	n.whenAwake(life, func() {
		if n.stuck > n.w.now {
			n.w.after(min(n.stuck-n.w.now, tick), func() { n.whenUnstuck(life, job) })
			return
		}
		job(context.Background())
		n.wake()
	})
}

// whenAwake runs f now, or when the pause ends; never in another life.
func (n *node) whenAwake(life int, f func()) {
	if n.life != life || n.host == nil {
		return
	}
	if n.paused > n.w.now {
		n.w.after(n.paused-n.w.now, func() { n.whenAwake(life, f) })
		return
	}
	f()
}

const tick = 100 * time.Millisecond

func (n *node) scheduleTick(life int) {
	n.w.after(tick+n.w.between(0, 5*time.Millisecond), func() {
		n.whenAwake(life, func() {
			n.host.Tick()
			n.wake()
			n.scheduleTick(life)
		})
	})
}

// wake schedules a loop iteration shortly; what arrives until then is batched.
func (n *node) wake() {
	if n.woken {
		return
	}
	n.woken = true
	life := n.life
	n.w.after(n.w.between(20*time.Microsecond, 400*time.Microsecond), func() {
		if n.life == life {
			n.woken = false
		}
		n.whenAwake(life, n.step)
	})
}

func (n *node) step() {
	if err := n.host.Step(); err != nil {
		n.w.note("failed", uint64(n.index))
		n.w.problem("node %d: the host stopped: %v", n.index, err)
		return
	}
	if n.host != nil && n.host.Busy() {
		n.wake()
	}
}

// crash loses what was not synced, in any combination.
func (n *node) crash() {
	if n.host == nil {
		return
	}
	n.w.note("crash", uint64(n.index), uint64(n.w.now))
	n.host, n.log = nil, nil
	n.life++
	for _, stop := range n.tasks {
		stop()
	}
	n.tasks = nil
	n.woken, n.stuck = false, 0
	n.disk = n.disk.Crash(n.w.rng)
	n.engine = n.engine.Crash(func(int) bool { return n.w.chance(0.5) })
}

// logBytes makes every third seed keep no log for followers that are behind.
func (w *World) logBytes() int64 {
	if w.cfg.Seed%3 == 0 {
		return 1
	}
	return 1 << 30
}

// lagLimit lets leaders lag for as long as followers need in every fourth seed.
func (w *World) lagLimit() time.Duration {
	if w.cfg.Seed%4 == 1 {
		return 20 * time.Millisecond
	}
	return time.Millisecond
}

// uncommitted makes raft drop proposals in every other seed.
func (w *World) uncommitted() uint64 {
	if w.cfg.Seed%2 == 0 {
		return 500
	}
	return 64 << 20
}
