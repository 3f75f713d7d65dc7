package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Emit reports one figure under a label value.
type Emit func(label string, value float64)

// Gauge registers a figure that is asked for whenever the metrics are read.
// The name must be new and begin with kvstore_.
func (r *Registry) Gauge(name, help string, value func() float64) {
	r.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

// Counter is Gauge for a figure that only grows.
func (r *Registry) Counter(name, help string, value func() float64) {
	r.reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
}

// GaugeBy registers a figure per label value ("group", "kind"), asked for
// whenever the metrics are read. read must emit each label at most once.
func (r *Registry) GaugeBy(name, help, label string, read func(Emit)) {
	r.figures(name, help, label, prometheus.GaugeValue, read)
}

// CounterBy is GaugeBy for figures that only grow.
func (r *Registry) CounterBy(name, help, label string, read func(Emit)) {
	r.figures(name, help, label, prometheus.CounterValue, read)
}

func (r *Registry) figures(name, help, label string, kind prometheus.ValueType, read func(Emit)) {
	r.reg.MustRegister(&figures{
		desc: prometheus.NewDesc(name, help, []string{label}, nil),
		kind: kind, read: read,
	})
}

// figures is a collector around a function.
type figures struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(Emit)
}

func (f *figures) Describe(out chan<- *prometheus.Desc) { out <- f.desc }

func (f *figures) Collect(out chan<- prometheus.Metric) {
	f.read(func(label string, value float64) {
		out <- prometheus.MustNewConstMetric(f.desc, f.kind, value, label)
	})
}

// Storage is what the disk parts of a node hold, in bytes.
type Storage struct {
	LSM, MemtableLogs, ValueLog, RaftLog, Delta, History int64
	// RunsBytes are those of so many Runs.
	Runs                                   int
	RunsBytes                              int64
	BlockCacheHitRatio, IndexCacheHitRatio float64
}

// Storage registers kvstore_badger_bytes and its neighbours.
func (r *Registry) Storage(read func() Storage) {
	r.GaugeBy("kvstore_badger_bytes", "Bytes of Badger on disk, by kind of file.", "kind", func(emit Emit) {
		s := read()
		emit("lsm", float64(s.LSM))
		emit("memtable_log", float64(s.MemtableLogs))
		emit("value_log", float64(s.ValueLog))
	})
	r.GaugeBy("kvstore_cache_hit_ratio", "Part of lookups answered by a cache of Badger, 0 to 1.", "cache", func(emit Emit) {
		s := read()
		emit("block", s.BlockCacheHitRatio)
		emit("index", s.IndexCacheHitRatio)
	})
	r.Gauge("kvstore_raft_log_bytes", "Bytes of the shared log on disk.", func() float64 { return float64(read().RaftLog) })
	r.Gauge("kvstore_delta_bytes", "Bytes applied and not yet flushed to a sorted run.", func() float64 { return float64(read().Delta) })
	r.Gauge("kvstore_runs", "Sorted runs that wait to be moved to the engine.", func() float64 { return float64(read().Runs) })
	r.Gauge("kvstore_runs_bytes", "Bytes on disk of sorted runs.", func() float64 { return float64(read().RunsBytes) })
	r.Gauge("kvstore_history_bytes", "Bytes on disk of replaced versions that can still be read.", func() float64 { return float64(read().History) })
}

// Group is the state of one replica hosted here.
type Group struct {
	// Group is the group's number as text.
	Group           string
	Leader          bool
	Commit, Applied uint64
	Term            uint64
	// Copies is said by leaders; 0 for not known.
	Copies int
	// Backlog is said by leaders: keys that have expired and are not deleted yet.
	// Swept counts those that were deleted while this node led.
	Backlog int
	Swept   uint64
}

// Groups registers kvstore_apply_lag_entries and its neighbours.
func (r *Registry) Groups(read func() []Group) {
	each := func(value func(Group) float64) func(Emit) {
		return func(emit Emit) {
			for _, g := range read() {
				emit(g.Group, value(g))
			}
		}
	}
	r.GaugeBy("kvstore_apply_lag_entries", "Entries committed and not yet applied, by group.", "group",
		each(func(g Group) float64 { return float64(g.Commit) - float64(g.Applied) }))
	r.GaugeBy("kvstore_leader", "1 where this node leads the group.", "group", each(func(g Group) float64 {
		if g.Leader {
			return 1
		}
		return 0
	}))
	r.GaugeBy("kvstore_group_copies", "Voters that have everything that was acknowledged, as the group's leader knows.", "group", func(emit Emit) {
		for _, g := range read() {
			if g.Leader && g.Copies > 0 {
				emit(g.Group, float64(g.Copies))
			}
		}
	})
	r.GaugeBy("kvstore_ttl_backlog", "Keys that have expired and are not deleted yet, as the group's leader counts about once per second; 10,000 are that many or more.", "group", func(emit Emit) {
		for _, g := range read() {
			if g.Leader {
				emit(g.Group, float64(g.Backlog))
			}
		}
	})
	r.CounterBy("kvstore_ttl_swept_total", "Expired keys that this node deleted as the group's leader.", "group",
		each(func(g Group) float64 { return float64(g.Swept) }))
	r.GaugeBy("kvstore_term", "Raft term of the group as seen here.", "group",
		each(func(g Group) float64 { return float64(g.Term) }))
	r.GaugeBy("kvstore_applied_index", "Last applied index, by group.", "group",
		each(func(g Group) float64 { return float64(g.Applied) }))
}

