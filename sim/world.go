package sim

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"kvstore/internal/host"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// Config is one run. Zero values take the defaults of a smoke run.
type Config struct {
	Seed       uint64
	Nodes      int
	Groups     int
	Clients    int
	Operations int // client operations to start
	Keys       int // per group
	Crashes    int
	Partitions int
	Pauses     int
	ClockJumps int
	Wipes      int
	FullDisks  int
	Damages    int
	// Witness makes the last node one that votes without data; it votes with two
	// others.
	Witness bool
	// Retargets moves replicas: a group's voters go to other nodes.
	Retargets int
	Stalls    int
	// Splits: the last group begins empty, and slots move to it.
	Splits bool
	// Lists makes clients do nothing but lists over all groups and puts of their keys.
	Lists bool
	// Expiring makes most operations ones on keys that expire.
	Expiring bool
	// Transactions makes some operations transactions over several groups.
	Transactions bool
	// Watchers is how many watches there are; they need Splits.
	Watchers int
	// Probes aims operations at leaders that are cut off.
	Probes bool
	// LargeEvery makes one put in that many a chunked value; 0 for none.
	LargeEvery int
	Bugs       invariant.Bug
	// Limit bounds simulated time.
	Limit time.Duration
}

// World is a cluster, its clients, its faults and what is known of them.
type World struct {
	cfg   Config
	rng   *rand.Rand
	now   time.Duration
	seq   uint64
	queue events
	nodes []*node
	seeds []host.GroupSeed
	cut   map[[2]int]bool // directed links that lose everything
	// targets say where groups' voters should be, as first lives of nodes.
	targets map[keyspace.GroupID]router.Target
	slots   slotMap
	trace   uint64        // hash of everything that happened
	work    int           // events and messages so far
	calm    time.Duration // since when nothing but the disk of one node is wrong

	history  history
	expiry   expiry
	txns     transactions
	watches  watches
	answers  map[keyspace.TxnID]string // of requests with an id
	stats    Coverage
	problems []string
	faultsOn bool
}

// Coverage counts what a run did.
type Coverage struct {
	Operations, Acknowledged, Unknown, Failed           int
	Reads, FollowerReads, Batches, Large                int
	Transactions, Transferred                           int
	Crashes, Partitions, Pauses, ClockJumps             int
	Wipes, Snapshots, Elections, Flushes, Merges, Moves int
	FullDisks, Damaged, Rebuilt, Retargets, Changes     int
	Stalls, Handovers                                   int // disks that hung, and leaderships given up because of it
	Messages, Lost, Duplicated                          int
	// Slots that moved, of how many runs of the mover's work that ended well.
	SlotMoves, SlotRuns, SlotCancels, Imported, Elsewhere int
	OneCopy                                               int // looks at which a leader said that there is one copy
	Lists, HeldLists                                      int // lists over groups that were judged, and of these those that held keys
	// Expiring are writes of keys that expire, Swept those that sweeps deleted, as
	// far as nodes that are up at the end know.
	Expiring, Swept int
	// OverGroups are transactions over several groups, of which Moved moved money and
	// Looked saw all accounts; Stopped are coordinators that stopped, Finished those
	// that others finished, Forgotten the records that were deleted.
	OverGroups, Moved, Looked, Stopped, Finished, Forgotten int
	// Remembered are answers from before of requests with an id.
	Remembered int
	// Watched are events that watches were told of.
	Watched int
	// Undecided counts histories that the checker could not judge in its time.
	Undecided int
	Trace     uint64
}

// Run executes one seed and returns what it covered and every violation.
func Run(cfg Config) (Coverage, []string) {
	w := newWorld(cfg)
	func() {
		defer w.recoverPanic()
		w.start()
		w.loop()
		w.heal()
		w.finishWatches()
	}()
	w.checkWatches()
	w.check()
	w.checkExpiry()
	w.stats.Swept = w.sweptByNow()
	w.stats.Trace = w.trace
	return w.stats, w.problems
}

