package sstable

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// runsMachine drives Runs and a model, which is a slice for each run, by random
// actions.
type runsMachine struct {
	fs    *simfs.FS
	runs  *Runs
	last  keyspace.Revision
	delta map[string]placed // newest version of each key since the last run
	files [][]placed
	old   [][]placed        // every run there was, from which a replay writes again
	sizes map[*placed]int64 // by a run's first version
	dead  map[keyspace.InstanceID]bool
	held  []heldWalk
	moves []heldMove
	runsReached
}

// runsReached is how much of what matters a check came to.
type runsReached struct{ blocks, doubles, doomed, hidden int }

func (r *runsReached) add(s runsReached) {
	r.blocks, r.doubles = max(r.blocks, s.blocks), r.doubles+s.doubles
	r.doomed, r.hidden = r.doomed+s.doomed, r.hidden+s.hidden
}

func (r *runsReached) enough() bool {
	return r.blocks >= 2 && r.doubles > 0 && r.doomed > 0 && r.hidden > 0
}

// Few instances, so that one is in several runs.
var genRunInstance = rapid.SampledFrom([]keyspace.InstanceID{1, 2, 2, 1 << 40})

func (m *runsMachine) Write(t *rapid.T) {
	inst := genRunInstance.Draw(t, "instance")
	if m.dead[inst] {
		t.Skip("nothing writes to a deleted instance")
	}
	for range rapid.IntRange(1, 12).Draw(t, "count") {
		m.last += keyspace.Revision(rapid.IntRange(1, 300).Draw(t, "step"))
		v := placed{inst, Version{Key: []byte(genKey.Draw(t, "key")), Revision: m.last}}
		v.Value = bytes.Repeat([]byte{byte(m.last)}, genSize.Draw(t, "size"))
		v.Delete = rapid.IntRange(0, 4).Draw(t, "delete") == 0
		m.delta[string(keyspace.AppendInstance(nil, inst))+string(v.Key)] = v
	}
}

// Flush makes a run. One that fails after its file was finished makes another
// one, with what came meanwhile.
func (m *runsMachine) Flush(t *rapid.T) {
	var file []placed
	for _, v := range m.delta {
		file = append(file, v)
	}
	slices.SortFunc(file, placed.order)
	m.write(t, file)
	if !rapid.Bool().Draw(t, "again") {
		m.delta = map[string]placed{}
	}
}

// Replay writes a run again that may have been moved: the newest file need not
// have the newest versions.
func (m *runsMachine) Replay(t *rapid.T) {
	if len(m.old) == 0 {
		t.Skip("none")
	}
	m.write(t, rapid.SampledFrom(m.old).Draw(t, "run"))
}

func (m *runsMachine) write(t *rapid.T, file []placed) {
	mustWrite(t, m.runs, file...)
	if len(file) == 0 {
		return
	}
	file = slices.Clone(file) // the model tells runs by their memory
	m.files, m.old = append(slices.Clone(m.files), file), append(m.old, file)
	all := m.runs.files.Load().files
	last := all[len(all)-1]
	m.sizes[&file[0]] = last.size
	m.blocks = max(m.blocks, last.blocks.count()-len(last.spans))
}

