package sstable

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/env"
	"kvstore/internal/env/simfs"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

const testDir = "history"

// failer is what testing.TB and rapid.T have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func mustOpen(t failer, fs env.FS) *History {
	t.Helper()
	s, err := OpenHistory(fs, testDir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t failer, s *History) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// placed is a version and where it belongs.
type placed struct {
	inst keyspace.InstanceID
	Version
}

// order is that of a file.
func (p placed) order(q placed) int {
	return cmp.Or(cmp.Compare(p.inst, q.inst), bytes.Compare(p.Key, q.Key), cmp.Compare(q.Revision, p.Revision))
}

func (p placed) String() string {
	value := fmt.Sprintf("%q", p.Value)
	if len(p.Value) > 16 {
		value = fmt.Sprintf("%q.. (%d bytes)", p.Value[:16], len(p.Value))
	}
	return fmt.Sprintf("%d/%.20q [%d,%d) %s delete=%t", p.inst, p.Key, p.Revision, p.Until, value, p.Delete)
}

func (p placed) stands(at keyspace.Revision) bool { return p.Revision <= at && at < p.Until }

func equal(p, q placed) bool {
	return p.order(q) == 0 && p.Until == q.Until && p.Delete == q.Delete && bytes.Equal(p.Value, q.Value)
}

func list(all []placed) string {
	var b strings.Builder
	for _, p := range all {
		fmt.Fprintf(&b, "\n  %v", p)
	}
	return b.String()
}

// ver is a version in few words; its value follows from the rest.
func ver(inst keyspace.InstanceID, key string, rev, until keyspace.Revision) placed {
	return placed{inst, Version{Key: []byte(key), Revision: rev, Until: until, Value: fmt.Appendf(nil, "%d %s %d", inst, key, rev)}}
}

// writable is a History or Runs.
type writable interface{ Writer() *Writer }

// tryWrite makes a file of versions that are in order, or none.
func tryWrite(s writable, versions []placed) error {
	w := s.Writer()
	for _, v := range versions {
		if err := w.Add(v.inst, v.Version); err != nil {
			return errors.Join(err, w.Abort())
		}
	}
	if err := w.Finish(); err != nil {
		return errors.Join(err, w.Abort())
	}
	return nil
}

func mustWrite(t failer, s writable, versions ...placed) {
	t.Helper()
	if err := tryWrite(s, versions); err != nil {
		t.Fatal(err)
	}
}

// follows reports whether a version lies in a range at or behind a key, in the
// range's direction.
func (r Range) follows(v placed, key []byte, inclusive bool) bool {
	switch c := bytes.Compare(v.Key, key); {
	case v.inst != r.Instance || bytes.Compare(v.Key, r.Lower) < 0 || r.Upper != nil && bytes.Compare(v.Key, r.Upper) >= 0:
		return false
	case !r.Reverse && c < 0 || r.Reverse && key != nil && (c > 0 || c == 0 && !inclusive):
		return false
	}
	return true
}

// failNth lets the operation fail that comes after n others, and returns where
// it will be told.
func failNth(fs *simfs.FS, n int, injected error) *simfs.Op {
	failed := new(simfs.Op)
	fs.Before(func(o simfs.Op) error {
		if n--; n == -1 {
			*failed = o
			return injected
		}
		return nil
	})
	return failed
}

// at returns block n; of a run, whose table has no revisions, with the highest one.
func (t *blockTable) at(n int) block {
	p := t.parts[0]
	for _, next := range t.parts {
		if next.first <= n {
			p = next
		}
	}
	g := p.group + (n-p.first)/groupBlocks
	key := slices.Concat(t.prefix(g), t.rest(n, g))
	return block{offset: t.start(n), length: t.length(n), instance: p.instance, key: key, rev: t.rev(n)}
}

// encodeIndex is an index without a filter.
func encodeIndex(spans []instanceSpan, blocks []block) []byte {
	b := appendSpans(nil, spans, len(blocks))
	for i := range blocks {
		b = appendBlock(b, &blocks[i])
	}
	return b
}

// decodeIndex is the inverse, blocks in any order of instances.
func decodeIndex(b []byte, end int64, filtered bool) (spans map[keyspace.InstanceID]Span, blocks []block, keys filter, err error) {
	spans, keys, err = readIndex(&indexReader{from: bytes.NewReader(b), end: int64(len(b))}, end, filtered, indexParts{
		count: func(n int) { blocks = make([]block, 0, n) },
		block: func(b block) bool { b.key = bytes.Clone(b.key); blocks = append(blocks, b); return true },
	})
	if err != nil {
		return nil, nil, nil, err
	}
	return spans, blocks, keys, nil
}

// all returns every block.
func (t *blockTable) all() (blocks []block) {
	for n := range t.count() {
		blocks = append(blocks, t.at(n))
	}
	return blocks
}

// readFile returns every version of one file, by iterators.
func readFile(f *file) (all []placed, err error) {
	instances := make([]keyspace.InstanceID, 0, len(f.spans))
	for inst := range f.spans {
		instances = append(instances, inst)
	}
	slices.Sort(instances)
	for _, inst := range instances {
		it := Iterator{o: Range{Instance: inst, At: keyspace.MaxRevision, AllVersions: true}, c: cursor{file: f, from: f.f, instance: inst}}
		for it.SeekForward(nil); it.Version() != nil; it.Next() {
			all = append(all, placed{inst, *it.Version()})
		}
		if it.Err() != nil {
			return all, it.Err()
		}
	}
	return all, nil
}

func names(t failer, fs env.FS) []string {
	t.Helper()
	all, err := fs.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantNames(t failer, fs env.FS, numbers ...uint64) {
	t.Helper()
	wantFiles(t, fs, &historyKind, numbers...)
}

func wantFiles(t failer, fs env.FS, k *kind, numbers ...uint64) {
	t.Helper()
	want := make([]string, 0, len(numbers))
	for _, n := range numbers {
		want = append(want, k.nameOf(n))
	}
	if got := names(t, fs); !slices.Equal(got, want) {
		t.Fatalf("files %q, want %q", got, want)
	}
}

// contents returns the bytes of a file.
func contents(t failer, fs *simfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(testDir + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// diskWith has b as file 1 of the history.
func diskWith(t failer, b []byte) *simfs.FS {
	t.Helper()
	return diskWithFile(t, historyKind.nameOf(1), b)
}

func diskWithFile(t failer, name string, b []byte) *simfs.FS {
	t.Helper()
	fs := simfs.New()
	if err := fs.MkdirAll(testDir); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(testDir + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

func wantCode(t testing.TB, err error, want fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != want {
		t.Fatalf("error %v, want %s", err, want)
	}
}

// checkUntil repeats a check, whose draws are random, until it came to all that it
// has to reach; a short one draws too little for that.
func checkUntil(t *testing.T, reached func() bool, check func(*rapid.T)) {
	t.Helper()
	for range 8 {
		rapid.Check(t, check)
		if testing.Short() || t.Failed() || reached() {
			return
		}
	}
	t.Error("the test reaches too little")
}