func newWorld(cfg Config) *World {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&cfg.Nodes, 3)
	def(&cfg.Groups, 2)
	def(&cfg.Clients, 8)
	def(&cfg.Operations, 1000)
	def(&cfg.Keys, 6)
	if cfg.Limit == 0 {
		cfg.Limit = 10 * time.Minute
	}
	w := &World{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x6b7673746f7265)), cut: make(map[[2]int]bool),
		targets: make(map[keyspace.GroupID]router.Target), faultsOn: true}
	w.history.init()
	w.answers = make(map[keyspace.TxnID]string)
	w.expiry.writes = make(map[string][]*expiringWrite)
	return w
}

// recoverPanic turns a broken invariant inside the store into a finding.
func (w *World) recoverPanic() {
	if r := recover(); r != nil {
		w.problem("panic: %v", r)
		if w.cfg.Bugs == 0 {
			panic(fmt.Sprintf("seed %d: %v", w.cfg.Seed, r))
		}
	}
}

func (w *World) problem(format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf("at %v: ", w.now)+fmt.Sprintf(format, args...))
}

// note folds what happened into the trace hash.
func (w *World) note(what string, values ...uint64) {
	f := fnv.New64a()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], w.trace)
	f.Write(b[:])
	f.Write([]byte(what))
	for _, v := range values {
		binary.LittleEndian.PutUint64(b[:], v)
		f.Write(b[:])
	}
	w.trace = f.Sum64()
}

// start boots all nodes as first members.
func (w *World) start() {
	for g := range w.cfg.Groups + 1 {
		seed := host.GroupSeed{Group: keyspace.GroupID(g), Slots: w.foundingSlots(keyspace.GroupID(g))}
		for i := range min(w.dataNodes(), 3-w.cfg.Nodes+w.dataNodes()) {
			n := (g + i) % w.dataNodes()
			seed.Members = append(seed.Members, member(i, n))
		}
		if w.cfg.Witness {
			m := member(len(seed.Members), w.cfg.Nodes-1)
			m.Replica = m.Replica.AsWitness()
			seed.Members = append(seed.Members, m)
		}
		w.seeds = append(w.seeds, seed)
	}
	for i := range w.cfg.Nodes {
		n := newNode(w, i)
		w.nodes = append(w.nodes, n)
		n.boot(true)
	}
	for c := range w.cfg.Clients {
		w.startClient(c)
	}
	w.startSplits()
	w.startTransactions()
	w.startWatches()
	w.planFaults()
}

// runBytes is a bound of runs: few bytes, so that they move to the engine soon, or so
// many that they are merged with each other before.
func (w *World) runBytes(few int64) int64 {
	if w.cfg.Seed%4 == 3 {
		return 8 * few
	}
	return few
}

// moveBytes is how many bytes of runs begin a move: few, or so many that large runs are
// merged with each other before.
func (w *World) moveBytes() int64 {
	few := w.runBytes(3 << 10)
	if w.cfg.Seed%3 == 1 {
		return 8 * few
	}
	return few
}

// dataNodes is the number of nodes with data, which come first.
func (w *World) dataNodes() int {
	if w.cfg.Witness {
		return w.cfg.Nodes - 1
	}
	return w.cfg.Nodes
}

// loop runs until the clients are done.
func (w *World) loop() {
	for len(w.queue) > 0 && w.now < w.cfg.Limit && len(w.problems) == 0 {
		if w.history.finished >= w.cfg.Clients {
			return
		}
		w.next()
	}
	if w.now >= w.cfg.Limit {
		w.problem("clients did not finish within %v of simulated time", w.cfg.Limit)
	}
}

func (w *World) next() {
	e := heap.Pop(&w.queue).(*event)
	w.now = e.at
	w.spend(1)
	e.run()
}

// spend ends a run in which nodes never stop answering each other.
func (w *World) spend(n int) {
	if w.work += n; w.work >= mostWork && w.work < mostWork+n {
		w.problem("no end after %d events and messages", w.work)
	}
}

// mostWork is some ten times what a run takes.
const mostWork = 500_000

