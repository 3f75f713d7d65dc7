package raftlog

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/env"
	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

const testDir = "/node/raft"

func testOptions(r env.Rand) Options {
	return Options{SegmentBytes: minSegmentBytes, CacheBytes: 20 << 10, Inline: true, Rand: r}
}

func mustOpen(t testing.TB, fs env.FS) *Log {
	t.Helper()
	l, err := Open(fs, testDir, testOptions(rand.New(rand.NewPCG(1, 2))))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustCommit(t testing.TB, l *Log, sync bool, fill func(b *Batch)) {
	t.Helper()
	b := l.NewBatch()
	fill(b)
	if err := l.Commit(b, sync); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func entry(term, index uint64, data string) *raftpb.Entry {
	return &raftpb.Entry{Term: &term, Index: &index, Type: raftpb.EntryNormal.Enum(), Data: []byte(data)}
}

func entries(term, first, last uint64) []*raftpb.Entry {
	var es []*raftpb.Entry
	for i := first; i <= last; i++ {
		es = append(es, entry(term, i, fmt.Sprintf("%d/%d", term, i)))
	}
	return es
}

func hard(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

func checkpoint(instance, index, term uint64) Checkpoint {
	return Checkpoint{
		Instance: keyspace.InstanceID(instance), Index: keyspace.Index(index), Term: keyspace.Term(term),
		State:     fmt.Appendf(nil, "state %d", index),
		ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, instance}},
	}
}

// model is what a log should say, written down without any of its code.
type model struct {
	groups map[keyspace.GroupID]*modelGroup
	meta   map[string]string
}

type modelGroup struct {
	replica, removed keyspace.ReplicaID
	hard             hardState
	checkpoint       Checkpoint
	last             uint64
	entries          map[uint64]*raftpb.Entry
}

func newModel() *model {
	return &model{groups: map[keyspace.GroupID]*modelGroup{}, meta: map[string]string{}}
}

func (m *model) apply(b *Batch) {
	for _, o := range b.ops {
		if o.kind == opMeta {
			m.meta[o.key] = string(o.value)
			continue
		}
		g := m.groups[o.group]
		if g == nil {
			g = &modelGroup{}
			m.groups[o.group] = g
		}
		switch o.kind {
		case opCreate:
			*g = modelGroup{replica: o.replica, removed: max(g.removed, g.replica)}
			g.restart(o.checkpoint)
		case opRemove:
			*g = modelGroup{removed: max(g.removed, g.replica)}
		case opAdopt:
			g.replica, g.removed = o.replica, max(g.removed, g.replica)
		case opSwitch:
			g.restart(o.checkpoint)
		case opCheckpoint:
			g.checkpoint = o.checkpoint
		case opMeta: // of the node, above
		case opHardState:
			g.hard = o.hard
		case opEntries:
			for _, e := range o.entries {
				g.entries[e.GetIndex()] = e
				g.last = e.GetIndex()
			}
		}
		if t := uint64(g.checkpoint.Term); t > g.hard.term {
			g.hard.term, g.hard.vote = t, 0
		}
		g.hard.commit = max(g.hard.commit, uint64(g.checkpoint.Index))
	}
}

func (g *modelGroup) restart(c Checkpoint) {
	g.checkpoint, g.last, g.entries = c, uint64(c.Index), map[uint64]*raftpb.Entry{}
}

func describeGroup(id keyspace.GroupID, replica, removed keyspace.ReplicaID, h hardState, c *Checkpoint, last uint64, get func(uint64) *raftpb.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "group %d replica %d removed %d", id, replica, removed)
	if replica == 0 {
		return b.String()
	}
	fmt.Fprintf(&b, " hard %v checkpoint %d/%d/%d %q %v last %d\n", h, c.Instance, c.Index, c.Term, c.State, c.confState().Voters, last)
	for i := uint64(c.Index) + 1; i <= last; i++ {
		e := get(i)
		fmt.Fprintf(&b, " %d/%d/%v/%d/%x", e.GetTerm(), e.GetIndex(), e.GetType(), len(e.Data), crc32.ChecksumIEEE(e.Data))
	}
	return b.String()
}