// Transactions is what a node did for transactions over several groups.
type Transactions struct {
	// Committed by the number of groups, the last of them those of more.
	Committed                             []uint64
	Aborted, Unknown, Attempts, Conflicts uint64
	// Active are coordinated here, Prepared wait in the groups that are led here, and
	// Recovering are looked after.
	Active, Prepared, Recovering int64
	// Leftover were answered and left to recovery, Recovered were ended for others,
	// Poisoned after they had been waited for; Collected records were deleted.
	Leftover, Recovered, Poisoned, Collected uint64
	// CollectionsHeld by something prepared, and CollectionsFailed for want of an
	// answer, deleted nothing.
	CollectionsHeld, CollectionsFailed uint64
}

// Transactions registers kvstore_transactions_total and its neighbours.
func (r *Registry) Transactions(read func() Transactions) {
	gauge := func(name, help string, value func(Transactions) int64) {
		r.Gauge(name, help, func() float64 { return float64(value(read())) })
	}
	counter := func(name, help string, value func(Transactions) uint64) {
		r.Counter(name, help, func() float64 { return float64(value(read())) })
	}
	r.CounterBy("kvstore_transactions_total", "Transactions over several groups that this node coordinated, by outcome.", "outcome", func(emit Emit) {
		t := read()
		committed := uint64(0)
		for _, n := range t.Committed {
			committed += n
		}
		emit("committed", float64(committed))
		emit("aborted", float64(t.Aborted))
		emit("unknown", float64(t.Unknown))
	})
	r.CounterBy("kvstore_transactions_committed_total", "Committed transactions over several groups, by the number of groups.", "groups", func(emit Emit) {
		counts := read().Committed
		for i, n := range counts {
			label := strconv.Itoa(i + 1)
			if i == len(counts)-1 {
				label += "+"
			}
			emit(label, float64(n))
		}
	})
	counter("kvstore_transaction_attempts_total", "Attempts of the committed transactions over several groups.", func(t Transactions) uint64 { return t.Attempts })
	counter("kvstore_transaction_conflicts_total", "Attempts that met locks of other transactions.", func(t Transactions) uint64 { return t.Conflicts })
	gauge("kvstore_transactions_active", "Transactions over several groups that this node coordinates and has not finished.", func(t Transactions) int64 { return t.Active })
	gauge("kvstore_transactions_prepared", "Participants that wait for an outcome, in the groups that are led here.", func(t Transactions) int64 { return t.Prepared })
	gauge("kvstore_transactions_recovering", "Transactions of others that this node is bringing to an end.", func(t Transactions) int64 { return t.Recovering })
	counter("kvstore_transactions_left_total", "Transactions that were answered and left to recovery, because a participant was not told in time.", func(t Transactions) uint64 { return t.Leftover })
	counter("kvstore_transactions_recovered_total", "Transactions that were ended here because somebody waited for them.", func(t Transactions) uint64 { return t.Recovered })
	counter("kvstore_transactions_poisoned_total", "Transactions that were given up here because their coordinator did not go on.", func(t Transactions) uint64 { return t.Poisoned })
	counter("kvstore_transaction_records_collected_total", "Records of transactions and outcomes of requests that were deleted.", func(t Transactions) uint64 { return t.Collected })
	r.CounterBy("kvstore_transaction_collections_stopped_total", "Collections of old records that deleted nothing, by reason: something old is prepared (held), or a group did not answer (failed).", "reason", func(emit Emit) {
		t := read()
		emit("held", float64(t.CollectionsHeld))
		emit("failed", float64(t.CollectionsFailed))
	})
}

// Watches is what the watches of a node do.
type Watches struct {
	Watches, Streams, BufferBytes                        int64
	Events, FellBehind, PastPages, PastScans             uint64
	EndedBelow, EndedSlow, FeedsOvertaken, ClockReadings uint64
}

// Watches registers kvstore_watches and its neighbours.
func (r *Registry) Watches(read func() Watches) {
	gauge := func(name, help string, value func(Watches) int64) {
		r.Gauge(name, help, func() float64 { return float64(value(read())) })
	}
	counter := func(name, help string, value func(Watches) uint64) {
		r.Counter(name, help, func() float64 { return float64(value(read())) })
	}
	gauge("kvstore_watches", "Open watches of clients.", func(w Watches) int64 { return w.Watches })
	gauge("kvstore_watch_streams", "Open streams of watches.", func(w Watches) int64 { return w.Streams })
	gauge("kvstore_watch_buffer_bytes", "Bytes that wait to be sent to watchers.", func(w Watches) int64 { return w.BufferBytes })
	counter("kvstore_watch_events_total", "Events sent to watchers.", func(w Watches) uint64 { return w.Events })
	counter("kvstore_watch_fell_behind_total", "Watches that had no room for an event and were caught up.", func(w Watches) uint64 { return w.FellBehind })
	counter("kvstore_watch_past_pages_total", "Pages of the past read for watches: from the log or from history.", func(w Watches) uint64 { return w.PastPages })
	counter("kvstore_watch_past_scans_total", "Pages of the past that walked over stored versions, because the log did not reach back.", func(w Watches) uint64 { return w.PastScans })
	r.CounterBy("kvstore_watch_ended_total", "Watches ended because they were behind the history that is kept (below_floor), and streams that did not read (slow).", "reason", func(emit Emit) {
		w := read()
		emit("below_floor", float64(w.EndedBelow))
		emit("slow", float64(w.EndedSlow))
	})
	counter("kvstore_watch_feeds_overtaken_total", "Times that writes came faster than watches took them.", func(w Watches) uint64 { return w.FeedsOvertaken })
	counter("kvstore_watch_clock_readings_total", "Readings of clocks for events that waited for a quiet group.", func(w Watches) uint64 { return w.ClockReadings })
}