// heal ends all faults and requires that everything pending finishes: a
// random majority is enough, so all nodes must make it.
func (w *World) heal() {
	if len(w.problems) > 0 {
		return
	}
	w.faultsOn = false
	clear(w.cut)
	for _, n := range w.nodes {
		if n.host == nil {
			n.boot(false)
		}
		n.paused, n.skew, n.stuck = 0, 0, 0
		n.disk.SetCapacity(0)
	}
	deadline := w.now + 60*time.Second
	for len(w.queue) > 0 && w.now < deadline && len(w.problems) == 0 {
		w.next()
		if w.settled() {
			return
		}
	}
	if len(w.problems) == 0 {
		w.problem("the healed cluster did not settle: %s", w.describe())
	}
}

func (c *Coverage) add(o Coverage) {
	c.Operations += o.Operations
	c.Acknowledged += o.Acknowledged
	c.Unknown += o.Unknown
	c.Failed += o.Failed
	c.Lists += o.Lists
	c.HeldLists += o.HeldLists
	c.Reads += o.Reads
	c.FollowerReads += o.FollowerReads
	c.Batches += o.Batches
	c.Transactions += o.Transactions
	c.Transferred += o.Transferred
	c.Large += o.Large
	c.Crashes += o.Crashes
	c.Partitions += o.Partitions
	c.Pauses += o.Pauses
	c.ClockJumps += o.ClockJumps
	c.Wipes += o.Wipes
	c.Snapshots += o.Snapshots
	c.Elections += o.Elections
	c.Flushes += o.Flushes
	c.Merges += o.Merges
	c.Moves += o.Moves
	c.Messages += o.Messages
	c.Lost += o.Lost
	c.FullDisks += o.FullDisks
	c.Damaged += o.Damaged
	c.Rebuilt += o.Rebuilt
	c.Retargets += o.Retargets
	c.Changes += o.Changes
	c.Stalls += o.Stalls
	c.Handovers += o.Handovers
	c.Duplicated += o.Duplicated
	c.SlotMoves += o.SlotMoves
	c.SlotRuns += o.SlotRuns
	c.SlotCancels += o.SlotCancels
	c.Imported += o.Imported
	c.Elsewhere += o.Elsewhere
	c.OneCopy += o.OneCopy
	c.Expiring += o.Expiring
	c.Swept += o.Swept
	c.OverGroups += o.OverGroups
	c.Moved += o.Moved
	c.Looked += o.Looked
	c.Stopped += o.Stopped
	c.Finished += o.Finished
	c.Forgotten += o.Forgotten
	c.Remembered += o.Remembered
	c.Watched += o.Watched
	c.Undecided += o.Undecided
}

func (c Coverage) String() string {
	return fmt.Sprintf("%d operations (%d acknowledged, %d unknown, %d not executed, %d reads of which %d on followers, %d pairs, %d transactions of which %d moved money, %d large values), "+
		"%d crashes, %d partitions, %d pauses, %d clock jumps, %d wiped nodes, %d full disks, %d damaged logs (%d replicas rebuilt), %d hung disks (%d leaderships moved), %d new targets (%d membership changes), %d snapshots, %d elections, %d flushes, %d merges, %d moves, %d frames (%d lost, %d doubled), %d looks at one copy, %d moves of slots (%d cancelled, %d keys imported, %d requests to former owners), %d writes of keys that expire (%d swept), %d transactions over groups (%d moved money, %d saw all accounts, %d coordinators stopped, %d finished by others, %d records deleted), %d remembered answers, %d histories undecided",
		c.Operations, c.Acknowledged, c.Unknown, c.Failed, c.Reads, c.FollowerReads, c.Batches, c.Transactions, c.Transferred, c.Large,
		c.Crashes, c.Partitions, c.Pauses, c.ClockJumps, c.Wipes, c.FullDisks, c.Damaged, c.Rebuilt, c.Stalls, c.Handovers, c.Retargets, c.Changes, c.Snapshots, c.Elections, c.Flushes, c.Merges, c.Moves, c.Messages, c.Lost, c.Duplicated, c.OneCopy, c.SlotMoves, c.SlotCancels, c.Imported, c.Elsewhere, c.Expiring, c.Swept, c.OverGroups, c.Moved, c.Looked, c.Stopped, c.Finished, c.Forgotten, c.Remembered, c.Undecided)
}