func (m *model) groupString(id keyspace.GroupID) string {
	g := m.groups[id]
	return describeGroup(id, g.replica, g.removed, g.hard, &g.checkpoint, g.last, func(i uint64) *raftpb.Entry { return g.entries[i] })
}

func (m *model) metaString() string {
	keys := make([]string, 0, len(m.meta))
	for k := range m.meta {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "%s=%q ", k, m.meta[k])
	}
	return b.String()
}

func (m *model) String() string {
	ids := make([]int, 0, len(m.groups))
	for id := range m.groups {
		ids = append(ids, int(id))
	}
	sort.Ints(ids)
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(m.groupString(keyspace.GroupID(id)) + "\n")
	}
	return b.String() + m.metaString()
}

// logGroupString reads a group back through its storage.
func logGroupString(l *Log, i GroupInfo) (string, error) {
	s := l.Storage(i.Group)
	var es []*raftpb.Entry
	replica := i.Replica
	if i.Removed {
		replica = 0
	}
	var err error
	if s != nil && uint64(i.Checkpoint.Index) < uint64(i.Last) {
		es, err = s.Entries(uint64(i.Checkpoint.Index)+1, uint64(i.Last)+1, 1<<40)
		if err != nil {
			return "", err
		}
	}
	get := func(n uint64) *raftpb.Entry { return es[n-uint64(i.Checkpoint.Index)-1] }
	return describeGroup(i.Group, replica, l.HighestRemoved(i.Group), hardStateOf(i.HardState), &i.Checkpoint, uint64(i.Last), get), nil
}

func logMetaString(l *Log) string {
	m := newModel()
	for k, v := range l.meta {
		if k != hiddenKey {
			m.meta[k] = string(v)
		}
	}
	return m.metaString()
}

func logString(t testing.TB, l *Log) string {
	t.Helper()
	var b strings.Builder
	for _, i := range l.Groups() {
		if i.Damaged {
			return fmt.Sprintf("group %d is damaged", i.Group)
		}
		s, err := logGroupString(l, i)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(s + "\n")
	}
	if l.Hidden() {
		return "hidden damage"
	}
	return b.String() + logMetaString(l)
}

// workload makes random batches that a host could make.
type workload struct {
	r     *rand.Rand
	model *model
	next  keyspace.ReplicaID
	// maxData bounds an entry's data.
	maxData int
}

func newWorkload(seed uint64, maxData int) *workload {
	return &workload{r: rand.New(rand.NewPCG(seed, 99)), model: newModel(), next: 1, maxData: maxData}
}

// fill puts random operations in b and applies them to the model.
func (w *workload) fill(b *Batch) {
	if len(w.model.groups) == 0 {
		for id := keyspace.GroupID(0); id < 3; id++ {
			w.create(b, id)
		}
		b.SetMeta("node_id", []byte("11111111-2222"))
	} else {
		for range 1 + w.r.IntN(3) {
			w.one(b, keyspace.GroupID(w.r.IntN(3)))
		}
	}
	w.model.apply(b)
}

func (w *workload) create(b *Batch, id keyspace.GroupID) {
	b.Create(id, w.next, checkpoint(uint64(w.next), w.r.Uint64N(3)*10, 1))
	w.next++
}