func (m *runsMachine) Abort(t *rapid.T) {
	w := m.runs.Writer()
	for _, v := range slices.SortedFunc(slices.Values(slices.Concat(m.old...)), placed.order) {
		if err := w.Add(v.inst, v.Version); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
}

func (m *runsMachine) Delete(t *rapid.T) {
	inst := genRunInstance.Draw(t, "instance")
	m.runs.Delete(inst)
	if slices.ContainsFunc(slices.Concat(m.files...), func(v placed) bool { return v.inst == inst }) {
		m.dead[inst] = true
		for id, v := range m.delta {
			if v.inst == inst {
				delete(m.delta, id)
			}
		}
	}
	if got := m.runs.Dead(inst); got != m.dead[inst] {
		t.Fatalf("instance %d is dead: %t, want %t", inst, got, m.dead[inst])
	}
	for range 4 {
		m.get(t, inst)
	}
}

func (m *runsMachine) Reopen(t *rapid.T) {
	m.releaseAll()
	if err := m.runs.Close(); err != nil {
		t.Fatal(err)
	}
	m.runs = mustOpenRuns(t, m.fs)
	m.dead = map[keyspace.InstanceID]bool{}
}

// at is any revision, a boundary of a version more often than not.
func (m *runsMachine) at(t *rapid.T) keyspace.Revision {
	all := slices.Concat(m.files...)
	switch rapid.IntRange(0, 4).Draw(t, "any") {
	case 0:
		return keyspace.MaxRevision
	case 1:
		return keyspace.Revision(rapid.Uint64Range(0, uint64(m.last)+2).Draw(t, "at"))
	}
	if len(all) == 0 {
		return 0
	}
	v := all[rapid.IntRange(0, len(all)-1).Draw(t, "version")]
	return v.Revision + keyspace.Revision(rapid.Uint64Range(0, 2).Draw(t, "beside")) - 1
}

// newestOf is the newest version of a key at or below at, nil for none.
func newestOf(files [][]placed, inst keyspace.InstanceID, key []byte, at keyspace.Revision) (newest *placed) {
	for _, file := range files {
		for _, v := range file {
			if v.inst == inst && bytes.Equal(v.Key, key) && v.Revision <= at && (newest == nil || v.Revision > newest.Revision) {
				newest = &v
			}
		}
	}
	return newest
}

func (m *runsMachine) Get(t *rapid.T) { m.get(t, genRunInstance.Draw(t, "instance")) }

func (m *runsMachine) get(t *rapid.T, inst keyspace.InstanceID) {
	key, at := []byte(genKey.Draw(t, "key")), m.at(t)
	want := newestOf(m.files, inst, key, at)
	if want != nil && m.dead[inst] {
		want = nil
		m.hidden++
	}
	got, ok := getRun(t, m.runs, inst, key, at)
	if ok != (want != nil) || ok && !equal(got, *want) {
		t.Fatalf("get %d/%.20q at %d: %t, %v; want %v", inst, key, at, ok, got, want)
	}
}

// Check compares what Runs tell of themselves.
func (m *runsMachine) Check(t *rapid.T) {
	instances := map[keyspace.InstanceID]keyspace.Revision{}
	for _, v := range slices.Concat(m.files...) {
		if !m.dead[v.inst] {
			instances[v.inst] = max(instances[v.inst], v.Revision+1)
		}
	}
	got := m.runs.Instances()
	for inst, above := range instances {
		if got[inst] != above {
			t.Fatalf("instances %v, want %v", got, instances)
		}
	}
	if len(got) != len(instances) || m.runs.Files() != len(m.files) {
		t.Fatalf("instances %v, want %v; %d files, want %d", got, instances, m.runs.Files(), len(m.files))
	}
	held := len(m.held)+len(m.moves) > 0
	switch got, disk := m.runs.Bytes(), m.fs.Used(); {
	case got > disk, !held && (got != disk || len(names(t, m.fs)) != len(m.files)):
		t.Fatalf("%d bytes, on disk %d in %q, want %d files", got, disk, names(t, m.fs), len(m.files))
	}
}

// What is in runs is found at every revision, in every direction, whatever runs
// it is in, and until it is moved.
func TestRunsAgreeWithAModel(t *testing.T) {
	var reached runsReached
	checkUntil(t, reached.enough, func(t *rapid.T) {
		m := &runsMachine{fs: simfs.New(), delta: map[string]placed{}, sizes: map[*placed]int64{}, dead: map[keyspace.InstanceID]bool{}}
		m.runs = mustOpenRuns(t, m.fs)
		t.Repeat(map[string]func(*rapid.T){
			"": m.Check, "Write": m.Write, "WriteMore": m.Write, "WriteMuch": m.Write, "Flush": m.Flush, "FlushMore": m.Flush,
			"Replay": m.Replay, "Abort": m.Abort, "Delete": m.Delete, "Reopen": m.Reopen, "Get": m.Get, "GetMore": m.Get,
			"Scan": m.Scan, "ScanMore": m.Scan, "Hold": m.Hold, "HoldMore": m.Hold, "ReadHeld": m.ReadHeld, "Release": m.Release,
			"Take": m.Take, "ReadMove": m.ReadMove, "Done": m.Done, "ReleaseMove": m.ReleaseMove, "MoveAll": m.MoveAll, "Merge": m.Merge,
		})
		reached.add(m.runsReached)
		m.releaseAll()
		m.Check(t)
	})
	t.Logf("%+v", reached)
}
