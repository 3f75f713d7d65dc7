package metrics

import "github.com/prometheus/client_golang/prometheus"

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
	r.GaugeBy("kvstore_term", "Raft term of the group as seen here.", "group",
		each(func(g Group) float64 { return float64(g.Term) }))
	r.GaugeBy("kvstore_applied_index", "Last applied index, by group.", "group",
		each(func(g Group) float64 { return float64(g.Applied) }))
}