func (w *workload) one(b *Batch, id keyspace.GroupID) {
	for _, o := range b.ops {
		if o.group == id && o.kind != opMeta {
			return // the model is one batch behind
		}
	}
	g := w.model.groups[id]
	if g.replica == 0 {
		w.create(b, id)
		return
	}
	base := uint64(g.checkpoint.Index)
	switch x := w.r.IntN(40); {
	case x == 0:
		b.Remove(id)
	case x == 1:
		w.create(b, id)
	case x == 2:
		b.Switch(id, checkpoint(1000+w.r.Uint64N(1000), g.last+w.r.Uint64N(20), g.hard.term+1))
	case x == 3 && g.last > base:
		b.Adopt(id, w.next)
		w.next++
		w.entries(b, id, g.last+1, g.hard.term+7)
		b.HardState(id, hard(g.hard.term+7, 0, g.last+1))
	case x < 8 && g.last > base:
		at := base + 1 + w.r.Uint64N(g.last-base)
		c := checkpoint(uint64(g.checkpoint.Instance), at, g.entries[at].GetTerm())
		b.Checkpoint(id, c)
	case x < 10:
		b.SetMeta(fmt.Sprintf("key %d", w.r.IntN(3)), fmt.Appendf(nil, "value %d", w.r.IntN(1000)))
	case x < 14 && g.last > max(base, g.hard.commit):
		// A new leader replaces a suffix that was not committed.
		low := max(base, g.hard.commit)
		w.entries(b, id, low+1+w.r.Uint64N(g.last-low), g.hard.term+1)
		b.HardState(id, hard(g.hard.term+1, w.r.Uint64N(4), g.hard.commit))
	default:
		w.entries(b, id, g.last+1, max(g.hard.term, 1))
		b.HardState(id, hard(max(g.hard.term, 1), g.hard.vote, g.hard.commit+w.r.Uint64N(g.last-g.hard.commit+1)))
	}
}

func (w *workload) entries(b *Batch, id keyspace.GroupID, first, term uint64) {
	var es []*raftpb.Entry
	for i := range 1 + w.r.Uint64N(3) {
		e := entry(term, first+i, "")
		e.Data = bytes.Repeat([]byte{byte(w.r.Uint32())}, w.r.IntN(w.maxData+1))
		if w.r.IntN(8) == 0 {
			e.Type = raftpb.EntryConfChangeV2.Enum()
		}
		es = append(es, e)
	}
	b.Entries(id, es)
}

// compact does what a host does after a checkpoint, sometimes.
func (w *workload) compact(l *Log) {
	id := keyspace.GroupID(w.r.IntN(3))
	if g := w.model.groups[id]; g != nil && g.replica != 0 && w.r.IntN(3) == 0 {
		l.Compact(id, g.checkpoint.Index+1-min(g.checkpoint.Index, keyspace.Index(w.r.Uint64N(5))))
	}
}

// TestModel drives a log and the model side by side, with clean and unclean
// reopens, and syncs beside the log that end late.
func TestModel(t *testing.T) {
	for seed := range uint64(30) {
		fs := simfs.New()
		l := mustOpen(t, fs)
		w := newWorkload(seed, 2000)
		var beside besides
		for step := range 300 {
			b := l.NewBatch()
			w.fill(b)
			if err := l.Commit(b, w.r.IntN(4) == 0); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			w.compact(l)
			beside.step(t, l, w.r)
			if w.r.IntN(40) == 0 {
				beside.end(t, l)
				l = reopen(t, l, fs, w.r.IntN(2) == 0)
			}
			if got, want := logString(t, l), w.model.String(); got != want {
				t.Fatalf("seed %d step %d:\n%s\nwant\n%s", seed, step, got, want)
			}
		}
		if n := l.Stats().Segments; n > 20 {
			t.Errorf("seed %d: %d segments are left", seed, n)
		}
		mustClose(t, l)
	}
}

// reopen opens the log again, after Close or as after kill -9: then the page
// cache is all there.
// besides are syncs beside the log.
type besides []*PendingSync

// step begins a sync or ends the oldest one, now and then.
func (s *besides) step(t *testing.T, l *Log, r *rand.Rand) {
	t.Helper()
	switch {
	case r.IntN(3) == 0:
		if p := l.BeginSync(); p != nil {
			*s = append(*s, p)
		}
	case r.IntN(2) == 0 && len(*s) > 0:
		p := (*s)[0]
		*s = (*s)[1:]
		if err := l.EndSync(p, p.Run()); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *besides) end(t *testing.T, l *Log) {
	t.Helper()
	for _, p := range *s {
		if err := l.EndSync(p, p.Run()); err != nil {
			t.Fatal(err)
		}
	}
	*s = nil
}

// reopen opens the log again; unclean, as after a process that was killed when it
// had handed all it had to the system.
func reopen(t *testing.T, l *Log, fs *simfs.FS, clean bool) *Log {
	t.Helper()
	if clean {
		mustClose(t, l)
	} else if err := l.writeOut(); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, fs)
}
